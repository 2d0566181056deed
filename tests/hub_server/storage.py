"""Uploads and downloads of LFS objects: the batch API, and the storage behind links on another host name.

Invariant: the storage serves whoever has a link that this server signed, and looks at no token; a link is good for one
method and one object of one repository.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from math import ceil
from typing import Any

from .lfs import WrongContentError
from .repositories import Repository
from .routes_tree import ranged
from .web import KINDS, Refusal, Request, Response, Routes, answer

ROUTES = Routes()
"""Of the API's host."""

STORAGE = Routes()
"""Of the storage's host."""

LFS_TYPE = {"Content-Type": "application/vnd.git-lfs+json"}
PLACE = rf"lfs/(?P<kinds>{'|'.join(KINDS.values())})/(?P<namespace>[^/]+)/(?P<name>[^/]+)/(?P<oid>[0-9a-f]{{64}})"


class Storage:
    """Links, and the parts of uploads that are not whole yet."""

    def __init__(self) -> None:
        self.url = ""
        self.chunk_size: int | None = None
        self.parts: dict[tuple[str, int], bytes] = {}
        self.lock = threading.Lock()
        self._key = secrets.token_bytes(16)

    def link(self, method: str, repo: Repository, oid: str, place: str = "") -> str:
        path = f"/lfs/{KINDS[repo.kind]}/{repo.id}/{oid}{place}"
        return f"{self.url}{path}?signature={self.signature(method, path)}"

    def signature(self, method: str, path: str) -> str:
        return hmac.new(self._key, f"{method} {path}".encode(), hashlib.sha256).hexdigest()

    def check(self, request: Request) -> None:
        method = "GET" if request.method == "HEAD" else request.method
        if not hmac.compare_digest(request.option("signature") or "", self.signature(method, request.path)):
            raise Refusal(403, "the link is not signed for this")


@ROUTES.add("POST", r"{files}\.git/info/lfs/objects/batch")
def batch(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    asked = request.json()
    if asked.get("operation") == "upload":
        # A pull request may come from anyone, and its objects come before it.
        repo, _ = hub.repositories.proposable(request, kind, repo_id)
        offer = _upload
    elif asked.get("operation") == "download":
        repo = hub.repositories.with_files(request, kind, repo_id)
        offer = _download
    else:
        raise Refusal(422, f"the operation {asked.get('operation')!r} is not known")
    if asked.get("hash_algo", "sha256") != "sha256":
        raise Refusal(409, "LFS objects are named by sha256")
    # The answer names one way for all: in parts if any object is larger than a part.
    whole = hub.storage.chunk_size is None or "multipart" not in asked.get("transfers", ["basic"])
    chunk = None if whole else hub.storage.chunk_size
    rows = [offer(hub, repo, row["oid"], row["size"], chunk) for row in asked["objects"]]
    transfer = "multipart" if any("chunk_size" in _header(row) for row in rows) else "basic"
    return answer({"transfer": transfer, "objects": rows}, headers=LFS_TYPE)


def _header(row: dict[str, Any]) -> dict[str, str]:
    return row.get("actions", {}).get("upload", {}).get("header", {})


def _upload(hub: Any, repo: Repository, oid: str, size: int, chunk: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"oid": oid, "size": size}
    if oid in repo.lfs:
        return row
    verify = f"{hub.url}/{repo.prefix}.git/info/lfs/objects/verify"
    if chunk is None or size <= chunk:
        upload: dict[str, Any] = {"href": hub.storage.link("PUT", repo, oid)}
    else:
        parts = range(1, ceil(size / chunk) + 1)
        header = {f"{part:05d}": hub.storage.link("PUT", repo, oid, f"/{part}") for part in parts}
        href = f"{hub.url}/{repo.prefix}.git/info/lfs/objects/complete?signature={hub.storage.signature('POST', oid)}"
        upload = {"href": href, "header": {"chunk_size": str(chunk), **header}}
    return {**row, "actions": {"upload": upload, "verify": {"href": verify}}}


def _download(hub: Any, repo: Repository, oid: str, size: int, chunk: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"oid": oid, "size": size}
    if oid not in repo.lfs:
        return {**row, "error": {"code": 404, "message": "Object does not exist"}}
    return {**row, "actions": {"download": {"href": hub.storage.link("GET", repo, oid)}}}


@ROUTES.add("POST", r"{files}\.git/info/lfs/objects/verify")
def verify(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    repo, _ = hub.repositories.proposable(request, kind, repo_id)
    asked = request.json()
    if asked["oid"] not in repo.lfs or repo.lfs.size(asked["oid"]) != asked["size"]:
        raise Refusal(404, f"the object {asked['oid']} of {asked['size']} bytes is not here")
    return {}


@ROUTES.add("POST", r"{files}\.git/info/lfs/objects/complete")
def complete(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    """Put parts together. The client sends no token here, as the link is signed."""
    asked = request.json()
    oid = asked["oid"]
    repo = hub.repositories.get(kind, repo_id)
    if repo is None or request.option("signature") != hub.storage.signature("POST", oid):
        raise Refusal(403, "the link is not signed for this")
    with hub.storage.lock:
        numbers = [part["partNumber"] for part in asked["parts"]]
        missing = [number for number in numbers if (oid, number) not in hub.storage.parts]
        if numbers != list(range(1, len(numbers) + 1)) or missing:
            raise Refusal(400, f"parts are missing: {missing or numbers}")
        content = b"".join(hub.storage.parts.pop((oid, number)) for number in numbers)
    _write(repo, content, oid)
    return {}


@STORAGE.add("PUT", PLACE)
def put(hub: Any, request: Request, kind: str, repo_id: str, oid: str) -> Any:
    hub.storage.check(request)
    _write(_repository(hub, kind, repo_id), request.body, oid)
    return Response(200, b"", {"ETag": f'"{oid}"'})


@STORAGE.add("PUT", rf"{PLACE}/(?P<part>\d+)")
def put_part(hub: Any, request: Request, kind: str, repo_id: str, oid: str, part: str) -> Any:
    hub.storage.check(request)
    with hub.storage.lock:
        hub.storage.parts[oid, int(part)] = request.body
    return Response(200, b"", {"ETag": f'"{hashlib.sha256(request.body).hexdigest()}"'})


@STORAGE.add("GET", PLACE)
def get(hub: Any, request: Request, kind: str, repo_id: str, oid: str) -> Any:
    """An object as it is stored, whether or not it still has its hash."""
    hub.storage.check(request)
    repo = _repository(hub, kind, repo_id)
    if oid not in repo.lfs:
        raise Refusal(404, "the object does not exist")
    headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes", "Content-Type": "binary/octet-stream"}
    return ranged(request, repo.lfs.read(oid), headers)


def _repository(hub: Any, kind: str, repo_id: str) -> Repository:
    repo = hub.repositories.get(kind, repo_id)
    if repo is None:
        raise Refusal(404, "the repository does not exist")
    return repo


def _write(repo: Repository, content: bytes, oid: str) -> None:
    try:
        repo.lfs.write(content, oid)
    except WrongContentError as error:
        raise Refusal(400, str(error)) from error
