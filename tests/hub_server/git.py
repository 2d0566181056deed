"""A bare git repository, by the `git` binary.

Invariant: what is stored is what git itself would store; a ref only moves by the compare-and-swap of `update-ref`.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ZERO = "0" * 40
FILE_MODE = "100644"
LFS_POINTER = re.compile(
    rb"\Aversion https://git-lfs\.github\.com/spec/v1\noid sha256:(?P<sha256>[0-9a-f]{64})\nsize (?P<size>\d+)\n\Z"
)


class GitError(Exception):
    """Git refused something; the message is git's."""


class StaleRefError(GitError):
    """The ref is not where the caller saw it."""


@dataclass(frozen=True)
class Pointer:
    """What git holds of a file that is in LFS storage."""

    sha256: str
    size: int

    def text(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()


@dataclass(frozen=True)
class Blob:
    """A file of a commit; `size` is the size of git's blob, so of the pointer for a file in LFS storage."""

    path: str
    oid: str
    size: int
    pointer: Pointer | None


@dataclass(frozen=True)
class Commit:
    """One line of the history."""

    oid: str
    parents: tuple[str, ...]
    author: str
    date: str
    title: str
    message: str


class BareRepository:
    """A repository at a path; `create` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Objects never change, so what was read of one is true for ever.
        self.blobs = lru_cache(maxsize=256)(self._blobs)
        self.pointer = lru_cache(maxsize=None)(self._pointer)

    @classmethod
    def create(cls, path: Path) -> BareRepository:
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["git", "init", "--quiet", "--bare", "--initial-branch=main", path],
            check=True,
            env=environment(),
            capture_output=True,
        )
        return cls(path)

    def run(self, *arguments: str, stdin: bytes = b"", index: Path | None = None, **names: str) -> bytes:
        """The standard output of a git command; GitError with its standard error if it fails."""
        env = environment(**names)
        if index is not None:
            env["GIT_INDEX_FILE"] = str(index)
        process = subprocess.run(["git", "-C", self.path, *arguments], input=stdin, capture_output=True, env=env)
        if process.returncode:
            raise GitError(process.stderr.decode(errors="replace").strip() or f"git {arguments[0]} failed")
        return process.stdout

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch, a tag, a full ref or a commit's hash names."""
        if (
            not revision
            or revision.startswith("-")
            or any(bad in revision for bad in ("..", "^", "~", ":", "@{", "\0"))
        ):
            return None
        names = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        if revision.startswith("refs/"):
            names.insert(0, revision)
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            names.append(revision)
        for name in names:
            try:
                return (
                    self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
                    .decode()
                    .strip()
                )
            except GitError:
                continue
        return None

    def refs(self) -> dict[str, str]:
        """Every ref and the commit that it names."""
        lines = self.run("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)").decode().splitlines()
        refs = {}
        for line in lines:
            name, target, *peeled = line.split()
            refs[name] = peeled[0] if peeled else target
        return refs

    def move(self, ref: str, new: str, old: str) -> None:
        """Set a ref from `old` (ZERO: it must not exist) to `new` (ZERO: delete it), or StaleRefError."""
        command = ["update-ref", ref, new, old] if new != ZERO else ["update-ref", "-d", ref, old]
        try:
            self.run(*command)
        except GitError as error:
            raise StaleRefError(str(error)) from error

    def _blobs(self, commit: str) -> dict[str, Blob]:
        blobs = {}
        for line in self.run("ls-tree", "-r", "-l", "-z", commit).decode().split("\0"):
            if line:
                fields, _, path = line.partition("\t")
                _mode, _type, oid, size = fields.split()
                pointer = self.pointer(oid) if 120 <= int(size) <= 200 else None
                blobs[path] = Blob(path, oid, int(size), pointer)
        return blobs

    def trees(self, commit: str) -> dict[str, str]:
        """The folders of a commit, each with its tree's hash."""
        lines = self.run("ls-tree", "-r", "-d", "-z", commit).decode().split("\0")
        return {line.partition("\t")[2]: line.split()[2] for line in lines if line}

    def content(self, oid: str) -> bytes:
        return self.run("cat-file", "blob", oid)

    def _pointer(self, oid: str) -> Pointer | None:
        found = LFS_POINTER.match(self.content(oid))
        return Pointer(found["sha256"].decode(), int(found["size"])) if found else None

    def store(self, contents: Iterable[bytes]) -> list[str]:
        """Write blobs, in one process, and give their hashes."""
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, content in enumerate(contents):
                paths.append(Path(folder) / str(number))
                paths[-1].write_bytes(content)
            if not paths:
                return []
            listing = "".join(f"{path}\n" for path in paths).encode()
            return self.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listing).decode().split()

    def write_tree(self, blobs: Mapping[str, str]) -> str:
        """The tree of `path -> blob hash`; GitError for a path that git refuses."""
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            listing = "".join(f"{FILE_MODE} {oid}\t{path}\0" for path, oid in sorted(blobs.items()))
            self.run("update-index", "-z", "--index-info", stdin=listing.encode(), index=index)
            return self.run("write-tree", index=index).decode().strip()

    def write_commit(self, tree: str, parents: Iterable[str], message: str, author: str) -> str:
        """A commit object that no ref names yet."""
        names = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in (("NAME", author), ("EMAIL", f"{author}@hub.invalid"))
        }
        options = [option for parent in parents for option in ("-p", parent)]
        return self.run("commit-tree", tree, *options, stdin=message.encode(), **names).decode().strip()

    def lfs_paths(self, commit: str | None, paths: Iterable[str]) -> set[str]:
        """Those paths that `.gitattributes` of the commit give to LFS."""
        listing = "".join(f"{path}\0" for path in paths).encode()
        if commit is None or not listing:
            return set()
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            self.run("read-tree", commit, index=index)
            answer = self.run("check-attr", "--cached", "-z", "--stdin", "filter", stdin=listing, index=index)
        fields = answer.decode().split("\0")[:-1]
        return {path for path, value in zip(fields[0::3], fields[2::3], strict=True) if value == "lfs"}

    def history(self, commit: str, *paths: str, limit: int | None = None) -> list[Commit]:
        """The commits of a commit's history, newest first; only those that touched the paths, if there are any."""
        options = [] if limit is None else [f"--max-count={limit}"]
        form = "--format=%H%x00%P%x00%an%x00%ct%x00%s%x00%b%x01"
        text = self.run("log", "--topo-order", form, *options, commit, "--", *paths).decode()
        commits = []
        for record in text.split("\x01")[:-1]:
            oid, parents, author, date, title, body = record.lstrip("\n").split("\0")
            commits.append(Commit(oid, tuple(parents.split()), author, date, title, body.strip()))
        return commits

    def merged_tree(self, ours: str, theirs: str) -> tuple[str | None, list[str]]:
        """The tree of a three-way merge; None, and the paths in conflict, if there is none."""
        command = ["git", "-C", str(self.path), "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages"]
        process = subprocess.run([*command, ours, theirs], capture_output=True, env=environment())
        tree, *conflicts = [field for field in process.stdout.decode().split("\0") if field]
        if process.returncode not in (0, 1):
            raise GitError(process.stderr.decode(errors="replace"))
        return (tree, []) if process.returncode == 0 else (None, sorted(set(conflicts)))


def environment(**names: str) -> dict[str, str]:
    """Git as it is without the configuration of the machine or its user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8", **names}
