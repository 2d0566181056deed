"""Tensors that a capture or a training left in the cache.

Invariant: what a damaged file of the cache ends in is one message, which names the file and says to delete it. The run
that comes next makes it again.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from steer_eval.errors import FormatError, first_line

DELETE = "delete it and run again"


def load_cached(path: Path, names: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a file of the cache, mapped to it.

    Args:
        path: The file.
        names: Tensors that it must have; it may have more.

    Raises:
        FormatError: The file is absent, damaged or without one of these.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise FormatError(str(path), "", f"the file is damaged: {first_line(error)}", fix=DELETE) from error
    for name in names:
        if name not in tensors:
            raise FormatError(str(path), name, "the tensor is absent", fix=DELETE)
    return tensors
