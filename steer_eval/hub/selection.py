"""Which files of a repo are fetched.

Invariant: a selection goes by paths and sizes alone, so that nothing has to be fetched to know what to fetch. A file
that is left out is one whose beginning says all that is asked of it, or one that no reader reads.
"""

from __future__ import annotations

from collections.abc import Callable

from steer_eval.formats.kinds import kind_of

Selection = Callable[[str, int], bool]
"""Whether a file with a path and a size in bytes is fetched."""

SMALL_BYTES = 2**20
"""Files up to this size are fetched whatever they are: asking for a part of them costs as much."""
# The header of a safetensors file describes it; the last two have no reader. What a .pt file holds stands at its end.
_LEFT = frozenset({"sae", "transfer", "figure", "other"})
_OF_VECTORS = frozenset({"study", "config", "vector", "control_vector"})


def everything(_path: str, _size: int) -> bool:
    """All files."""
    return True


def without_weights(path: str, size: int) -> bool:
    """All but large SAEs and transfer maps in safetensors, and large files of no kind that is read."""
    return size <= SMALL_BYTES or kind_of(path) not in _LEFT


def vectors(path: str, _size: int) -> bool:
    """The study, the settings, and all that can be a steering vector, also in a repo without folders."""
    kind = kind_of(path)
    flat = "/" not in path and path.endswith(".safetensors")
    return kind in _OF_VECTORS or (kind == "torch" and path.removeprefix("vectors/").count("/") == 0) or flat


def below(place: str) -> Selection:
    """One file, or all files of one folder.

    Args:
        place: Its path inside the repo; empty for the whole repo.
    """
    return lambda path, _size: not place or path == place or path.startswith(f"{place}/")
