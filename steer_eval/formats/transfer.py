"""What carries a direction from one model to another: the carried vectors, and the maps.

Invariant: in a `TransferMap` the maps are oriented so that a row of the large model's residual stream times the matrix
is one of the small model's, whichever way the file had them; all numbers are finite and all shapes fit. The safetensors
files keep the names, the orientation and every bit of what they are written from, and equal values are equal files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.atomic import write_bytes
from steer_eval.formats.caa_pt import exact_floats
from steer_eval.formats.finite import check_finite
from steer_eval.formats.safetensors_file import MAX_FILE_BYTES, MAX_HEADER_BYTES, read_header, write_header
from steer_eval.formats.schema import check
from steer_eval.formats.torch_file import FINITE_SCALAR, TorchFile, read_torch

VECTOR_KEYS = frozenset({"v_ridge", "v_small_native"})
MAP_KEYS = frozenset({"W", "R", "L_large"})
"""Keys that tell these kinds of PyTorch files from others."""

VECTORS_FORMAT = "steer-eval/transferred/1"
MAP_FORMAT = "steer-eval/transfer-map/1"
CENTRED_MAP_FORMAT = "steer-eval/transfer-map/2"
"""What the safetensors files say of themselves in their metadata; maps of the second format have means and a scale."""

METHODS = ("ridge", "procrustes", "random")
VECTORS = (*(f"v_{method}" for method in METHODS), "v_small_native", "v_large_source")
MATRICES = ("W", "b", "R")
MEANS = ("mean_large", "mean_small")
"""Tensors of the two kinds, in the order in which they are written."""

MAX_VECTORS_BYTES = 64 * 2**20

Floats32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TransferredVectors:
    """One direction of a large model in a small one.

    Args:
        carried: float32 `[d_small]` by method: `ridge`, `procrustes`, `random`.
        native: The small model's own vector, float32 `[d_small]`.
        source: The large model's vector, float32 `[d_large]`.
        layer: Layer of the small model.
        coefficient: With which the vectors were tried.
        dtype: Of the values in the file, or in the one that this was converted from; by tensor, where they differ.
        provenance: What else is recorded, as strings.
    """

    carried: dict[str, Floats32]
    native: Floats32
    source: Floats32
    layer: int
    coefficient: float
    dtype: str = "float32"
    provenance: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Centring:
    """Where the orthogonal map is centred, and its scale: a row is carried as `scale * (x - large) @ R + small`.

    Args:
        large: float32 `[d_large]`.
        small: float32 `[d_small]`.
        scale: Of the orthogonal map; a direction is carried as `scale * v @ R`.
    """

    large: Floats32
    small: Floats32
    scale: float


@dataclass(frozen=True, eq=False)
class TransferMap:
    """Linear maps from the residual stream of a large model to that of a small one.

    Args:
        ridge: float32 `[d_large, d_small]`.
        intercept: float32 `[d_small]`; a carried *row* is `x @ ridge + intercept`, a carried direction `v @ ridge`.
        orthogonal: Procrustes map, float32 `[d_large, d_small]`; its singular values are 1, or 0 for what it was fitted
            on no row of.
        layer_large: Layer of the large model.
        layer_small: Layer of the small model.
        alpha: Ridge penalty.
        transposed: Names of the matrices that the file has the other way round.
        dtype: Of the values in the file, or in the one that this was converted from; by tensor, where they differ.
        provenance: What else is recorded, as strings.
        centring: Where the orthogonal map is centred; None where the file does not say.
    """

    ridge: Floats32
    intercept: Floats32
    orthogonal: Floats32
    layer_large: int
    layer_small: int
    alpha: float
    transposed: tuple[str, ...] = ()
    dtype: str = "float32"
    provenance: dict[str, str] = field(default_factory=dict)
    centring: Centring | None = None


@dataclass(frozen=True)
class MapOutline:
    """Transfer maps whose values were not read; the fields are those of `TransferMap`."""

    layer_large: int
    layer_small: int
    alpha: float


def read_transferred_pt(path: Path, *, name: str | None = None) -> TransferredVectors:
    """Read transferred vectors in a PyTorch file.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, refused, breaks `schemas/transferred_pt.schema.json`, or its shapes do not fit.
    """
    name = name or str(path)
    file = read_torch(path, name=name)
    check(file.header, "transferred_pt", file=name)
    vectors = {key: _values(file, key, name) for key in VECTORS}
    return _transferred(vectors, {**file.header, "dtype": _dtype(file, VECTORS)}, {}, name)


def read_transferred(path: Path, *, name: str | None = None) -> TransferredVectors:
    """Read transferred vectors in safetensors.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, breaks `schemas/transferred.schema.json`, or its shapes do not fit.
    """
    name = name or str(path)
    vectors, recorded = _load(path, "transferred", name, limit=MAX_VECTORS_BYTES)
    provenance = _without(recorded, "format", "L_small", "c_small", "dtype")
    return _transferred(vectors, recorded, provenance, name)


def write_transferred(path: Path, vectors: TransferredVectors) -> None:
    """Write transferred vectors as safetensors, atomically.

    Raises:
        FormatError: The provenance breaks `schemas/transferred.schema.json`.
    """
    tensors = {f"v_{method}": vectors.carried[method] for method in METHODS}
    tensors |= {"v_small_native": vectors.native, "v_large_source": vectors.source}
    settings = {"L_small": str(vectors.layer), "c_small": repr(vectors.coefficient), "dtype": vectors.dtype}
    _write(path, tensors, {**vectors.provenance, "format": VECTORS_FORMAT, **settings}, "transferred")


def read_transfer_map_pt(path: Path, *, name: str | None = None) -> TransferMap:
    """Read transfer maps in a PyTorch file.

    Args:
        path: The file; its matrices are tensors or numpy arrays.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, refused, breaks `schemas/transfer_map_pt.schema.json`, or its shapes don't fit.
    """
    name = name or str(path)
    file = read_torch(path, name=name)
    check(file.header, "transfer_map_pt", file=name)
    matrices = {key: _values(file, key, name) for key in MATRICES}
    return _map(matrices, {**file.header, "dtype": _dtype(file, MATRICES)}, {}, name)


def read_transfer_map(path: Path, *, name: str | None = None) -> TransferMap:
    """Read transfer maps in safetensors.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, breaks `schemas/transfer_map.schema.json`, or its shapes do not fit.
    """
    name = name or str(path)
    matrices, recorded = _load(path, "transfer_map", name)
    provenance = _without(recorded, "format", "L_large", "L_small", "alpha", "dtype")
    if recorded["format"] != CENTRED_MAP_FORMAT:
        return _map(matrices, recorded, provenance, name)
    maps = _map(matrices, recorded, _without(provenance, "scale"), name)
    return replace(maps, centring=_centring(matrices, maps, _number(recorded, "scale", name), name))


def outline_map(header: Mapping[str, Any], *, name: str) -> MapOutline:
    """What the header of a transfer map in safetensors says of it.

    Args:
        header: The header.
        name: What to call the file in messages.

    Raises:
        FormatError: It breaks `schemas/transfer_map.schema.json`.
    """
    check(header, "transfer_map", file=name, where="header")
    recorded = header["__metadata__"]
    return MapOutline(int(recorded["L_large"]), int(recorded["L_small"]), _number(recorded, "alpha", name))


def write_transfer_map(path: Path, maps: TransferMap) -> None:
    """Write transfer maps as safetensors, atomically, the matrices as the file had them that they were read from.

    Maps with a centring are of the second format, others of the first.

    Raises:
        FormatError: The provenance breaks `schemas/transfer_map.schema.json`.
    """
    matrices = {"W": maps.ridge, "b": maps.intercept, "R": maps.orthogonal}
    tensors = {key: matrix.T if key in maps.transposed else matrix for key, matrix in matrices.items()}
    layers = {"L_large": str(maps.layer_large), "L_small": str(maps.layer_small)}
    settings = {**layers, "alpha": repr(maps.alpha), "dtype": maps.dtype}
    if maps.centring is None:
        _write(path, tensors, {**maps.provenance, "format": MAP_FORMAT, **settings}, "transfer_map")
        return
    tensors |= dict(zip(MEANS, (maps.centring.large, maps.centring.small), strict=True))
    settings |= {"format": CENTRED_MAP_FORMAT, "scale": repr(maps.centring.scale)}
    _write(path, tensors, {**maps.provenance, **settings}, "transfer_map")


def orthogonality_error(matrix: Floats32) -> float:
    """How far a map is from turning some directions and leaving out the others; 0 if each singular value is 1 or 0.

    The largest difference between the Gram matrix `G`, on the narrower side, and its square, which are equal if and
    only if `G` is a projection; where it is one of full rank, the map is orthogonal.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    gram = tall.T @ tall
    return float(np.abs(gram @ gram - gram).max())


