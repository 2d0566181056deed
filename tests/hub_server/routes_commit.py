"""Writing: what is to be uploaded how, commits, branches, tags.

Invariant: a commit is refused as a whole before anything of it is visible.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from .git import ZERO, GitError, Pointer, StaleRefError
from .repositories import STALE, Change, Discussion, Repository, now
from .web import Refusal, Request, Routes

ROUTES = Routes()


@ROUTES.add("POST", "api/{repo}/preupload/{revision}")
def preupload(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> Any:
    repo, _ = _target(hub, request, kind, repo_id, revision)
    commit = repo.commit_of(revision)
    files = request.json()["files"]
    modes = repo.upload_modes(commit, [(f["path"], f["size"], base64.b64decode(f["sample"])) for f in files])
    blobs = repo.git.blobs(commit)
    rows = []
    for path, mode in modes.items():
        blob = blobs.get(path)
        oid = None if blob is None else blob.pointer.sha256 if blob.pointer else blob.oid
        rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return {"files": rows}


def _target(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> tuple[Repository, str]:
    """The repository of a change and who makes it: an owner; or anyone, for a pull request that is new or their own."""
    if request.flag("create_pr"):
        return hub.repositories.proposable(request, kind, repo_id)
    if revision.startswith("refs/pr/"):
        repo, user = hub.repositories.proposable(request, kind, repo_id)
        num = revision.removeprefix("refs/pr/")
        if num.isdecimal() and int(num) in repo.discussions and repo.discussions[int(num)].author == user:
            return repo, user
    return hub.repositories.writable(request, kind, repo_id)


@ROUTES.add("POST", "api/{repo}/commit/{revision}")
def commit(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> Any:
    repo, user = _target(hub, request, kind, repo_id, revision)
    header, changes = _operations(hub, repo, request.body)
    message = f"{header['summary']}\n\n{header.get('description') or ''}".strip()
    with repo.lock:
        ref = repo.branch_ref(revision)
        head = repo.commit_of(ref)
        parent = header.get("parentCommit")
        if parent is not None and parent != head:
            repo.commit_of(parent)
            raise Refusal(412, STALE)
        if not request.flag("create_pr"):
            oid = repo.commit(ref, head, changes, message, user)
            return _committed(hub, repo, oid)
        number = len(repo.discussions) + 1
        repo.git.move(f"refs/pr/{number}", head, ZERO)
        try:
            oid = repo.commit(f"refs/pr/{number}", head, changes, message, user)
        except Refusal:
            repo.git.move(f"refs/pr/{number}", ZERO, head)
            raise
        proposal = repo.open_discussion(header["summary"], user, pull_request=True)
        _opened(proposal, header.get("description") or "", oid)
        url = f"{hub.url}/{repo.prefix}/discussions/{proposal.num}"
        return {**_committed(hub, repo, oid), "pullRequestUrl": url}


def _opened(proposal: Discussion, description: str, oid: str) -> None:
    author = {"name": proposal.author}
    comment = {"edited": False, "hidden": False, "latest": {"raw": description}}
    pushed = {"subject": proposal.title, "oid": oid}
    for kind, data in (("comment", comment), ("commit", pushed)):
        event = {"id": f"{len(proposal.events)}", "type": kind, "createdAt": now(), "author": author, "data": data}
        proposal.events.append(event)


def _committed(hub: Any, repo: Repository, oid: str) -> dict[str, Any]:
    url = f"{hub.url}/{repo.prefix}/commit/{oid}"
    return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}


def _operations(hub: Any, repo: Repository, body: bytes) -> tuple[dict[str, Any], list[Change]]:
    """The header and the changes of a commit's lines."""
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        (header,) = [line["value"] for line in lines if line["key"] == "header"]
        _take_from_xet(hub, repo, lines)
        changes = [_change(repo, line["key"], line["value"]) for line in lines if line["key"] != "header"]
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise Refusal(400, f"the commit is not well-formed: {error!r}") from error
    if not header.get("summary"):
        raise Refusal(400, "a commit needs a summary")
    return header, changes


