"""HTTP: requests, answers, refusals, routes and the threads that serve them.

Invariant: every request gets an answer that the client does not retry blindly: what is unsupported or fails inside is a
501 with its reason, never a 500.
"""

from __future__ import annotations

import gzip
import json
import re
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = {"model": "models", "dataset": "datasets"}
"""Kinds of repositories, and how addresses of the API call them."""

NAME = r"[^/?]+"
PATTERNS = {
    "repo": rf"(?P<kinds>{'|'.join(KINDS.values())})/(?P<namespace>{NAME})/(?P<name>{NAME})",
    "files": rf"(?P<dataset>datasets/)?(?P<namespace>{NAME})/(?P<name>{NAME}?)",
    "path": r"(?P<path>.+)",
}


class Arrived(NamedTuple):
    """A request in the log; the address has its query, names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    status: int | None
    host: str
    sent: int


@dataclass(frozen=True)
class Request:
    """A request; `path` is as it was sent, still quoted, and `host` is `api` or `storage`."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: bytes
    host: str

    def json(self) -> Any:
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refusal(400, f"the body is not JSON: {error}") from error

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[-1].lower() in ("1", "true")

    def option(self, name: str) -> str | None:
        return self.query.get(name, [None])[-1]


@dataclass
class Response:
    """An answer; an iterator as `body` is sent piece by piece."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer with an error, as the client reads it: a code, a message and a body."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body
        self.headers: dict[str, str] = {}

    def response(self) -> Response:
        headers = {**self.headers, "X-Error-Message": " ".join(self.message.split())}
        if self.code:
            headers["X-Error-Code"] = self.code
        return answer({"error": self.message, **self.body}, self.status, headers)


class Cut(Exception):  # noqa: N818 - it is an answer
    """Instead of an answer: the connection closes, after so many bytes of the answer's body."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(after)
        self.after = after
        self.response: Response | None = None


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as JSON."""
    body = json.dumps(value).encode()
    return Response(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


Handler = Callable[..., Any]


class Routes:
    """What answers which address: `{repo}`, `{files}`, `{path}` and `{any_name}` stand for parts of it."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, template: str) -> Callable[[Handler], Handler]:
        pattern = re.sub(r"\{([a-z_]+)\}", lambda m: PATTERNS.get(m[1], rf"(?P<{m[1]}>{NAME})"), template)

        def register(handler: Handler) -> Handler:
            self._routes.append((method, re.compile(f"/{pattern}/?"), handler))
            return handler

        return register

    def include(self, other: Routes) -> None:
        self._routes += other._routes

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler, and the parts of the address; a repository becomes `kind` and `repo_id`."""
        for wanted, pattern, handler in self._routes:
            found = pattern.fullmatch(path)
            if found and method in (wanted, {"GET": "HEAD"}.get(wanted)):
                parts = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
                return handler, _named(parts)
        return None


def _named(parts: dict[str, str]) -> dict[str, str]:
    if "name" in parts:
        parts["repo_id"] = f"{parts.pop('namespace')}/{parts.pop('name')}"
        kinds = parts.pop("kinds", None) or ("datasets" if parts.pop("dataset", None) else "models")
        parts["kind"] = next(kind for kind, plural in KINDS.items() if plural == kinds)
    return parts


class Listener(ThreadingHTTPServer):
    """One port; `respond` answers, `log` is told of every request, `broke` of every mistake of the server."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        host: str,
        respond: Callable[[Request], Response],
        log: Callable[[Arrived], None],
        broke: Callable[[str], None],
    ) -> None:
        self.host, self.respond, self.log, self.broke = host, respond, log, broke
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests do."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Listener

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: the log is a list."""

    def _serve(self) -> None:
        split = urlsplit(self.path)
        request = Request(
            self.command,
            split.path,
            parse_qs(split.query, keep_blank_values=True),
            self.headers,
            self._body(),
            self.server.host,
        )
        try:
            response = self.server.respond(request)
            cut = None
        except Refusal as refusal:
            response, cut = refusal.response(), None
        except Cut as fault:
            response, cut = fault.response, fault
        except Exception:
            self.server.broke(f"{self.command} {self.path}\n{traceback.format_exc()}")
            response, cut = Refusal(501, f"the test server failed: {traceback.format_exc()}").response(), None
        sent = 0
        status = None
        try:
            if response is not None and (cut is None or cut.after is not None):
                status = response.status
                sent = self._send(response, None if cut is None else cut.after)
            if cut is not None:
                self.close_connection = True
                self.connection.close()
        finally:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.log(Arrived(self.command, self.path, headers, status, self.server.host, sent))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(pieces)
        else:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionResetError("the client went away")
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, response: Response, limit: int | None) -> int:
        headers = {"X-Request-Id": str(uuid.uuid4()), **response.headers}
        whole = isinstance(response.body, bytes)
        if whole:
            headers.setdefault("Content-Length", str(len(response.body)))
        else:
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(response.status)
        for name, value in headers.items():
            self.send_header(name, value.encode("ascii", "replace").decode())
        self.end_headers()
        sent = 0
        if self.command != "HEAD":
            if whole:
                body = response.body[:limit]
                self.wfile.write(body)
                sent = len(body)
            else:
                for piece in response.body:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    self.wfile.flush()
                    sent += len(piece)
                self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
        return sent
