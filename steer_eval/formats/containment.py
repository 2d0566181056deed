"""Paths that stay inside a repo.

Invariant: a path that this module gives back lies, with every symbolic link in it followed, inside the repo, or, for a
snapshot in the Hub's cache, among the blobs that the cache links its snapshots to. Every reader of a repo's files gets
its paths here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from steer_eval.errors import FormatError

REASON = "the path leaves the repo through a symbolic link"
FIX = "put a copy of the file in place of the link"
_BY_ITSELF = "the path leaves the repo by itself", "put the file into the repo, and name it by its path from the root"
_CACHED_REPO = re.compile(r"(models|datasets|spaces)--.+")


def is_inside(root: Path, path: str) -> bool:
    """Whether a path of a repo stays inside it when all links are followed; what it names need not exist.

    Args:
        root: Folder of the repo; it may itself be reached through a link.
        path: Path inside the repo.
    """
    # No file has a name with a zero byte, and asking about one is an error instead of a no.
    if "\0" in path:
        return False
    # Unlike pathlib, realpath has no trouble with links that go round in circles.
    real = Path(os.path.realpath(root / path))
    return any(real.is_relative_to(base) for base in _bases(root))


def inside(root: Path, path: str, *, name: str | None = None) -> Path:
    """The place of a repo's file on disk.

    Args:
        root: Folder of the repo.
        path: Path inside the repo.
        name: What to call the file in the message; the path by default.

    Raises:
        FormatError: The path leaves the repo.
    """
    if not is_inside(root, path):
        reason, fix = (REASON, FIX) if _stays(path) else _BY_ITSELF
        raise FormatError(name or path, "", reason, fix=fix)
    return root / path


def _stays(path: str) -> bool:
    """Whether a path would stay inside the repo if nothing in it were a link."""
    parts = Path(os.path.normpath(path)).parts
    return not Path(path).is_absolute() and parts[:1] != (os.pardir,)


def links_out(root: Path) -> Iterator[str]:
    """Paths of a repo's links that leave it, relative and sorted; what lies behind them is not listed."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        if path.is_symlink() and not is_inside(root, relative):
            yield relative


def _bases(root: Path) -> Iterator[Path]:
    real = Path(os.path.realpath(root))
    yield real
    # <cache>/models--x/snapshots/<commit>: files are links to the repo's blobs, and these may be links to the cache's.
    for folder in (real, *real.parents):
        if folder.parent.name == "snapshots" and _CACHED_REPO.fullmatch(folder.parents[1].name):
            yield folder.parents[1] / "blobs"
            yield folder.parents[2] / "blobs"
            return
