"""A server on the loopback that answers JSON with JSON, for as long as a block runs: standard library alone.

Invariant: what an answer holds open (a place among the requests that are in flight) is held until its last byte is
sent, as a server's own count has it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What is sent back.

    Args:
        status: The HTTP status.
        text: The body, JSON as a rule.
        headers: Headers besides those on the body.
    """

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


Answering = Callable[[dict[str, Any], str | None], AbstractContextManager[Reply]]
"""Answers a request's body and its `Authorization`."""


@contextmanager
def listening(answering: Answering) -> Iterator[str]:
    """Serve until the block ends; yields the server's address.

    Args:
        answering: Answers requests, each in a thread of its own.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with answering(body, self.headers.get("Authorization")) as reply:
                payload = reply.text.encode()
                sizes = {"Content-Type": "application/json", "Content-Length": str(len(payload))}
                try:
                    self.send_response(reply.status)
                    for name, value in {**sizes, **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    # A client that has lost its patience.
                    self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
