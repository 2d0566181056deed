"""Text files, bounded in size.

Invariant: what is read is UTF-8 and no larger than its limit; whatever else a file turns out to be is a `FormatError`.
"""

from __future__ import annotations

from pathlib import Path

from steer_eval.errors import FormatError


def read_text(path: Path, name: str, *, limit: int) -> str:
    """Read a text file, with line ends as they are.

    Args:
        path: The file.
        name: What to call it in messages.
        limit: The largest size that is read, in bytes.

    Raises:
        FormatError: The file is absent, larger, can't be read or is not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > limit:
            raise FormatError(name, "", f"the file has {size} bytes, more than the {limit} that are read")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise FormatError(name, "", "the file is absent") from None
    except OSError as error:
        raise FormatError(name, "", f"the file can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FormatError(name, f"byte {error.start}", "the file is not UTF-8 text", fix="save it as UTF-8") from None
