"""Steering vectors as the study's own script saves them.

Invariant: a file is a dict with one finite vector and what it was made from (`schemas/caa_pt.schema.json`); it is read
into the same value as a vector in safetensors, with the values unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.formats.finite import check_finite
from steer_eval.formats.schema import check
from steer_eval.formats.torch_file import read_torch
from steer_eval.formats.vector import SteeringVector

if TYPE_CHECKING:
    from torch import Tensor

KEYS = frozenset({"vector", "layer"})
"""Keys that tell this kind of file from others."""


def read_caa_pt(path: Path, *, name: str | None = None) -> SteeringVector:
    """Read a CAA vector in a PyTorch file.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Returns:
        The vector as float32 (from float16 or bfloat16 exactly); its provenance has `model`, `norm`, `layer`, `n_pairs`
        and `dtype` as strings.

    Raises:
        FormatError: The file is absent, refused, or breaks the schema.
    """
    name = name or str(path)
    file = read_torch(path, name=name)
    check(file.header, "caa_pt", file=name)
    values = exact_floats(file.content["vector"])
    check_finite(values, name=name, where="vector")
    recorded = {key: file.header[key] for key in ("model", "norm", "layer", "n_pairs") if key in file.header}
    provenance: dict[str, str] = {"method": "caa", "dtype": file.header["vector"]["dtype"]}
    provenance.update((key, value if isinstance(value, str) else repr(value)) for key, value in recorded.items())
    return SteeringVector(values, file.header["layer"], provenance)


def exact_floats(values: Tensor | NDArray[Any]) -> NDArray[np.float32]:
    """Values of float32, float16 or bfloat16 as float32 numpy, exactly."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float32, copy=False)
    result: NDArray[np.float32] = values.detach().float().numpy()
    return result
