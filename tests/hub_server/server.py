"""The server as tests hold it: started, filled, looked into, disturbed.

Invariant: what a test reads here is read from the repositories on disk, not from what was sent.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import routes_commit, routes_jobs, routes_repos, routes_social, routes_tree, storage, xet
from .accounts import Access, Accounts
from .faults import Action, Faults
from .git import Commit, Pointer
from .repositories import Change, Repositories, Repository
from .web import Arrived, Cut, Listener, Refusal, Request, Response, Routes, answer

API = Routes()
for _module in (routes_repos, routes_tree, routes_commit, routes_social, routes_jobs, storage, xet):
    API.include(_module.ROUTES)

PROXIES = {f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")}


class HubServer:
    """A Hub below a folder. `with HubServer(folder) as hub:` serves it at `hub.url`, LFS at another host name.

    A user `steer` with a token that writes, `hub.token`, is always there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.accounts = Accounts()
        self.repositories = Repositories(root, self.accounts)
        self.storage = storage.Storage()
        self.collections: dict[str, dict[str, Any]] = {}
        self.jobs: list[routes_jobs.Job] = []
        self.job_runner: routes_jobs.Runner | None = None
        self.buckets: dict[str, xet.Bucket] = {}
        self.xet = xet.XetStores(root / "xet")
        self.tree_page = 1000
        self.requests: list[Arrived] = []
        self.failures: list[str] = []
        self.token = self.add_user("steer")
        self._faults = Faults()
        self._listeners: list[Listener] = []

    def __enter__(self) -> HubServer:
        for host in ("api", "storage"):
            listener = Listener(host, self._respond, self.requests.append, self.failures.append)
            threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
            self._listeners.append(listener)
        api, large = (listener.server_address[1] for listener in self._listeners)
        self.url = f"http://127.0.0.1:{api}"
        self.storage.url = f"http://localhost:{large}"
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def _respond(self, request: Request) -> Response:
        try:
            self._faults.run("before", request)
        except Cut as cut:
            if cut.after is not None:
                cut.response = self._answered(request)
            raise
        response = self._answered(request)
        self._faults.run("after", request)
        return response

    def _answered(self, request: Request) -> Response:
        try:
            return self._dispatch(request)
        except Refusal as refusal:
            return refusal.response()

    def _dispatch(self, request: Request) -> Response:
        routes = API if request.host == "api" else storage.STORAGE
        found = routes.find(request.method, request.path)
        if found is None:
            raise Refusal(501, f"the test server has no {request.method} {request.path}")
        handler, parts = found
        result = handler(self, request, **parts)
        return result if isinstance(result, Response) else answer(result)

    def environment(self, home: Path, token: str | None = "", **names: str) -> dict[str, str]:
        """The environment of a process that has this Hub only: no proxies, no Xet, caches below `home`.

        `token` is `hub.token` by default; None is for nobody.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING")) and name.lower() not in PROXIES
        }
        token = self.token if token == "" else token
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            **({"HF_TOKEN": token} if token is not None else {}),
            **{"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            # Ten seconds, the client's own patience, may pass on a busy machine.
            **{"HF_HUB_DOWNLOAD_TIMEOUT": "60", "HF_HUB_ETAG_TIMEOUT": "60"},
            **{"HF_HUB_DISABLE_UPDATE_CHECK": "1", "STEER_EVAL_CACHE": str(home / "steer-eval")},
            **names,
        }

    # People

    def add_user(self, name: str, token: str | None = None, role: str = "write", orgs: tuple[str, ...] = ()) -> str:
        """A user, or one more token of a user; gives the token."""
        return self.accounts.add(name, token, role, orgs)

    def trust(self, resource: str, identity: str) -> None:
        """Let an identity of a CI service publish to a repository (`ns/name` or `datasets/ns/name`)."""
        name = resource.removeprefix("datasets/")
        access = Access(name.partition("/")[0], "write", resource=resource)
        self.accounts.trusted[resource, identity] = access

    # Repositories

    def repository(self, repo_id: str, kind: str = "model") -> Repository:
        found = self.repositories.get(kind, repo_id)
        if found is None:
            raise KeyError(f"no {kind} repository {repo_id}")
        return found

    def upload(
        self,
        repo_id: str,
        kind: str,
        files: Path | Mapping[str, bytes],
        *,
        message: str = "Upload",
        revision: str = "main",
    ) -> str:
        """A commit that adds the files of a folder (or of a mapping) by the rules of the API; gives its hash."""
        repo = self.repositories.get(kind, repo_id)
        if repo is None:
            repo = self.repositories.create(kind, repo_id, repo_id.partition("/")[0])
        if isinstance(files, Path):
            found = sorted(path for path in files.rglob("*") if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in found}
        with repo.lock:
            head = repo.commit_of(revision)
            sizes = [(path, len(content), content[:512]) for path, content in files.items()]
            modes = repo.upload_modes(head, sizes)
            changes = []
            for path, content in files.items():
                if modes[path] == "lfs" and content:
                    changes.append(Change(path, pointer=Pointer(repo.lfs.write(content), len(content))))
                else:
                    changes.append(Change(path, content=content))
            return repo.commit(repo.branch_ref(revision), head, changes, message, repo.namespace)

    def head(self, repo_id: str, kind: str = "model", revision: str = "main") -> str | None:
        """The commit of a branch, tag or pull request; None without the repository or the revision."""
        repo = self.repositories.get(kind, repo_id)
        return None if repo is None else repo.git.commit_of(revision)

    def commits(self, repo_id: str, kind: str = "model", revision: str = "main") -> list[Commit]:
        """The history, newest first; its last one is the "initial commit" that creating a repository makes."""
        repo = self.repository(repo_id, kind)
        return repo.git.history(repo.commit_of(revision))

    def files(self, repo_id: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """The content of every file, `.gitattributes` too."""
        repo = self.repository(repo_id, kind)
        blobs = repo.git.blobs(repo.commit_of(revision))
        return {path: repo.read(blob) for path, blob in blobs.items()}

    def set_private(self, repo_id: str, kind: str = "model", *, private: bool = True) -> None:
        self.repository(repo_id, kind).private = private

    def set_gated(self, repo_id: str, kind: str = "model", *, gated: str | bool = "manual") -> None:
        self.repository(repo_id, kind).gated = gated

    def grant(self, repo_id: str, kind: str, user: str) -> None:
        """Let a user read the files of a gated repository."""
        self.repository(repo_id, kind).granted.add(user)

    def corrupt(self, repo_id: str, kind: str, path: str, revision: str = "main") -> None:
        """Change a byte of a stored LFS object; a file that git holds cannot be corrupted without git noticing."""
        repo = self.repository(repo_id, kind)
        blob = repo.git.blobs(repo.commit_of(revision))[path]
        if blob.pointer is None:
            raise ValueError(f"{path} is not in LFS storage")
        repo.lfs.corrupt(blob.pointer.sha256)

    # Disturbances: `method` and `path` are regular expressions, the latter for any part of the address without query.

    def before(self, method: str, path: str, action: Action, *, times: int | None = 1) -> None:
        """Call `action(request)` when a request has arrived; it may wait, or raise Cut or Refusal to answer so."""
        self._faults.add("before", method, path, action, times)

    def after(self, method: str, path: str, action: Action, *, times: int | None = 1) -> None:
        """Call `action(request)` when the work is done and nothing was answered yet."""
        self._faults.add("after", method, path, action, times)

    def delay(self, method: str, path: str, seconds: float, *, times: int | None = None) -> None:
        self.before(method, path, lambda _request: time.sleep(seconds), times=times)

    def cut(self, method: str, path: str, *, after: int | None = None, times: int | None = 1) -> None:
        """Close the connection instead of working, or after so many bytes of the answer's body."""
        self.before(method, path, _raiser(lambda: Cut(after)), times=times)

    def refuse(self, method: str, path: str, status: int, message: str, *, times: int | None = None) -> None:
        self.before(method, path, _raiser(lambda: Refusal(status, message)), times=times)

    def undisturbed(self) -> None:
        """Forget all rules."""
        self._faults.clear()


def _raiser(make: Callable[[], Exception]) -> Action:
    def action(_request: Request) -> None:
        raise make()

    return action
