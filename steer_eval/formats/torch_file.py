"""PyTorch files (`.pt`) of strangers.

Invariant: a file is loaded only after its archive and its pickle have been read without PyTorch (`pickle_program.py`)
and found to hold nothing but tensors, numpy arrays and plain values within the limits below; it is then loaded by
`torch.load(weights_only=True)` and by nothing else. Tensors stay mapped to the file until they are used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from steer_eval.errors import FormatError, NotFiniteError, first_line
from steer_eval.formats.pickle_program import ArraySpec, RefusedPickleError, StorageSpec, TensorSpec, run
from steer_eval.formats.zip_records import Record, read_records

MAX_FILE_BYTES = 4 * 2**30
MAX_PICKLE_BYTES = 512 * 2**20
MAX_TENSORS = 1024
MAX_DEPTH = 6
MAX_VALUES = 10_000
MAX_TEXT = 2**20
SUFFIXES = (".pt", ".pth", ".bin")

# What PyTorch reads of small records, trusting that they are small, and text.
_SMALL = {
    "version": re.compile(rb"([1-9]|10)\n?"),
    **dict.fromkeys((".format_version", ".storage_alignment"), re.compile(rb"[0-9]{1,4}\n?")),
    ".data/serialization_id": re.compile(rb"[ -~]{0,64}"),
}
# The number that an old torch.save wrote first, as a pickle.
_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_SAVE_TODAY = "save it again with today's torch.save and its default protocol"
FINITE_SCALAR = "compute the number again, in float32 if it overflowed, and save it finite"
"""How to mend a setting that is NaN or infinite."""
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
        raise FormatError(name, "data.pkl", f"the file is refused: {refusal}", fix=refusal.fix or _RESAVE) from None
    except OSError as error:
        raise FormatError(name, "", f"the file can't be read: {error.strerror}") from None


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
                    name,
                    str(key),
                    "the value is not finite",
                    expected="a number",
                    observed=str(number),
                    fix=FINITE_SCALAR,
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
        begin = file.read(32)
        # A pickle begins with its protocol; from the fourth on, the length of a frame comes next.
        if begin[:1] == b"\x80" and _LEGACY in begin:
            message = "the file was saved by an old torch.save, not as a zip archive"
            raise FormatError(name, "", message, fix=_SAVE_TODAY)
        if begin[:1] == b"\x80" and begin[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            raise FormatError(name, "", "the file is a bare pickle, not an archive by torch.save", fix=_RESAVE)
        records = read_records(file, size, name)
        _check_records(records, name)
        order = records.get("byteorder")
        if order is not None and _content(file, order, 16) != b"little":
            raise FormatError(name, "byteorder", "the tensors are not little-endian", fix=_RESAVE)
        for record, form in _SMALL.items():
            if record in records and not form.fullmatch(_content(file, records[record], 128)):
                message = f"the file is refused: its {record} is no number or text that PyTorch reads"
                raise FormatError(name, record, message, fix=_RESAVE)
        program = run(_content(file, records["data.pkl"], MAX_PICKLE_BYTES))
    value = program.value if isinstance(program.value, dict) else {"": program.value}
    described: Any = _Description(name, records).of(value, "", 0)
    _check_storages(program.storages, records, name)
    header: dict[str, Any] = described
    return header


def _check_records(records: dict[str, Record], name: str) -> None:
    """Check that the archive has the records that PyTorch asks for first."""
    if "data.pkl" not in records:
        raise FormatError(name, "", "the archive has no data.pkl, so torch.save did not write it", fix=_RESAVE)
    if records["data.pkl"].size > MAX_PICKLE_BYTES:
        raise FormatError(name, "data.pkl", f"the pickle has more than {MAX_PICKLE_BYTES} bytes", fix=_RESAVE)
    if "version" not in records or ".data/version" in records:
        raise FormatError(name, "version", "the archive has no version, so torch.save did not write it", fix=_RESAVE)


def _content(file: BinaryIO, record: Record, limit: int) -> bytes:
    file.seek(record.start)
    return file.read(min(record.size, limit))


def _check_storages(storages: Iterable[StorageSpec], records: dict[str, Record], name: str) -> None:
    """Check that what would be opened is there, whether or not a tensor of the value is a view of it."""
    for storage in storages:
        record = records.get(storage.record)
        length = storage.elements * storage.item_bytes
        if record is None or record.size != length:
            there = "absent" if record is None else f"{record.size} bytes long"
            message = f"a tensor needs a record {storage.record} of {length} bytes, which is {there}"
            raise FormatError(name, "data.pkl", message)
        # A number that is mapped to an odd address can kill a program that trusts its tensors to be aligned.
        if record.start % storage.item_bytes:
            raise FormatError(name, storage.record, "the record's numbers are not aligned in the file", fix=_RESAVE)


@dataclass
class _Description:
    """Turns what a pickle would build into plain JSON values, counting."""

    name: str
    records: dict[str, Record]
    values: int = 0
    tensors: int = 0
    text: int = 0

    def of(self, value: Any, where: str, depth: int) -> Any:
        self.values += 1
        if depth > MAX_DEPTH or self.values + (len(value) if isinstance(value, dict) else 0) > MAX_VALUES:
            raise RefusedPickleError("its values are nested too deeply or too many")
        if isinstance(value, TensorSpec | ArraySpec):
            return self._tensor(value, where)
        if isinstance(value, dict):
            # A number as a key is fine (layer to vector); beside its own text it would be lost.
            keys = [str(key) for key in value]
            if len(set(keys)) != len(keys):
                raise RefusedPickleError("a dict has a number and its text as keys")
            if isinstance(value.get("dtype"), str) and isinstance(value.get("shape"), list | tuple):
                raise RefusedPickleError("a dict has dtype and shape, so its description would pass for a tensor's")
            for key in keys:
                self._count_text(key)
            return {str(key): self.of(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            raise NotFiniteError(
                self.name,
                where.lstrip("."),
                "the value is not finite",
                expected="a number",
                observed=str(value),
                fix=FINITE_SCALAR,
            )
        if isinstance(value, str):
            self._count_text(value)
        if value is None or isinstance(value, str | int | float):
            return value
        raise RefusedPickleError(f"it holds a {type(value).__name__.strip('_').lower()} where a value belongs")

    def _count_text(self, text: str) -> None:
        """One text that stands in thousands of places costs nothing until a message repeats it in all of them."""
        self.text += len(text)
        if self.text > MAX_TEXT:
            raise RefusedPickleError(f"it has more than {MAX_TEXT} characters of text")

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
