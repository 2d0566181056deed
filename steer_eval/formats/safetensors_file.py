"""Safetensors files of strangers.

Invariant: the header is read and checked first, within bounds and without the library: its length, its JSON, that every
tensor's bytes are as many as its dtype and shape need, and that they fill the file without gap or overlap. Only then is
anything mapped or allocated.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError
from steer_eval.formats import strict_json

MAX_FILE_BYTES = 4 * 2**30
MAX_HEADER_BYTES = 2**20
MAX_DIMENSIONS = 8
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}


def read_header(path: Path, *, name: str, limit: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """Read and check the header of a safetensors file.

    Args:
        path: The file.
        name: What to call it in messages.
        limit: The largest file that is read, in bytes.

    Returns:
        The header: `__metadata__` with strings, where there is any, and `{"dtype", "shape", "data_offsets"}` for each
        tensor.

    Raises:
        FormatError: The file is absent, too large, or no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:

            def head(count: int) -> bytes:
                file.seek(0)
                return file.read(count)

            return header_from(head, size, name=name, limit=limit)
    except FileNotFoundError:
        raise FormatError(name, "", "the file is absent") from None
    except OSError as error:
        raise FormatError(name, "header", f"not safetensors: {error}") from None


def header_from(head: Callable[[int], bytes], size: int, *, name: str, limit: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """Read and check the header of a safetensors file of which only the beginning can be had.

    Args:
        head: Gives the first so many bytes of the file.
        size: Of the whole file, in bytes.
        name: What to call it in messages.
        limit: The largest file that is read, in bytes.

    Returns:
        The header, as `read_header` gives it.

    Raises:
        FormatError: The file is too large, or no safetensors file.
    """
    if size > limit:
        raise FormatError(name, "", f"the file has {size} bytes, more than the {limit} that are read")
    prefix = head(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise FormatError(name, "header", "not safetensors: the header length is impossible", observed=length)
    try:
        text = head(8 + length)[8:].decode("utf-8")
    except ValueError as error:
        raise FormatError(name, "header", f"not safetensors: {error}") from None
    header = strict_json.parse(text, name, "header")
    if not isinstance(header, dict):
        raise FormatError(name, "header", "not safetensors: the header is no JSON object")
    _check_layout(header, size - 8 - length, name)
    return header


def _check_layout(header: dict[str, Any], data_bytes: int, name: str) -> None:
    spans = []
    for key, tensor in header.items():
        if key == "__metadata__":
            if not isinstance(tensor, dict) or not all(isinstance(value, str) for value in tensor.values()):
                raise FormatError(name, "__metadata__", "not safetensors: metadata has values that are no strings")
        else:
            spans.append((*_span(tensor, key, name), key))
    position = 0
    for begin, end, key in sorted(spans):
        if begin != position:
            raise FormatError(
                name, key, "not safetensors: tensors overlap or leave a gap", expected=position, observed=begin
            )
        position = end
    if position != data_bytes:
        message = "not safetensors: the tensors do not fill the file"
        raise FormatError(name, "header", message, expected=position, observed=data_bytes)


def _span(tensor: Any, key: str, name: str) -> tuple[int, int]:
    try:
        item_bytes, shape = ITEM_BYTES[tensor["dtype"]], tensor["shape"]
        begin, end = tensor["data_offsets"]
        natural = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        natural = False
    if not natural or len(shape) > MAX_DIMENSIONS or set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(name, key, "not safetensors: a tensor needs a known dtype, a shape and its offsets")
    if end - begin != math.prod(shape) * item_bytes:
        message = "not safetensors: the tensor has another length than its shape needs"
        raise FormatError(name, key, message, expected=math.prod(shape) * item_bytes, observed=end - begin)
    return begin, end


def write_header(metadata: dict[str, str], tensors: dict[str, dict[str, Any]]) -> bytes:
    """The beginning of a safetensors file, with sorted metadata, so that equal content makes equal files.

    Args:
        metadata: Strings.
        tensors: `{"dtype", "shape", "data_offsets"}` by name, in the order of their bytes.
    """
    header = {"__metadata__": dict(sorted(metadata.items())), **tensors}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
