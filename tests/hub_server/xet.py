"""Uploads by Xet, into the local store that hf_xet itself brings, and buckets, which take files by Xet only.

Invariant: whatever a client uploaded so is read back by hf_xet, in a process of its own, from a copy: one process at a
time can have a store open, and that may still be the client.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .repositories import now
from .web import Refusal, Request, Response, Routes, answer

ROUTES = Routes()

ENTRY = 48
"""Bytes of every record of a shard."""

READ = """
import sys, time
from hf_xet import XetFileInfo, XetSession
store, *files = sys.argv[1:]
group = XetSession().new_file_download_group(endpoint=store, token="t", token_expiry_unix_secs=int(time.time()) + 3600)
with group:
    for entry in files:
        name, size, path = entry.split(",", 2)
        group.start_download_file(XetFileInfo(name, int(size)), path)
"""


@dataclass
class Bucket:
    """A bucket and its files."""

    id: str
    private: bool
    created_at: str = field(default_factory=now)
    files: dict[str, bytes] = field(default_factory=dict)


class XetStores:
    """One store for each token that was asked for, and the contents that were read back from them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_sha256: dict[str, bytes] = {}
        self.by_hash: dict[str, bytes] = {}
        self._stores: list[Path] = []
        self._lock = threading.Lock()

    def issue(self) -> Response:
        """A token, and the address of a store for it."""
        with self._lock:
            store = self.root / str(len(self._stores))
            self._stores.append(store)
        url, expiry = f"local://{store}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "local", "X-Xet-Token-Expiration": str(expiry)}
        return answer({"casUrl": url, "accessToken": "local", "exp": expiry}, headers=headers)

    def collect(self) -> None:
        """Read what is new in any store; one that is being written to is left for later."""
        with self._lock:
            for store in self._stores:
                new = {name: size for name, size in _files(store) if name not in self.by_hash}
                if new:
                    self._read(store, new)

    def _read(self, store: Path, files: dict[str, int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(store, Path(folder) / "store")
            wanted = [f"{name},{size},{folder}/{name}" for name, size in files.items()]
            process = subprocess.run([sys.executable, "-c", READ, f"local://{copy}", *wanted], capture_output=True)
            if process.returncode == 0:
                for name in files:
                    content = (Path(folder) / name).read_bytes()
                    self.by_hash[name] = content
                    self.by_sha256[hashlib.sha256(content).hexdigest()] = content


def _files(store: Path) -> Iterator[tuple[str, int]]:
    """The hash and the size of every file in the shards of a store."""
    for shard in sorted(store.glob("xet/xorbs/shards/*.mdb")):
        content = shard.read_bytes()
        # A header of one record; then for each file its header, its segments and what else its flags announce.
        position = ENTRY
        while content[position : position + 32] not in (b"\xff" * 32, b""):
            words = [content[position + 8 * i : position + 8 * (i + 1)][::-1] for i in range(4)]
            flags, segments = (int.from_bytes(content[position + at : position + at + 4], "little") for at in (32, 36))
            position += ENTRY
            places = range(position, position + segments * ENTRY, ENTRY)
            yield b"".join(words).hex(), sum(int.from_bytes(content[at + 36 : at + 40], "little") for at in places)
            position += ENTRY * (segments * (2 if flags & 1 << 31 else 1) + (1 if flags & 1 << 30 else 0))


@ROUTES.add("GET", "api/{repo}/xet-write-token/{revision}")
def write_token(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> Any:
    hub.repositories.proposable(request, kind, repo_id)
    return hub.xet.issue()


@ROUTES.add("GET", "api/buckets/{owner}/{bucket}/xet-write-token")
def bucket_token(hub: Any, request: Request, owner: str, bucket: str) -> Any:
    hub.accounts.writer(request, owner)
    _found(hub, request, owner, bucket)
    return hub.xet.issue()


@ROUTES.add("POST", "api/buckets/{owner}/{bucket}")
def create_bucket(hub: Any, request: Request, owner: str, bucket: str) -> Any:
    owner = hub.accounts.member(request).user if owner == "me" else owner
    hub.accounts.writer(request, owner)
    name = f"{owner}/{bucket}"
    url = f"{hub.url}/buckets/{name}"
    if name in hub.buckets:
        raise Refusal(409, f"the bucket {name} exists", url=url)
    asked = request.json()
    hub.buckets[name] = Bucket(name, asked.get("visibility") == "private" or bool(asked.get("private")))
    return {"url": url, "name": name, "id": name}


@ROUTES.add("GET", "api/buckets/{owner}/{bucket}")
def bucket_info(hub: Any, request: Request, owner: str, bucket: str) -> Any:
    found = _found(hub, request, owner, bucket)
    size = sum(map(len, found.files.values()))
    row = {"id": found.id, "private": found.private, "createdAt": found.created_at}
    return {**row, "size": size, "totalFiles": len(found.files)}


@ROUTES.add("POST", "api/buckets/{owner}/{bucket}/batch")
def bucket_batch(hub: Any, request: Request, owner: str, bucket: str) -> Any:
    hub.accounts.writer(request, owner)
    found = _found(hub, request, owner, bucket)
    hub.xet.collect()
    for line in request.body.splitlines():
        operation = json.loads(line)
        if operation["type"] == "deleteFile":
            found.files.pop(operation["path"], None)
        elif operation["type"] == "addFile" and operation["xetHash"] in hub.xet.by_hash:
            found.files[operation["path"]] = hub.xet.by_hash[operation["xetHash"]]
        elif operation["type"] == "addFile":
            raise Refusal(400, f"{operation['path']} was not uploaded")
        else:
            raise Refusal(501, f"the test server knows no operation {operation['type']!r} on buckets")
    return {"success": True, "failed": []}


@ROUTES.add("GET", "buckets/{owner}/{bucket}/resolve/{path}")
def bucket_file(hub: Any, request: Request, owner: str, bucket: str, path: str) -> Any:
    found = _found(hub, request, owner, bucket)
    if path not in found.files:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    return Response(200, found.files[path], {"Content-Type": "application/octet-stream"})


def _found(hub: Any, request: Request, owner: str, bucket: str) -> Bucket:
    found: Bucket | None = hub.buckets.get(f"{owner}/{bucket}")
    caller = hub.accounts.caller(request)
    if found is None or (found.private and not (caller and caller.owns(owner))):
        raise Refusal(404 if caller else 401, "Bucket not found", "RepoNotFound")
    return found
