"""Files of a repo that were left where they are, because what is asked of them needs only their beginning.

Invariant: a file that was left is never read as if it were here: its size and checksum are known, and its first bytes
can be had; what rests on the rest of it is said to be unread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class LeftFile:
    """A file that was left.

    Args:
        path: Its path inside the repo.
        size: Bytes.
        sha256: Of its content, where the place that it was left at says.
        head: Gives its first so many bytes, or all if it has fewer.
    """

    path: str
    size: int
    sha256: str | None
    head: Callable[[int], bytes]
