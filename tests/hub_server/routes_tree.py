"""Reading: trees, paths, refs, history, files and `git clone`.

Invariant: a file's bytes and what is told of them (size, hash, commit) are of one and the same commit.
"""

from __future__ import annotations

import re
import subprocess
from typing import Any
from urllib.parse import parse_qs, quote

from .git import Blob, environment
from .repositories import Repository, moment
from .web import Refusal, Request, Response, Routes, answer

ROUTES = Routes()


@ROUTES.add("GET", "api/{repo}/tree/{revision}")
def tree(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> Any:
    return subtree(hub, request, kind, repo_id, revision, "")


@ROUTES.add("GET", "api/{repo}/tree/{revision}/{path}")
def subtree(hub: Any, request: Request, kind: str, repo_id: str, revision: str, path: str) -> Any:
    """Files and folders in pages; `cursor` is the number of the first row of the next page."""
    repo = hub.repositories.readable(request, kind, repo_id)
    commit = repo.commit_of(revision)
    below = f"{path.strip('/')}/" if path.strip("/") else ""
    names = [name for name in (*repo.git.blobs(commit), *repo.git.trees(commit)) if name.startswith(below)]
    if below and not names:
        raise _entry_missing(f'{path} does not exist on "{revision}"', commit)
    if not request.flag("recursive"):
        names = [name for name in names if "/" not in name[len(below) :]]
    start, size = int(request.option("cursor") or 0), hub.tree_page
    page = sorted(names)[start : start + size]
    headers = {}
    if start + size < len(names):
        keep = "&".join(f"{key}={quote(value[-1])}" for key, value in request.query.items() if key != "cursor")
        headers["Link"] = f'<{hub.url}{request.path}?{keep}&cursor={start + size}>; rel="next"'
    return answer([_row(repo, commit, name, expand=request.flag("expand")) for name in page], headers=headers)


@ROUTES.add("POST", "api/{repo}/paths-info/{revision}")
def paths_info(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> Any:
    repo = hub.repositories.readable(request, kind, repo_id)
    commit = repo.commit_of(revision)
    if request.headers.get_content_type() == "application/json":
        asked = request.json()
        paths, expand = asked["paths"], bool(asked.get("expand"))
    else:
        form = parse_qs(request.body.decode())
        paths, expand = form.get("paths", []), form.get("expand", [""])[-1].lower() in ("1", "true")
    known = {*repo.git.blobs(commit), *repo.git.trees(commit)}
    names = [path.strip("/") for path in paths]
    return [_row(repo, commit, name, expand=expand) for name in names if name in known]


def _row(repo: Repository, commit: str, name: str, *, expand: bool) -> dict[str, Any]:
    blob = repo.git.blobs(commit).get(name)
    if blob is None:
        row: dict[str, Any] = {"type": "directory", "oid": repo.git.trees(commit)[name], "size": 0, "path": name}
    else:
        row = {"type": "file", "oid": blob.oid, "size": blob.size, "path": name}
        if blob.pointer:
            row["size"] = blob.pointer.size
            row["lfs"] = {"oid": blob.pointer.sha256, "size": blob.pointer.size, "pointerSize": blob.size}
    if expand:
        last = repo.git.history(commit, name, limit=1)[0]
        row["lastCommit"] = {"id": last.oid, "title": last.title, "date": moment(last.date)}
        if blob is not None:
            row["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return row


@ROUTES.add("GET", "api/{repo}/refs")
def refs(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    repo = hub.repositories.readable(request, kind, repo_id)
    groups: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": []}
    if request.flag("include_prs"):
        groups["pullRequests"] = []
    places = {"heads": "branches", "convert": "converts", "tags": "tags", "pr": "pullRequests"}
    for ref, commit in repo.git.refs().items():
        _, place, name = ref.split("/", 2)
        if places.get(place) in groups:
            groups[places[place]].append({"name": name, "ref": ref, "targetCommit": commit})
    return groups


@ROUTES.add("GET", "api/{repo}/commits/{revision}")
def commits(hub: Any, request: Request, kind: str, repo_id: str, revision: str) -> Any:
    repo = hub.repositories.readable(request, kind, repo_id)
    return [
        {
            **{"id": commit.oid, "title": commit.title, "message": commit.message, "date": moment(commit.date)},
            "authors": [{"user": commit.author}],
        }
        for commit in repo.git.history(repo.commit_of(revision))
    ]


@ROUTES.add("GET", "{files}/raw/{revision}/{path}")
def raw(hub: Any, request: Request, kind: str, repo_id: str, revision: str, path: str) -> Any:
    """A file as git has it: the pointer, for one in LFS storage."""
    repo = hub.repositories.with_files(request, kind, repo_id)
    commit, blob = _found(repo, revision, path)
    return _ranged(request, repo.git.content(blob.oid), _headers(commit, blob))


@ROUTES.add("GET", "{files}/resolve/{revision}/{path}")
def resolve(hub: Any, request: Request, kind: str, repo_id: str, revision: str, path: str) -> Any:
    """A file's bytes, or a redirection to LFS storage on another host name."""
    repo = hub.repositories.with_files(request, kind, repo_id)
    commit, blob = _found(repo, revision, path)
    headers = _headers(commit, blob)
    if blob.pointer is None:
        return _ranged(request, repo.git.content(blob.oid), headers)
    headers |= {"X-Linked-Etag": f'"{blob.pointer.sha256}"', "X-Linked-Size": str(blob.pointer.size)}
    headers["Location"] = hub.storage.link("GET", repo, blob.pointer.sha256)
    return Response(302, f"Found. Redirecting to {headers['Location']}".encode(), headers)


def _found(repo: Repository, revision: str, path: str) -> tuple[str, Blob]:
    commit = repo.commit_of(revision)
    blob = repo.git.blobs(commit).get(path)
    if blob is None:
        raise _entry_missing("Entry not found", commit)
    return commit, blob


def _entry_missing(message: str, commit: str) -> Refusal:
    refusal = Refusal(404, message, "EntryNotFound")
    refusal.headers["X-Repo-Commit"] = commit
    return refusal


def _headers(commit: str, blob: Blob) -> dict[str, str]:
    name = quote(blob.path.rpartition("/")[2])
    return {
        "X-Repo-Commit": commit,
        "ETag": f'"{blob.oid}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{name}; filename=\"{name}\";",
    }


def _ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    return ranged(request, content, {**headers, "Content-Type": "application/octet-stream"})


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """The bytes that the Range header asks for, of one range; otherwise all."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range") or "")
    if asked is None or asked[0] == "bytes=-":
        return Response(200, content, headers)
    size = len(content)
    if asked[1]:
        first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
    else:
        first, last = max(0, size - int(asked[2])), size - 1
    if first > last or first >= size:
        return Response(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    return Response(206, content[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"})


@ROUTES.add("GET", r"{files}(?:\.git)?/info/refs")
def git_refs(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    service = request.option("service")
    if service != "git-upload-pack":
        raise Refusal(501, f"the test server does not offer {service}: it is pushed to by commits of the API only")
    repo = _cloneable(hub, request, kind, repo_id)
    body = b"001e# service=git-upload-pack\n0000" + _upload_pack(repo, request, "--advertise-refs")
    return Response(200, body, {"Content-Type": "application/x-git-upload-pack-advertisement"})


@ROUTES.add("POST", r"{files}(?:\.git)?/git-upload-pack")
def git_upload_pack(hub: Any, request: Request, kind: str, repo_id: str) -> Any:
    repo = _cloneable(hub, request, kind, repo_id)
    body = _upload_pack(repo, request)
    return Response(200, body, {"Content-Type": "application/x-git-upload-pack-result"})


def _cloneable(hub: Any, request: Request, kind: str, repo_id: str) -> Repository:
    try:
        return hub.repositories.with_files(request, kind, repo_id)
    except Refusal as refusal:
        if refusal.status == 401:
            # git only sends its password after it was asked to.
            refusal.headers["WWW-Authenticate"] = 'Basic realm="Authentication required"'
        raise


def _upload_pack(repo: Repository, request: Request, *options: str) -> bytes:
    protocol = request.headers.get("Git-Protocol", "")
    command = ["git", "upload-pack", "--stateless-rpc", *options, str(repo.git.path)]
    env = environment(GIT_PROTOCOL=protocol)
    process = subprocess.run(command, input=request.body, capture_output=True, env=env)
    if process.returncode not in (0, 128):
        raise Refusal(501, process.stderr.decode(errors="replace"))
    return process.stdout
