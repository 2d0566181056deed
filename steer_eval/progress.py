"""Progress of long work, on standard error.

Invariant: progress never touches standard output, which belongs to the data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Moves a progress bar."""

    def __call__(self, units: int, note: str = "") -> None:
        """Show more units of work as done.

        Args:
            units: How many were just finished.
            note: How the work stands, shown beside the bar until another note comes.
        """
        ...


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show how far a piece of work is, and the time left.

    Args:
        title: What is done.
        total: Units of work.
        done: Units that were done before.

    Yields:
        A function to call with the number of units just finished.
    """
    from tqdm import tqdm

    # A terminal wants to move; a log file wants a line now and then.
    interval = 0.2 if sys.stderr.isatty() else 20.0
    with tqdm(total=total, initial=done, desc=title, file=sys.stderr, mininterval=interval, dynamic_ncols=True) as bar:

        def advance(units: int, note: str = "") -> None:
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(units)

        yield advance


def note(text: str) -> None:
    """Say something beside the progress bars, on a line of its own."""
    from tqdm import tqdm

    tqdm.write(f"note: {text}", file=sys.stderr)