def _take_from_xet(hub: Any, repo: Repository, lines: list[dict[str, Any]]) -> None:
    """Put into LFS storage what the client uploaded by Xet."""
    missing = {line["value"]["oid"] for line in lines if line["key"] == "lfsFile"}
    missing = {oid for oid in missing if oid not in repo.lfs}
    if missing:
        hub.xet.collect()
    for oid in missing & hub.xet.by_sha256.keys():
        repo.lfs.write(hub.xet.by_sha256[oid], oid)


def _change(repo: Repository, key: str, value: dict[str, Any]) -> Change:
    path = value["path"]
    parts = path.rstrip("/").split("/")
    if any(part in ("", ".", "..", ".git") for part in parts) or "\0" in path:
        raise Refusal(400, f"the path {path!r} is not allowed")
    if key == "file":
        if value.get("encoding", "utf-8") == "base64":
            return Change(path, content=base64.b64decode(value["content"], validate=True))
        return Change(path, content=value["content"].encode())
    if key == "lfsFile":
        sha256 = value["oid"]
        if value.get("algo") != "sha256":
            raise Refusal(400, f"LFS objects are named by sha256, not {value.get('algo')!r}")
        if sha256 not in repo.lfs or value.get("size", repo.lfs.size(sha256)) != repo.lfs.size(sha256):
            raise Refusal(400, f"the LFS object {sha256} of {path} was not uploaded")
        return Change(path, pointer=Pointer(sha256, repo.lfs.size(sha256)))
    if key in ("deletedFile", "deletedFolder"):
        return Change(path, folder=key == "deletedFolder")
    raise Refusal(501, f"the test server knows no operation {key!r}")


@ROUTES.add("POST", "api/{repo}/branch/{branch}")
def create_branch(hub: Any, request: Request, kind: str, repo_id: str, branch: str) -> Any:
    repo, _ = hub.repositories.writable(request, kind, repo_id)
    start = repo.commit_of(request.json().get("startingPoint") or "main")
    return _new_ref(repo, f"refs/heads/{branch}", start)


@ROUTES.add("DELETE", "api/{repo}/branch/{branch}")
def delete_branch(hub: Any, request: Request, kind: str, repo_id: str, branch: str) -> Any:
    repo, _ = hub.repositories.writable(request, kind, repo_id)
    if branch == "main":
        raise Refusal(403, "the main branch cannot be deleted")
    return _delete_ref(repo, f"refs/heads/{branch}")


@ROUTES.add("POST", "api/{repo}/tag/{revision}")
def create_tag(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> Any:
    repo, _ = hub.repositories.writable(request, kind, repo_id)
    return _new_ref(repo, f"refs/tags/{request.json()['tag']}", repo.commit_of(revision))


@ROUTES.add("DELETE", "api/{repo}/tag/{tag}")
def delete_tag(hub: Any, request: Request, kind: str, repo_id: str, tag: str) -> Any:
    repo, _ = hub.repositories.writable(request, kind, repo_id)
    return _delete_ref(repo, f"refs/tags/{tag}")


def _new_ref(repo: Repository, ref: str, commit: str) -> dict[str, Any]:
    with repo.lock:
        if ref in repo.git.refs():
            raise Refusal(409, f"Reference already exists: {ref}")
        try:
            repo.git.run("check-ref-format", ref)
            repo.git.move(ref, commit, ZERO)
        except GitError as error:
            raise Refusal(400, f"git refuses the name {ref!r}: {error}") from error
    return {}


def _delete_ref(repo: Repository, ref: str) -> dict[str, Any]:
    with repo.lock:
        refs = repo.git.refs()
        if ref not in refs:
            raise Refusal(404, f"Invalid rev id: {ref}", "RevisionNotFound")
        repo.git.move(ref, ZERO, refs[ref])
    return {}


@ROUTES.add("POST", "api/{repo}/super-squash/{branch}")
def super_squash(hub: Any, request: Request, kind: str, repo_id: str, branch: str) -> Any:
    repo, user = hub.repositories.writable(request, kind, repo_id)
    with repo.lock:
        ref = repo.branch_ref(branch)
        head = repo.commit_of(ref)
        tree = repo.git.run("rev-parse", f"{head}^{{tree}}").decode().strip()
        squashed = repo.git.write_commit(tree, [], request.json().get("message") or "Super-squash", user)
        try:
            repo.git.move(ref, squashed, head)
        except StaleRefError as error:
            raise Refusal(412, STALE) from error
    return {}
