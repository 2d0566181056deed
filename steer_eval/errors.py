"""Errors that a user can act on.

Invariant: whatever goes wrong because of the input or the machine is raised as a `SteerEvalError` that says what is
wrong and what to do; any other exception that reaches the command line is a bug of ours.
"""

from __future__ import annotations


class SteerEvalError(Exception):
    """Something the user can mend; the command line prints it and exits with code 2.

    Args:
        message: What is wrong, naming the file and the field.
        fix: What to do about it, as an instruction or a command.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


def first_line(error: BaseException) -> str:
    """The first line of what another library says, for a message of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class FormatError(SteerEvalError):
    """A file that is not what its kind requires.

    Args:
        file: Path of the file, relative to its repository where it has one.
        where: Line, key or JSON pointer inside the file.
        message: What is wrong there.
        expected: What the format asks for.
        observed: What the file has.
        fix: How to mend the file.
    """

    def __init__(
        self, file: str, where: str, message: str, *, expected: object = None, observed: object = None, fix: str = ""
    ) -> None:
        super().__init__(f"{file}: {where}: {message}" if where else f"{file}: {message}", fix)
        self.file = file
        self.where = where
        self.reason = message
        self.expected = expected
        self.observed = observed


class NotFiniteError(FormatError):
    """A number of a file that is NaN or infinite."""