def rank_of(matrix: Floats32) -> int:
    """How many directions an orthogonal map turns: the sum of its squared singular values, which are 1 or 0."""
    return round(float(np.square(matrix, dtype=np.float64).sum()))


def _transferred(
    vectors: dict[str, Floats32], recorded: Mapping[str, Any], provenance: dict[str, str], name: str
) -> TransferredVectors:
    """The value of what a file holds, whichever of the two formats it has."""
    native = vectors["v_small_native"]
    for method in METHODS:
        if vectors[f"v_{method}"].shape != native.shape:
            raise FormatError(
                name,
                f"v_{method}",
                "the vector has another width than the small model's own",
                expected=list(native.shape),
                observed=list(vectors[f"v_{method}"].shape),
            )
    return TransferredVectors(
        carried={method: vectors[f"v_{method}"] for method in METHODS},
        native=native,
        source=vectors["v_large_source"],
        layer=int(recorded["L_small"]),
        coefficient=_number(recorded, "c_small", name),
        dtype=recorded["dtype"],
        provenance=provenance,
    )


def _map(
    tensors: dict[str, Floats32], recorded: Mapping[str, Any], provenance: dict[str, str], name: str
) -> TransferMap:
    """The value of what a file holds, whichever of the two formats it has."""
    intercept = tensors["b"]
    matrices, transposed = {}, []
    for key in ("W", "R"):
        matrix = tensors[key]
        if matrix.shape[1] != intercept.size:
            if matrix.shape[0] != intercept.size:
                message = "neither side of the matrix has the width of the intercept b"
                raise FormatError(name, key, message, expected=intercept.size, observed=list(matrix.shape))
            matrix = matrix.T
            transposed.append(key)
        matrices[key] = matrix
    if matrices["W"].shape != matrices["R"].shape:
        message = "the two maps have different shapes"
        raise FormatError(name, "R", message, expected=list(matrices["W"].shape), observed=list(matrices["R"].shape))
    return TransferMap(
        ridge=matrices["W"],
        intercept=intercept,
        orthogonal=matrices["R"],
        layer_large=int(recorded["L_large"]),
        layer_small=int(recorded["L_small"]),
        alpha=_number(recorded, "alpha", name),
        transposed=tuple(transposed),
        dtype=recorded["dtype"],
        provenance=provenance,
    )


