"""Steering vectors in safetensors.

Invariant: a vector file holds one finite float32 tensor `vector` of shape `[hidden_size]`, and its provenance as string
metadata (`schemas/vector.schema.json`). Equal vectors are equal files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import FormatError
from steer_eval.formats.atomic import write_bytes
from steer_eval.formats.finite import check_finite
from steer_eval.formats.safetensors_file import read_header, write_header
from steer_eval.formats.schema import check

MAX_FILE_BYTES = 64 * 2**20
_NAME = re.compile(r"(?P<model>[a-z0-9][a-z0-9_]*)_L(?P<layer>[0-9]+)_caa\.safetensors")


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """One steering vector and where it comes from.

    Args:
        values: float32 `[hidden_size]`.
        layer: Index of the decoder block whose output it is added to, from 0.
        provenance: Method, model, checksums and versions, as strings.
    """

    values: NDArray[np.float32]
    layer: int
    provenance: dict[str, str]

    @property
    def norm(self) -> float:
        """Euclidean norm, accumulated in float64."""
        return float(np.linalg.norm(self.values.astype(np.float64)))


def cosine(first: SteeringVector, second: SteeringVector) -> float:
    """Cosine of the angle between two vectors, accumulated in float64."""
    a, b = first.values.astype(np.float64), second.values.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def file_name(model: str, layer: int) -> str:
    """Path of a vector inside a model repo."""
    return f"vectors/{model}_L{layer}_caa.safetensors"


def parse_file_name(path: str) -> tuple[str, int] | None:
    """Model and layer that a vector's path names, or None if it is no such path."""
    match = _NAME.fullmatch(path.rsplit("/", 1)[-1])
    return (match["model"], int(match["layer"])) if match else None


def read_vector(path: Path, *, name: str | None = None) -> SteeringVector:
    """Read a vector file.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent or is not what this module promises.
    """
    name = name or str(path)
    header = read_header(path, name=name, limit=MAX_FILE_BYTES)
    check(header, "vector", file=name, where="header")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        values: NDArray[np.float32] = load_file(path)["vector"]
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(name, "vector", f"not safetensors: {error}") from None
    check_finite(values, name=name, where="vector")
    provenance = {str(key): str(value) for key, value in header["__metadata__"].items()}
    return SteeringVector(values, int(provenance["layer"]), provenance)


def write_vector(path: Path, vector: SteeringVector) -> None:
    """Write a vector file, atomically.

    Raises:
        FormatError: The provenance is incomplete.
    """
    size = vector.values.size
    tensor = {"dtype": "F32", "shape": list(vector.values.shape), "data_offsets": [0, 4 * size]}
    check({"__metadata__": vector.provenance, "vector": tensor}, "vector", file=path.name, where="header")
    values = np.ascontiguousarray(vector.values, dtype="<f4")
    write_bytes(path, write_header(vector.provenance, {"vector": tensor}) + values.tobytes())
