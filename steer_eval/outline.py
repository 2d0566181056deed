"""What the beginning of a file says of it.

Invariant: what is said here is checked as far as the beginning goes, by the same readers as of whole files, and never
stands for more: an outline has no values, so that nothing can be computed from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.formats import schema
from steer_eval.formats.safetensors_file import header_from
from steer_eval.left_file import LeftFile

_VALUES = "only its header was read: whether its values are finite, and fit those of other files, is open"


@dataclass(frozen=True)
class Outline:
    """What is known of a file that was left.

    Args:
        kind: What it is.
        value: What its beginning says, in a type without values; None where nothing can be said.
        unread: What was not checked, as a sentence.
    """

    kind: str
    value: Any
    unread: str


def outline(file: LeftFile, kind: str, folder: Path, *, name: str) -> Outline:
    """Read the beginning of a file.

    Args:
        file: The file.
        kind: What its path says that it is.
        folder: The repo's folder, with the files that were fetched.
        name: What to call the file in messages.

    Raises:
        FormatError: The beginning is not that of such a file.
    """
    match kind:
        case "sae":
            from steer_eval.formats.saelens import outline_saelens

            header = header_from(file.head, file.size, name=name)
            place = (folder / file.path).parent
            value = outline_saelens(place, header, name=name.rsplit("/", 1)[0])
            return Outline(kind, value, _VALUES)
        case "transfer":
            return _transfer(file, name)
    return Outline(kind, None, "none of its content was read")


def _transfer(file: LeftFile, name: str) -> Outline:
    from steer_eval.formats.transfer import outline_map
    from steer_eval.inventory import transfer_kind

    header = header_from(file.head, file.size, name=name)
    kind = transfer_kind(header, name)
    if kind == "transfer_map":
        return Outline(kind, outline_map(header, name=name), _VALUES)
    schema.check(header, kind, file=name, where="header")
    return Outline(kind, None, _VALUES)
