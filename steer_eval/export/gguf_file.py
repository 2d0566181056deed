"""GGUF files of a few small tensors.

Invariant: equal contents are equal files. What is read is bounded before anything is allocated: the size of the file,
the counts in its header, the length of every string and array; the tensors are one-dimensional, of float32 or float16,
and lie in the file one after the other, as the format requires. Anything else is a `FormatError`.

Source: the GGUF specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import FormatError

MAX_FILE_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 4 * 2**20
MAX_KEYS = 512
MAX_TENSORS = 4096
MAX_STRING_BYTES = 2**20
MAX_ARRAY = 2**16
MAX_ALIGNMENT = 2**16

ALIGNMENT = 32
VERSION = 3
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT_KEY = "general.alignment"
_UINT32, _STRING, _ARRAY = 4, 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_DTYPES = {0: "<f4", 1: "<f2"}


@dataclass(frozen=True, eq=False)
class GgufFile:
    """What a GGUF file holds.

    Args:
        keys: Its key-value pairs; arrays as tuples.
        tensors: Its tensors, float32 or float16 `[size]`, by name, in the order of the file.
    """

    keys: Mapping[str, Any]
    tensors: Mapping[str, NDArray[np.floating[Any]]]


def to_bytes(keys: Mapping[str, str | int], tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Encode a GGUF file.

    Args:
        keys: Key-value pairs, in the order in which they are written; integers become unsigned ones of 32 bits.
        tensors: float32 `[size]`, in the order in which they are written.
    """
    header = _MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(keys))
    for key, value in keys.items():
        header += _string(key)
        if isinstance(value, str):
            header += struct.pack("<I", _STRING) + _string(value)
        else:
            header += struct.pack("<II", _UINT32, value)
    data = b""
    for name, values in tensors.items():
        # One dimension, its size, type 0 (float32), and where it begins after the header.
        header += _string(name) + struct.pack("<IQIQ", 1, values.size, 0, len(data))
        data += _padded(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return _padded(header) + data


def read_gguf(path: Path, *, name: str | None = None) -> GgufFile:
    """Read a GGUF file.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, too large, damaged, or holds tensors of other kinds.
    """
    name = name or str(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise FormatError(
                name,
                "",
                f"the file has {size} bytes, more than the {MAX_FILE_BYTES} that are read",
                fix="give a control vector, not a model",
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise FormatError(name, "", "the file is absent") from None
    except OSError as error:
        raise FormatError(name, "", f"the file can't be read: {error.strerror}") from None
    return _parse(content, name)


def _parse(content: bytes, name: str) -> GgufFile:
    cursor = _Cursor(content[:MAX_HEADER_BYTES], name)
    if content[:4] != _MAGIC:
        raise FormatError(name, "magic", "not a GGUF file", expected="GGUF", observed=repr(content[:4]))
    cursor.skip(4)
    version = cursor.scalar("I")
    if version not in _VERSIONS:
        raise FormatError(
            name, "version", "a version or byte order that is not read", expected=_VERSIONS, observed=version
        )
    tensor_count = cursor.count("tensor_count", MAX_TENSORS)
    key_count = cursor.count("key_count", MAX_KEYS)
    keys: dict[str, Any] = {}
    for index in range(key_count):
        key = cursor.string(f"key {index}")
        if key in keys:
            raise FormatError(name, key, "the key is there twice")
        keys[key] = cursor.value(key)
    infos: dict[str, tuple[int, int]] = {}
    alignment, offset = _alignment(keys, name), 0
    for index in range(tensor_count):
        tensor = cursor.string(f"tensor {index}")
        if tensor in infos:
            raise FormatError(name, tensor, "the tensor is there twice")
        infos[tensor], stated = _tensor_info(cursor, tensor)
        # Where a tensor may lie follows from those before it; any other place could overlap or point outside.
        if stated != offset:
            raise FormatError(
                name, tensor, "the tensor does not follow the one before", expected=offset, observed=stated
            )
        size, kind = infos[tensor]
        offset += _up(size * np.dtype(_DTYPES[kind]).itemsize, alignment)
    tensors: dict[str, NDArray[np.floating[Any]]] = {}
    start = _up(cursor.position, alignment)
    for tensor, (size, kind) in infos.items():
        dtype = np.dtype(_DTYPES[kind])
        if start + size * dtype.itemsize > len(content):
            raise FormatError(name, tensor, "the file ends before the tensor does")
        tensors[tensor] = np.frombuffer(content, dtype, size, start)
        start = start + _up(size * dtype.itemsize, alignment)
    return GgufFile(keys, tensors)


def _tensor_info(cursor: _Cursor, tensor: str) -> tuple[tuple[int, int], int]:
    """Size and type of a tensor, and where the file says that it begins."""
    dimensions = cursor.scalar("I")
    if dimensions != 1:
        raise FormatError(cursor.name, tensor, "only vectors are read", expected="1 dimension", observed=dimensions)
    size = cursor.count(tensor, MAX_FILE_BYTES)
    kind = cursor.scalar("I")
    if kind not in _DTYPES:
        raise FormatError(
            cursor.name, tensor, "a type that is not read", expected="float32 (0) or float16 (1)", observed=kind
        )
    if size == 0:
        raise FormatError(cursor.name, tensor, "the tensor is empty")
    return (size, kind), cursor.scalar("Q")


def _alignment(keys: Mapping[str, Any], name: str) -> int:
    value = keys.get(_ALIGNMENT_KEY, ALIGNMENT)
    if type(value) is not int or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise FormatError(name, _ALIGNMENT_KEY, "no power of two that is read", observed=value)
    return value


class _Cursor:
    """A place in a header; it never moves past the end."""

    def __init__(self, content: bytes, name: str) -> None:
        self.content = content
        self.name = name
        self.position = 0

    def skip(self, length: int) -> int:
        """Move on, and give the place from where."""
        start = self.position
        if length > len(self.content) - start:
            raise FormatError(self.name, "header", "the file ends inside the header, or the header is too large")
        self.position = start + length
        return start

    def scalar(self, code: str) -> Any:
        """One number or truth value."""
        return struct.unpack_from(f"<{code}", self.content, self.skip(struct.calcsize(f"<{code}")))[0]

    def count(self, where: str, limit: int) -> int:
        """A number of things to follow, at most `limit`."""
        value = int(self.scalar("Q"))
        if value > limit:
            raise FormatError(self.name, where, "more than are read", expected=f"at most {limit}", observed=value)
        return value

    def string(self, where: str) -> str:
        """A text with its length before it."""
        length = self.count(where, MAX_STRING_BYTES)
        start = self.skip(length)
        try:
            return self.content[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(self.name, where, "the text is not UTF-8") from None

    def value(self, key: str) -> Any:
        """A value with its type before it; arrays as tuples."""
        kind = self.scalar("I")
        if kind != _ARRAY:
            return self._item(kind, key)
        kind = self.scalar("I")
        return tuple(self._item(kind, key) for _ in range(self.count(key, MAX_ARRAY)))

    def _item(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.string(key)
        if kind not in _SCALARS:
            raise FormatError(self.name, key, "a type of value that is not read", observed=kind)
        return self.scalar(_SCALARS[kind])


def _string(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded


def _up(length: int, alignment: int = ALIGNMENT) -> int:
    return -(-length // alignment) * alignment


def _padded(content: bytes) -> bytes:
    return content.ljust(_up(len(content)), b"\0")
