"""The beginnings of files: only what is asked for, asked for once, and also from servers that know no ranges."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from hub_fixtures import run_python

READ = """
import json, sys
from pathlib import Path
from steer_eval.errors import SteerEvalError
from steer_eval.hub.address import HubAddress
from steer_eval.hub.head import Head

asked = json.loads(sys.argv[1])
answers = []
for path, size in asked["heads"]:
    address = HubAddress(asked["repo"], "model", asked["revision"], path)
    try:
        answers.append(Head(address, "ab" * 32 + path[:0], Path(asked["cache"], path.replace("/", "-")))(size).hex())
    except SteerEvalError as error:
        answers.append(error.message)
print(json.dumps(answers))
"""
CONTENT = bytes(range(256)) * 4096


def read(env, cache, revision, *heads):
    asked = {"repo": "lab/big", "revision": revision, "cache": str(cache), "heads": heads}
    return json.loads(run_python(READ, env, json.dumps(asked)))


def test_only_the_beginning_is_asked_for_and_only_once(hub, tmp_path):
    commit = hub.upload("lab/big", "model", {"a b/big.bin": CONTENT, "small.txt": b"abc"})
    env = hub.environment(tmp_path / "home")
    heads = [("a b/big.bin", 8), ("a b/big.bin", 100), ("a b/big.bin", 50), ("small.txt", 8), ("none.txt", 8)]
    answers = read(env, tmp_path / "cache", commit, *heads)

    assert answers[:4] == [CONTENT[:8].hex(), CONTENT[:100].hex(), CONTENT[:50].hex(), b"abc".hex()]
    assert "has no file none.txt" in answers[4]
    ranges = [(each.headers.get("range"), each.sent) for each in hub.requests if each.host == "storage"]
    assert ranges == [("bytes=0-7", 8), ("bytes=8-99", 92)]
    hub.requests.clear()
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    assert read(offline, tmp_path / "cache", commit, *heads[:3]) == answers[:3]
    assert "not in the cache" in read(offline, tmp_path / "cache", commit, ("a b/big.bin", 101))[0]
    assert hub.requests == []


class _WithoutRanges(BaseHTTPRequestHandler):
    """Sends all it has, whatever is asked for, and then waits for ever."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2**40))
        self.end_headers()
        self.wfile.write(CONTENT)
        self.wfile.flush()
        self.rfile.read()

    def log_message(self, *_arguments: object) -> None:
        pass


def test_a_server_that_knows_no_ranges(hub, tmp_path):
    with HTTPServer(("127.0.0.1", 0), _WithoutRanges) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        env = {**hub.environment(tmp_path / "home"), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        answers = read(env, tmp_path / "cache", "main", ("x", 8), ("x", 300))
        server.shutdown()

    assert answers == [CONTENT[:8].hex(), CONTENT[:300].hex()]
