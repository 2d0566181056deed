"""An OpenAI-compatible endpoint on the loopback for benchmarks, in the process that measures: standard library alone.

It answers every question with the same scores after a fixed time, and refuses with 429 what comes in above its limit.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STUDY = "artifacts/smollm2-135m-mature-anger"
MODEL = "bench"


@dataclass
class Endpoint:
    """What the endpoint is, and what it saw.

    Args:
        seconds: How long an answer takes.
        limit: Requests that may be open at once.
    """

    seconds: float
    limit: int
    url: str = ""
    answered: int = 0
    refused: int = 0
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> bool:
        """A request comes in; whether it may stay."""
        with self._lock:
            self._open += 1
            fits = self._open <= self.limit
            self.answered += fits
            self.refused += not fits
            return fits

    def leave(self) -> None:
        """A request is answered."""
        with self._lock:
            self._open -= 1


@contextmanager
def serving(seconds: float, limit: int) -> Iterator[Endpoint]:
    """Serve until the block ends."""
    endpoint = Endpoint(seconds, limit)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fits = endpoint.enter()
            try:
                if fits:
                    time.sleep(endpoint.seconds)
                self._send(200 if fits else 429, _completion(body) if fits else {"error": {"message": "too many"}})
            finally:
                endpoint.leave()

        def _send(self, status: int, value: dict[str, Any]) -> None:
            payload = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    form = body["messages"][1]["content"].rpartition("of this form: ")[2]
    keys = re.findall(r'"(\w+)": <', form)
    # What tells no keys is the question whether the endpoint can do what is asked for.
    reply: dict[str, Any] = {**dict.fromkeys(keys, 2.5), "notes": "A remark."} if keys else {"score": 2}
    message = {"role": "assistant", "content": json.dumps(reply)}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
