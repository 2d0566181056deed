"""Where a finding stands, in the terms of a checkout that other programs show it in.

Invariant: a file inside the checkout is named relative to its root, with forward slashes and no detours; any other file
by its absolute path. A line is given only where the finding names one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_LINE = re.compile(r"line (\d+)\b")


def line_number(where: str) -> int | None:
    """The line that a finding's `where` begins with, counted from 1; None if it names another kind of place."""
    match = _LINE.match(where)
    return int(match[1]) if match and int(match[1]) > 0 else None


def checkout_root(folder: Path, workspace: str | None) -> Path:
    """Root of the checkout that a folder belongs to.

    Args:
        folder: An absolute folder.
        workspace: Where a CI runner says that it checked out, if it says so.

    Returns:
        The workspace if the folder is in it, else the nearest folder upwards with a `.git`, else the folder itself.
    """
    if workspace:
        root = Path(os.path.abspath(workspace))  # noqa: PTH100 - resolving links would leave the checkout
        if folder.is_relative_to(root):
            return root
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)


def path_in_checkout(file: str, folder: Path, root: Path) -> str:
    """A finding's file as the checkout names it.

    Args:
        file: The file as a finding names it, relative to the folder or absolute.
        folder: The working folder, absolute.
        root: Root of the checkout, absolute.
    """
    path = os.path.normpath(folder / file)
    return os.path.relpath(path, root).replace(os.sep, "/") if Path(path).is_relative_to(root) else path
