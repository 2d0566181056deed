"""PyTorch archives and pickles put together by hand, byte by byte.

Invariant: nothing here checks what it writes. `torch.save` writes only good files; these functions write the good ones
and all others.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STOP = b"."
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def several(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def numbers(values: Sequence[int]) -> bytes:
    return several(*map(integer, values))


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + several(*arguments) + b"R"


def mapping(items: Mapping[str, bytes], *, new: bytes = b"}") -> bytes:
    return new + b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def put(value: bytes, slot: int) -> bytes:
    return value + b"r" + struct.pack("<I", slot)


def get(slot: int) -> bytes:
    return b"j" + struct.pack("<I", slot)


def storage(kind: str, record: str, elements: int, location: str = "cpu") -> bytes:
    return several(text("storage"), name_of("torch", kind), text(record), text(location), integer(elements)) + b"Q"


def tensor(
    of: bytes,
    shape: Sequence[int],
    stride: Sequence[int] | None = None,
    *,
    offset: int = 0,
    grad: bytes = FALSE,
    hooks: bytes = ORDERED_DICT,
    more: Sequence[bytes] = (),
) -> bytes:
    """A tensor over a storage; contiguous without a stride."""
    if stride is None:
        stride = [1] * len(shape)
        for index in range(len(shape) - 2, -1, -1):
            stride[index] = stride[index + 1] * max(shape[index + 1], 1)
    rebuild = name_of("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, of, integer(offset), numbers(shape), numbers(stride), grad, hooks, *more)


def floats(record: str, elements: int) -> bytes:
    """A vector of float32."""
    return tensor(storage("FloatStorage", record, elements), [elements])


def encoded(value: str) -> bytes:
    return call(name_of("_codecs", "encode"), text(value), text("latin1"))


def dtype(code: str, *, state: bytes | None = None) -> bytes:
    if state is None:
        order = "|" if code[1:] == "1" else "<"
        state = several(integer(3), text(order), NONE, NONE, NONE, integer(-1), integer(-1), integer(0))
    return call(name_of("numpy", "dtype"), text(code), FALSE, TRUE) + state + b"b"


def array(of: bytes, shape: Sequence[int], content: bytes, *, version: int = 1) -> bytes:
    """A numpy array of a dtype over encoded bytes."""
    empty = call(
        name_of("numpy._core.multiarray", "_reconstruct"), name_of("numpy", "ndarray"), numbers([0]), encoded("b")
    )
    return empty + several(integer(version), numbers(shape), of, FALSE, content) + b"b"


def scalar(of: bytes, content: bytes) -> bytes:
    return call(name_of("numpy._core.multiarray", "scalar"), of, content)


def program(value: bytes) -> bytes:
    return b"\x80\x02" + value + STOP


@dataclass(frozen=True)
class Member:
    """One member of an archive; what its two headers say can differ from what it is.

    Args:
        name: Its path, folder included.
        content: Its bytes as they stand in the file.
        method: Compression method that the headers name.
        flags: Flag bits of the headers.
        size: Uncompressed size that the headers name; the content's by default.
        local_name: Name in the header before the content; `name` by default.
        extra: Extra field before the content; None pads so that the content begins at a multiple of 64.
        offset: Where the directory says that it begins; where it does by default.
    """

    name: bytes
    content: bytes
    method: int = 0
    flags: int = 0x0800
    size: int | None = None
    local_name: bytes | None = None
    extra: bytes | None = None
    offset: int | None = None


def archive(members: Sequence[Member], *, zip64: bool = True, comment: bytes = b"") -> bytes:
    """A zip file laid out as `torch.save` does it."""
    out, directory = bytearray(), bytearray()
    for member in members:
        begin = len(out)
        size = len(member.content) if member.size is None else member.size
        local = member.name if member.local_name is None else member.local_name
        extra = member.extra
        if extra is None:
            gap = -(begin + 30 + len(local) + 4) % 64
            extra = b"FB" + struct.pack("<H", gap) + b"Z" * gap
        common = struct.pack(
            "<4H3I", member.flags, member.method, 0, 0, zlib.crc32(member.content), len(member.content), size
        )
        out += b"PK\3\4" + struct.pack("<H", 0) + common + struct.pack("<2H", len(local), len(extra)) + local + extra
        out += member.content
        directory += b"PK\1\2" + struct.pack("<2H", 0, 0) + common
        directory += struct.pack(
            "<5H2I", len(member.name), 0, 0, 0, 0, 0, begin if member.offset is None else member.offset
        )
        directory += member.name
    return bytes(out) + end_of(bytes(directory), len(members), len(out), zip64=zip64, comment=comment)


def end_of(directory: bytes, count: int, start: int, *, zip64: bool = True, comment: bytes = b"") -> bytes:
    """A directory that begins at `start`, and what follows it."""
    tail = b""
    if zip64:
        tail = b"PK\6\6" + struct.pack("<Q2H2I4Q", 44, 0, 45, 0, 0, count, count, len(directory), start)
        tail += b"PK\6\7" + struct.pack("<IQI", 0, start + len(directory), 1)
    tail += b"PK\5\6" + struct.pack("<4H2IH", 0, 0, count, count, len(directory), start, len(comment)) + comment
    return directory + tail


def members(pickled: bytes, records: Mapping[str, bytes] | None = None, *, folder: str = "a") -> list[Member]:
    """The members of a file by `torch.save`: the pickle, the bytes of its tensors, and the small ones."""
    parts = {"data.pkl": pickled, "byteorder": b"little"}
    parts.update((f"data/{record}", content) for record, content in (records or {}).items())
    parts["version"] = b"3\n"
    return [Member(f"{folder}/{name}".encode(), content) for name, content in parts.items()]


def torch_file(value: bytes, records: Mapping[str, bytes] | None = None) -> bytes:
    """A whole file from what builds its value."""
    return archive(members(program(value), records))
