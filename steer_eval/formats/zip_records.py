"""The records of a PyTorch file's zip archive.

Invariant: an archive that passes has one reading. Zip readers differ in where they look for the directory, in which of
a member's two headers they believe and in what they do about extra fields, so everything that could be read in two ways
is refused: the directory ends where the end begins, says the same twice, and every member lies uncompressed, apart from
the others, before it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from steer_eval.errors import FormatError

MAX_MEMBERS = 4096

_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
# Text in UTF-8, and sizes that stand once more behind the content; torch.save sets both.
_FLAGS = 0x0808
_MEMBER = re.compile(
    rb"(?P<folder>[^/\\\0]+)/"
    rb"(?P<record>data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/[A-Za-z0-9_.]+|data/[0-9]+)"
)
_RESAVE = "save it again with torch.save"


@dataclass(frozen=True)
class Record:
    """Where the bytes of a member lie.

    Args:
        start: Position of the first byte in the file.
        size: Number of bytes.
    """

    start: int
    size: int


def read_records(file: BinaryIO, size: int, name: str) -> dict[str, Record]:
    """Find the members of an archive.

    Args:
        file: The file, open for reading.
        size: Its length in bytes.
        name: What to call it in messages.

    Returns:
        Each member by its name below the archive's one folder.

    Raises:
        FormatError: It is no zip archive, has no unambiguous directory, or a member that `torch.save` does not write.
    """
    count, start, length = _directory(file, size, name)
    file.seek(start)
    entries = _entries(file.read(length), count, name)
    records: dict[str, Record] = {}
    folders: set[bytes] = set()
    end = 0
    for offset, member, content in sorted(entries):
        match = _MEMBER.fullmatch(member)
        shown = member.decode("utf-8", "replace")
        # PyTorch has the folder's name as text.
        if match is None or folders - {match["folder"]} or shown.encode() != member:
            raise FormatError(name, "", f"the archive has a member {shown!r}, which is no part of a tensor file")
        folders.add(match["folder"])
        record = match["record"].decode()
        begin = _content(file, offset, member, shown, name)
        if offset < end or record in records or begin + content > start:
            raise FormatError(name, shown, "members overlap, stand twice or reach beyond the file")
        end = begin + content
        records[record] = Record(begin, content)
    return records


def _directory(file: BinaryIO, size: int, name: str) -> tuple[int, int, int]:
    """Number of entries, position and length of the directory."""
    file.seek(max(size - _END64.size - _LOCATOR.size - _END.size, 0))
    tail = file.read()
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise FormatError(
            name,
            "",
            "not a PyTorch file: no zip directory at its end",
            expected="a zip archive by torch.save",
            fix=_RESAVE,
        )
    _, *ends, _comment = _END.unpack(tail[-_END.size :])
    after = size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator[:4] == b"PK\x06\x07":
        after -= _LOCATOR.size + _END64.size
        # The longer form that torch.save always writes; it and the short one must not say different things.
        end64 = tail[: _END64.size]
        good = len(tail) == _END64.size + _LOCATOR.size + _END.size
        good = good and locator == _LOCATOR.pack(b"PK\x06\x07", 0, after, 1) and end64[:4] == b"PK\x06\x06"
        if not good or list(_END64.unpack(end64)[4:]) != ends or _END64.unpack(end64)[1] != _END64.size - 12:
            raise FormatError(name, "", "the archive has two directories that differ", fix=_RESAVE)
    disk, directory_disk, here, count, length, start = ends
    if (disk, directory_disk, here) != (0, 0, count) or start + length != after:
        raise FormatError(name, "", "the archive's directory is not where its end says", fix=_RESAVE)
    if not 1 <= count <= MAX_MEMBERS:
        raise FormatError(name, "", f"the archive has {count} members, not 1 to {MAX_MEMBERS}")
    return count, start, length


def _entries(directory: bytes, count: int, name: str) -> list[tuple[int, bytes, int]]:
    """Offset, name and size of each member, as the directory has them."""
    entries = []
    position = 0
    for _ in range(count):
        fields = directory[position : position + _ENTRY.size]
        if len(fields) < _ENTRY.size or fields[:4] != b"PK\x01\x02":
            raise FormatError(name, "", "the archive's directory is damaged", fix=_RESAVE)
        numbers = _ENTRY.unpack(fields)
        _, _, _, flags, method, _, _, _, packed, size, name_length, extra, comment, disk, _, attributes, offset = (
            numbers
        )
        position += _ENTRY.size + name_length
        member = directory[position - name_length : position]
        shown = member.decode("utf-8", "replace")
        if method != 0 or packed != size or flags & ~_FLAGS:
            raise FormatError(name, shown, "the member is compressed or encrypted", fix=_RESAVE)
        # One of the attributes makes a member a folder: PyTorch then skips its bytes, and takes for them whatever its
        # memory happened to hold.
        if extra or comment or disk or attributes & 0xFFFF or 0xFFFFFFFF in (size, offset):
            raise FormatError(name, shown, "the member has fields that torch.save does not write", fix=_RESAVE)
        entries.append((offset, member, size))
    if position != len(directory):
        raise FormatError(name, "", "the archive's directory is damaged", fix=_RESAVE)
    return entries


def _content(file: BinaryIO, offset: int, member: bytes, shown: str, name: str) -> int:
    """Where a member's bytes begin, behind its own header, which must be the directory's."""
    file.seek(offset)
    header = file.read(_LOCAL.size)
    if len(header) == _LOCAL.size and header[:4] == b"PK\x03\x04":
        *_, name_length, extra = _LOCAL.unpack(header)
        if file.read(name_length) == member:
            return int(offset + _LOCAL.size + name_length + extra)
    raise FormatError(name, shown, "the member's header is not the one in the directory", fix=_RESAVE)
