"""Tensors of a safetensors file as numpy arrays, without PyTorch.

Invariant: the file's header has been checked before (`safetensors_file.py`). Values stay in the file, mapped; what is
taken of them is float32, which holds every stored value exactly. Looking at files must not take as long as importing
what computes with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = 8
"""Bytes that say how long the header is; values begin after it."""
_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, eq=False)
class MappedTensors:
    """The float tensors of a file.

    Args:
        path: The file.
        header: Its header, checked: `dtype`, `shape` and `data_offsets` of each tensor.
    """

    path: Path
    header: Mapping[str, Any]

    def values(self, key: str, rows: Any = slice(None)) -> NDArray[np.float32]:
        """Values of a tensor, or those that an index picks, as float32.

        Args:
            key: Name of the tensor.
            rows: A numpy index.

        Raises:
            OSError: The file can't be read.
            ValueError: The file is shorter than its header says.
        """
        described = self.header[key]
        with self.path.open("rb") as file:
            start = _LENGTH + int.from_bytes(file.read(_LENGTH), "little") + described["data_offsets"][0]
        stored = np.memmap(
            self.path, dtype=_STORED[described["dtype"]], mode="r", offset=start, shape=tuple(described["shape"])
        )[rows]
        if described["dtype"] == "BF16":
            # The upper half of a float32.
            widened: NDArray[np.float32] = (stored.astype(np.uint32) << 16).view(np.float32)
            return widened
        return np.asarray(stored, dtype=np.float32)
