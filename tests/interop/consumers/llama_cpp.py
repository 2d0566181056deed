"""Greedy text and log-probabilities of llama-server, started with given command-line arguments.

The wheel xllamacpp is llama.cpp's server inside the process, built from its sources. Its Python class has no attribute
for control vectors, but the library has llama-server's own argument parser; here it fills the class from a command
line, as the program would.
"""

import ctypes
import json
import os
import sys
import urllib.request

import xllamacpp
from xllamacpp import xllamacpp as extension

PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
SERVER = 12
"""LLAMA_EXAMPLE_SERVER, which chooses the arguments that llama-server has."""
OBJECT_HEADER = 16
"""Bytes of a Python object before its own fields, of which `common_params` is the only one."""


def parameters(arguments: list[str]) -> xllamacpp.CommonParams:
    parse = getattr(ctypes.CDLL(extension.__file__), PARSE)
    parse.restype = ctypes.c_bool
    parse.argtypes = [
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
    ]
    result = xllamacpp.CommonParams()
    encoded = (ctypes.c_char_p * (len(arguments) + 1))(*[argument.encode() for argument in arguments], None)
    if not parse(len(arguments), encoded, id(result) + OBJECT_HEADER, SERVER, None):
        raise SystemExit("llama-server refuses the arguments")
    # Had the layout of the class changed, these would not be what was asked for.
    assert (result.n_parallel, result.n_ctx) == (1, 512), (result.n_parallel, result.n_ctx)
    return result


def main() -> None:
    request = json.load(sys.stdin)
    fixed = ["-c", "512", "-np", "1", "-t", "2", "--host", "127.0.0.1", "--port", "0", "--no-warmup"]
    server = xllamacpp.Server(parameters([*request["command"], *fixed]))
    body = {
        "prompt": request["prompt"],
        "n_predict": request["tokens"],
        "temperature": 0,
        "n_probs": request["probabilities"],
        "cache_prompt": False,
    }
    call = urllib.request.Request(  # noqa: S310 - its own server
        f"{server.listening_address}/completion",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(call, timeout=120) as answer:  # noqa: S310
        content = json.load(answer)
    steps = [
        {"token": step["id"], "logprobs": {each["id"]: each["logprob"] for each in step["top_logprobs"]}}
        for step in content["completion_probabilities"]
    ]
    print(json.dumps({"text": content["content"], "steps": steps}), flush=True)
    # The server's threads would wait for each other.
    os._exit(0)


main()
