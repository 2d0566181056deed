"""PyTorch files (`.pt`) of strangers.

Invariant: a file is loaded only after its archive and its pickle have been read without PyTorch (`pickle_program.py`)
and found to hold nothing but tensors, numpy arrays and plain values within the limits below; it is then loaded by
`torch.load(weights_only=True)` and by nothing else. Tensors stay mapped to the file until they are used.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError, NotFiniteError, first_line
from steer_eval.formats.pickle_program import ArraySpec, RefusedPickleError, TensorSpec, interpret

MAX_FILE_BYTES = 4 * 2**30
MAX_PICKLE_BYTES = 512 * 2**20
MAX_MEMBERS = 4096
MAX_TENSORS = 1024
MAX_DEPTH = 6
MAX_VALUES = 10_000
SUFFIXES = (".pt", ".pth", ".bin")

_MEMBER = re.compile(
    r"[^/\\\0]+/(data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/[\w.]+|data/\d+)"
)
_RESAVE = "ask for safetensors, or for torch.save of nothing but tensors, arrays, numbers and text"


@dataclass(frozen=True)
class TorchFile:
    """What a PyTorch file holds.

    Args:
        header: Its content with `{"dtype", "shape"}` in place of every tensor and array, and a plain number in place of
            a numpy one; what is no dict stands under the empty key.
        content: The content itself, in the same way; tensors are `torch.Tensor`, arrays `numpy.ndarray`.
    """

    header: dict[str, Any]
    content: dict[str, Any]


def read_header(path: Path, *, name: str | None = None) -> dict[str, Any]:
    """Describe a PyTorch file without loading it, and without PyTorch.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Returns:
        Its dict, with `{"dtype": "float32", "shape": [2048]}` in place of every tensor and array.

    Raises:
        FormatError: The file is absent, damaged, too large, or holds something that is not read.
    """
    name = name or str(path)
    try:
        return _header(path, name)
    except FileNotFoundError:
        raise FormatError(name, "", "the file is absent") from None
    except RefusedPickleError as refusal:
        raise FormatError(name, "data.pkl", f"the file is refused: {refusal}", fix=_RESAVE) from None
    except (OSError, zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, RecursionError) as error:
        raise FormatError(
            name, "", f"not a PyTorch file: {first_line(error)}", expected="a zip archive by torch.save", fix=_RESAVE
        ) from None


def read_torch(path: Path, *, name: str | None = None) -> TorchFile:
    """Load a PyTorch file.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, damaged, too large, or holds something that is not read.
    """
    import pickle

    import numpy as np
    import torch
    from torch.serialization import safe_globals

    name = name or str(path)
    header = read_header(path, name=name)
    try:
        with safe_globals(_numpy_globals()):
            content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, OSError, EOFError) as error:
        raise FormatError(name, "", f"the file is refused: {first_line(error)}", fix=_RESAVE) from None
    content = content if isinstance(content, dict) else {"": content}
    for key, value in content.items():
        if isinstance(value, np.generic):
            number = value.item()
            if not math.isfinite(number):
                raise NotFiniteError(
                    name, str(key), "the value is not finite", expected="a number", observed=str(number)
                )
            header[str(key)] = number
    return TorchFile(header, content)


def _numpy_globals() -> list[Any]:
    """What numpy arrays and scalars in a pickle need, also under the names that numpy 1 wrote."""
    import numpy as np
    from numpy._core.multiarray import _reconstruct, scalar

    from steer_eval.formats.pickle_program import NUMPY

    return [
        np.ndarray,
        np.dtype,
        _reconstruct,
        scalar,
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
        *(type(np.dtype(code)) for code in NUMPY),
    ]


def _header(path: Path, name: str) -> dict[str, Any]:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise FormatError(name, "", f"the file has {size} bytes, more than the {MAX_FILE_BYTES} that are read")
    with path.open("rb") as file:
        if file.read(2) == b"\x80\x02":
            raise FormatError(name, "", "the file is a bare pickle, not an archive by torch.save", fix=_RESAVE)
        records = _records(file, size, name)
        file.seek(records["data.pkl"].start)
        program = file.read(records["data.pkl"].size)
        order = records.get("byteorder")
        if order is not None:
            file.seek(order.start)
            if file.read(min(order.size, 16)) != b"little":
                raise FormatError(name, "byteorder", "the tensors are not little-endian", fix=_RESAVE)
    value = interpret(program)
    if not isinstance(value, dict):
        value = {"": value}
    described: Any = _Description(name, records).of(value, "", 0)
    header: dict[str, Any] = described
    return header


@dataclass(frozen=True)
class _Record:
    start: int
    size: int


def _records(file: Any, size: int, name: str) -> dict[str, _Record]:
    """Members of the archive by their name below its one folder; their bytes lie apart, uncompressed, in the file."""
    records: dict[str, _Record] = {}
    end = 0
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if not 1 <= len(members) <= MAX_MEMBERS:
            raise FormatError(name, "", f"the archive has {len(members)} members, not 1 to {MAX_MEMBERS}")
        if archive.comment:
            raise FormatError(name, "", "the archive has a comment, which torch.save does not write", fix=_RESAVE)
        folders = {member.filename.split("/", 1)[0] for member in members}
        for member in sorted(members, key=lambda member: member.header_offset):
            if not _MEMBER.fullmatch(member.filename) or len(folders) > 1:
                raise FormatError(
                    name, "", f"the archive has a member {member.filename!r}, which is no part of a tensor file"
                )
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise FormatError(name, member.filename, "the member is compressed or encrypted", fix=_RESAVE)
            start = _start(file, member)
            record = member.filename.split("/", 1)[1]
            if member.header_offset < end or record in records or start + member.file_size > size:
                raise FormatError(name, member.filename, "members overlap, stand twice or reach beyond the file")
            end = start + member.file_size
            records[record] = _Record(start, member.file_size)
    if "data.pkl" not in records:
        raise FormatError(name, "", "the archive has no data.pkl, so torch.save did not write it", fix=_RESAVE)
    if records["data.pkl"].size > MAX_PICKLE_BYTES:
        raise FormatError(name, "data.pkl", f"the pickle has more than {MAX_PICKLE_BYTES} bytes", fix=_RESAVE)
    return records


def _start(file: Any, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin. Its own header must agree with the directory: loaders differ in which they read."""
    file.seek(member.header_offset)
    fields = struct.unpack("<4s5H3L2H", file.read(30))
    if fields[0] != b"PK\x03\x04" or file.read(fields[9]) != member.orig_filename.encode():
        raise zipfile.BadZipFile(f"the header of {member.filename!r} is not the one in the directory")
    return int(member.header_offset + 30 + fields[9] + fields[10])