def _centring(tensors: dict[str, Floats32], maps: TransferMap, scale: float, name: str) -> Centring:
    for key, width in zip(MEANS, maps.ridge.shape, strict=True):
        if tensors[key].size != width:
            message = "the mean has another width than the map"
            raise FormatError(name, key, message, expected=[width], observed=list(tensors[key].shape))
    return Centring(tensors["mean_large"], tensors["mean_small"], scale)


def _values(file: TorchFile, key: str, name: str) -> Floats32:
    values = exact_floats(file.content[key])
    check_finite(values, name=name, where=key)
    return values


def _dtype(file: TorchFile, keys: tuple[str, ...]) -> str:
    dtypes = {key: file.header[key]["dtype"] for key in keys}
    one = set(dtypes.values())
    return str(one.pop()) if len(one) == 1 else ", ".join(f"{key} {dtype}" for key, dtype in dtypes.items())


def _number(recorded: Mapping[str, Any], key: str, name: str) -> float:
    """A setting as a float that is the same number: a number in a PyTorch file, its text in safetensors."""
    value = recorded[key]
    number = float(value)
    if not math.isfinite(number):
        raise NotFiniteError(
            name, key, "the value is not finite", expected="a number", observed=str(value), fix=FINITE_SCALAR
        )
    if isinstance(value, int) and number != value:
        raise FormatError(name, key, "the value has more digits than a float", observed=value, fix="save it as a float")
    return number


def _without(recorded: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: value for key, value in recorded.items() if key not in keys}


def _load(
    path: Path, schema: str, name: str, *, limit: int = MAX_FILE_BYTES
) -> tuple[dict[str, Floats32], dict[str, str]]:
    """Tensors and metadata of a safetensors file, once its header is known to be good."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    header = read_header(path, name=name, limit=limit)
    check(header, schema, file=name, where="header")
    try:
        tensors: dict[str, Floats32] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(name, "", f"not safetensors: {error}") from None
    for key, values in tensors.items():
        check_finite(values, name=name, where=key)
    return tensors, header["__metadata__"]


def _write(path: Path, tensors: dict[str, Floats32], metadata: dict[str, str], schema: str) -> None:
    described: dict[str, dict[str, Any]] = {}
    content = []
    position = 0
    for key, values in tensors.items():
        data = np.ascontiguousarray(values, dtype="<f4")
        offsets = [position, position + data.nbytes]
        described[key] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
        content.append(data.data)
        position += data.nbytes
    check({"__metadata__": metadata, **described}, schema, file=path.name, where="header")
    header = write_header(metadata, described)
    if len(header) - 8 > MAX_HEADER_BYTES:
        raise FormatError(path.name, "header", f"the metadata has more than the {MAX_HEADER_BYTES} bytes that are read")
    write_bytes(path, b"".join([header, *content]))
