"""PyTorch files as bytes.

Invariant: equal contents are equal bytes, and what is written loads with `torch.load(weights_only=True)`: dicts of
plain values and of tensors that own exactly their data.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_bytes(content: dict[Any, Any]) -> bytes:
    """Encode a PyTorch file; float32 numpy arrays, at any depth of the dicts, become tensors."""
    import torch

    buffer = io.BytesIO()
    torch.save(_with_tensors(content), buffer)
    return buffer.getvalue()


def _with_tensors(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        return {key: _with_tensors(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        values: NDArray[np.float32] = np.array(value, dtype=np.float32)
        return torch.from_numpy(values)
    return value
