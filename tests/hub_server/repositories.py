"""A repository of the Hub: git, LFS objects, visibility and pull requests.

Invariant: a branch moves from the commit that the author of the change saw, or not at all; changes of one repository
are made one at a time.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .accounts import Access, Accounts
from .git import ZERO, BareRepository, Blob, GitError, Pointer, StaleRefError
from .lfs import LfsStore
from .web import KINDS, Refusal, Request

MAIN = "refs/heads/main"
LFS_SIZE = 10 * 2**20
"""A larger file goes to LFS whatever it is called."""

LFS_PATTERNS = (
    *("7z", "arrow", "bin", "bz2", "ckpt", "ftz", "gz", "h5", "joblib", "mlmodel", "model", "msgpack", "npy", "npz"),
    *("onnx", "ot", "parquet", "pb", "pickle", "pkl", "pt", "pth", "rar", "safetensors", "tar", "tflite", "tgz"),
    *("wasm", "xz", "zip", "zst"),
)
ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_PATTERNS)
"""`.gitattributes` of a new repository."""

STALE = "The branch was updated since you opened this page. Please refresh and try again."


def now() -> str:
    """The time in the only form that the client reads."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(seconds: str) -> str:
    """A time of git in that form."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Discussion:
    """A discussion, or a pull request, whose commits are on `refs/pr/N`."""

    num: int
    title: str
    author: str
    is_pull_request: bool
    status: str
    created_at: str = field(default_factory=now)
    events: list[dict[str, Any]] = field(default_factory=list)
    merge_commit: str | None = None

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass(frozen=True)
class Change:
    """One operation of a commit: the content of a file, a pointer to an LFS object, or a deletion."""

    path: str
    content: bytes | None = None
    pointer: Pointer | None = None
    folder: bool = False


class Repository:
    """One repository and its lock."""

    def __init__(self, kind: str, repo_id: str, path: Path, private: bool = False) -> None:
        self.kind, self.id, self.private = kind, repo_id, private
        self.gated: str | bool = False
        self.granted: set[str] = set()
        self.discussions: dict[int, Discussion] = {}
        self.created_at = now()
        self.lock = threading.RLock()
        self.git = BareRepository.create(path)
        self.lfs = LfsStore(path)

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    @property
    def prefix(self) -> str:
        """Where its files and pages are below the server's address."""
        return self.id if self.kind == "model" else f"{KINDS[self.kind]}/{self.id}"

    def commit_of(self, revision: str) -> str:
        commit = self.git.commit_of(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def branch_ref(self, revision: str) -> str:
        """The ref that a commit to a revision moves: a branch or a pull request."""
        ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        if not ref.startswith(("refs/heads/", "refs/pr/")) or ref not in self.git.refs():
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return ref

    def read(self, blob: Blob) -> bytes:
        """The content of a file as its readers get it."""
        return self.lfs.read(blob.pointer.sha256) if blob.pointer else self.git.content(blob.oid)

    def upload_modes(self, revision: str | None, files: Iterable[tuple[str, int, bytes]]) -> dict[str, str]:
        """`lfs` or `regular` for each `(path, size, first bytes)`."""
        files = list(files)
        commit = None if revision is None else self.git.commit_of(revision)
        attributed = self.git.lfs_paths(commit, [path for path, _, _ in files])
        return {
            path: "lfs" if path in attributed or size > LFS_SIZE or b"\0" in sample else "regular"
            for path, size, sample in files
        }

    def commit(self, ref: str, parent: str, changes: Sequence[Change], message: str, author: str) -> str:
        """One commit on top of `parent`, which the ref must still name."""
        blobs = {path: blob.oid for path, blob in self.git.blobs(parent).items()}
        changes = [*changes, *self._attributes(parent, changes)]
        stored = iter(self.git.store(_blob_content(change) for change in changes if not _deletes(change)))
        for change in changes:
            if _deletes(change):
                for path in _deleted(change, blobs):
                    del blobs[path]
            else:
                blobs[change.path] = next(stored)
        _check_paths(blobs)
        try:
            tree = self.git.write_tree(blobs)
        except GitError as error:
            raise Refusal(400, f"git refuses a path: {error}") from error
        commit = self.git.write_commit(tree, [parent], message, author)
        try:
            self.git.move(ref, commit, parent)
        except StaleRefError as error:
            raise Refusal(412, STALE) from error
        return commit

    def _attributes(self, parent: str, changes: Sequence[Change]) -> list[Change]:
        """A line of `.gitattributes` for each LFS file that no line matches, so that git-lfs finds it too."""
        paths = [change.path for change in changes if change.pointer is not None]
        if any(change.path == ".gitattributes" for change in changes):
            return []
        missing = sorted(set(paths) - self.git.lfs_paths(parent, paths))
        if not missing:
            return []
        blob = self.git.blobs(parent).get(".gitattributes")
        text = self.git.content(blob.oid).decode() if blob else ""
        lines = [f"{path.replace(' ', '[[:space:]]')} filter=lfs diff=lfs merge=lfs -text\n" for path in missing]
        return [Change(".gitattributes", content=(text + "".join(lines)).encode())]

    def initialise(self, author: str) -> None:
        """The first commit, as the Hub makes it."""
        (oid,) = self.git.store([ATTRIBUTES.encode()])
        tree = self.git.write_tree({".gitattributes": oid})
        self.git.move(MAIN, self.git.write_commit(tree, [], "initial commit", author), ZERO)

    def discussion(self, num: int) -> Discussion:
        if num not in self.discussions:
            raise Refusal(404, f"Discussion {num} not found")
        return self.discussions[num]

    def open_discussion(self, title: str, author: str, *, pull_request: bool, status: str = "open") -> Discussion:
        with self.lock:
            discussion = Discussion(len(self.discussions) + 1, title, author, pull_request, status)
            self.discussions[discussion.num] = discussion
            return discussion


def _deletes(change: Change) -> bool:
    return change.content is None and change.pointer is None


def _blob_content(change: Change) -> bytes:
    if change.pointer is not None:
        return change.pointer.text()
    assert change.content is not None
    return change.content


def _deleted(change: Change, blobs: Mapping[str, str]) -> list[str]:
    path = change.path.rstrip("/")
    found = [name for name in blobs if name.startswith(f"{path}/")] if change.folder else [path] * (path in blobs)
    if not found:
        raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
    return found


def _check_paths(blobs: Mapping[str, str]) -> None:
    """A name cannot be both a file and a folder."""
    for path in blobs:
        parts = path.split("/")
        for length in range(1, len(parts)):
            if "/".join(parts[:length]) in blobs:
                raise Refusal(400, f"{'/'.join(parts[:length])} is a file, so {path} cannot be in it")


class Repositories:
    """All repositories of a server, below one folder."""

    def __init__(self, root: Path, accounts: Accounts) -> None:
        self.root, self.accounts = root, accounts
        self._all: dict[tuple[str, str], Repository] = {}
        self.lock = threading.RLock()

    def __iter__(self) -> Iterator[Repository]:
        return iter(sorted(self._all.values(), key=lambda repo: (repo.kind, repo.id)))

    def get(self, kind: str, repo_id: str) -> Repository | None:
        return self._all.get((kind, repo_id))

    def create(self, kind: str, repo_id: str, author: str, *, private: bool = False) -> Repository:
        with self.lock:
            repo = Repository(kind, repo_id, self.root / KINDS[kind] / f"{repo_id}.git", private)
            repo.initialise(author)
            self._all[kind, repo_id] = repo
            return repo

    def delete(self, repo: Repository) -> None:
        with self.lock, repo.lock:
            del self._all[repo.kind, repo.id]
            shutil.rmtree(repo.git.path)

    def move(self, repo: Repository, repo_id: str) -> None:
        with self.lock, repo.lock:
            target = self.root / KINDS[repo.kind] / f"{repo_id}.git"
            target.parent.mkdir(parents=True, exist_ok=True)
            repo.git.path.rename(target)
            del self._all[repo.kind, repo.id]
            repo.id, repo.git, repo.lfs = repo_id, BareRepository(target), LfsStore(target)
            self._all[repo.kind, repo_id] = repo

    def sees(self, caller: Access | None, repo: Repository) -> bool:
        if caller is not None and caller.resource is not None and caller.resource != repo.prefix and repo.private:
            return False
        return not repo.private or (caller is not None and caller.owns(repo.namespace))

    def readable(self, request: Request, kind: str, repo_id: str) -> Repository:
        """A repository that the caller may see: its name, its tree, not yet its files."""
        caller = self.accounts.caller(request)
        repo = self.get(kind, repo_id)
        if repo is None or not self.sees(caller, repo):
            if caller is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return repo

    def with_files(self, request: Request, kind: str, repo_id: str) -> Repository:
        """A repository whose files the caller may read."""
        repo = self.readable(request, kind, repo_id)
        caller = self.accounts.caller(request)
        if repo.gated and not (caller and (caller.owns(repo.namespace) or caller.user in repo.granted)):
            where = f"Access to {repo.kind} {repo.id} is restricted"
            if caller is None:
                message = f"{where}. You must have access to it and be authenticated to access it. Please log in."
                raise Refusal(401, message, "GatedRepo")
            raise Refusal(403, f"{where} and you are not in the authorized list.", "GatedRepo")
        return repo

    def writable(self, request: Request, kind: str, repo_id: str) -> tuple[Repository, str]:
        """A repository that the caller may write to, and who that is."""
        repo = self.readable(request, kind, repo_id)
        if self.accounts.caller(request) is None:
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        caller = self.accounts.writer(request, repo.namespace)
        if caller.resource not in (None, repo.prefix):
            raise Refusal(403, f"This token is for {caller.resource} only")
        return repo, caller.user

    def proposable(self, request: Request, kind: str, repo_id: str) -> tuple[Repository, str]:
        """A repository that the caller may open a pull request in: anyone who reads it, with a token that writes."""
        repo = self.with_files(request, kind, repo_id)
        caller = self.accounts.member(request)
        if caller.role != "write":
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
        if caller.resource not in (None, repo.prefix):
            raise Refusal(403, f"This token is for {caller.resource} only")
        return repo, caller.user