@dataclass
class _Description:
    """Turns what a pickle would build into plain JSON values, counting."""

    name: str
    records: dict[str, _Record]
    values: int = 0
    tensors: int = 0

    def of(self, value: Any, where: str, depth: int) -> Any:
        self.values += 1
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise RefusedPickleError("its values are nested too deeply or too many")
        if isinstance(value, TensorSpec | ArraySpec):
            return self._tensor(value, where)
        if isinstance(value, dict):
            # A number as a key is fine (layer to vector); beside its own text it would be lost.
            keys = [str(key) for key in value]
            if len(set(keys)) != len(keys):
                raise RefusedPickleError("a dict has a number and its text as keys")
            return {str(key): self.of(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            raise NotFiniteError(
                self.name, where.lstrip("."), "the value is not finite", expected="a number", observed=str(value)
            )
        if value is None or isinstance(value, str | int | float):
            return value
        raise RefusedPickleError(f"it holds a {type(value).__name__.strip('_').lower()} where a value belongs")

    def _tensor(self, spec: TensorSpec | ArraySpec, where: str) -> dict[str, Any]:
        self.tensors += 1
        if self.tensors > MAX_TENSORS:
            raise RefusedPickleError(f"it has more than {MAX_TENSORS} tensors")
        if isinstance(spec, TensorSpec):
            record = self.records.get(spec.record)
            if record is None or record.size != spec.record_bytes:
                there = "absent" if record is None else f"{record.size} bytes long"
                raise FormatError(
                    self.name,
                    where.lstrip("."),
                    f"the tensor needs a record {spec.record} of {spec.record_bytes} bytes, which is {there}",
                )
        return {"dtype": spec.dtype, "shape": list(spec.shape)}
