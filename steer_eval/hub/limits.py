"""How much is fetched of a repo before somebody has to say that it is meant.

Invariant: a repo beyond the limits is refused before anything of it is on this disk.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from steer_eval.errors import SteerEvalError

MAX_FILES = 10_000
MAX_GIGABYTES = 8.0


@dataclass(frozen=True)
class Limits:
    """Limits on one repo.

    Args:
        files: Files that it may have.
        gigabytes: What of it may be fetched, in 10^9 bytes.
    """

    files: int = MAX_FILES
    gigabytes: float = MAX_GIGABYTES

    def check_files(self, what: str, count: int) -> None:
        """Refuse a repo with too many files.

        Raises:
            SteerEvalError: There are more than the limit.
        """
        if count > self.files:
            message = f"{what} has more than {self.files} files"
            raise SteerEvalError(message, f"if it is meant, give `steer-eval --max-files {10 * self.files} ...`")

    def check_bytes(self, what: str, count: int) -> None:
        """Refuse to fetch too much.

        Raises:
            SteerEvalError: There is more to fetch than the limit.
        """
        if count > self.gigabytes * 1e9:
            message = f"{what}: {count / 1e9:.1f} GB would have to be fetched, more than {self.gigabytes:g} GB"
            fix = f"if it is meant, give `steer-eval --max-download {count / 1e9 + 0.1:.1f} ...`"
            raise SteerEvalError(message, fix)


limits: ContextVar[Limits] = ContextVar("limits", default=Limits())  # noqa: B039 - it is frozen
"""The limits that hold; the command line sets those that its user gives."""
