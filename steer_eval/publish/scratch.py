"""Folders for what is staged and downloaded while a publication runs.

Invariant: a folder is there only while the process that made it holds its lock, or after that process was killed; the
next publication of anybody with the same rights takes away what killed ones left.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

_PREFIX = "steer-eval-publish-"
_LOCK = ".lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder in the place for temporary files, gone afterwards.

    Yields:
        The folder.
    """
    place = Path(tempfile.gettempdir())
    _clear(place)
    folder = place / f"{_PREFIX}{uuid4().hex}"
    with FileLock(f"{folder}{_LOCK}"):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(f"{folder}{_LOCK}").unlink(missing_ok=True)


def _clear(place: Path) -> None:
    """Take away the folders that nobody holds; those of other users stay, and so does what is no folder of ours."""
    for lock in place.glob(f"{_PREFIX}*{_LOCK}"):
        folder = lock.with_suffix("")
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):
            # A lock without a folder is of a process that is about to make it, or has just gone.
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
