"""llama.cpp's own HTTP server, from the wheel xllamacpp: `python llama_server.py MODEL.gguf`; prints its address."""

import os
import sys
import time

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = 2
    params.cpuparams_batch.n_threads = 2
    params.warmup = False
    # Threads that wait must not spin: on a busy machine that is ten times slower.
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201 - for the test that started it
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    # The server's threads would wait for each other.
    os._exit(0)


main()
