from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from pt_files import FOLDER, caa, sae, saved, transfer_map, write_zip

from steer_eval.errors import FormatError
from steer_eval.formats.zip_records import read_records

MEMBERS = [(f"{FOLDER}/data.pkl", b"pickle"), (f"{FOLDER}/version", b"3\n"), (f"{FOLDER}/data/0", b"12345678")]


def contents(path: Path) -> dict[str, bytes]:
    """What the records of a file hold."""
    content = path.read_bytes()
    with path.open("rb") as file:
        records = read_records(file, len(content), "x.pt")
    return {name: content[record.start : record.start + record.size] for name, record in records.items()}


def by_zipfile(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {member.filename.split("/", 1)[1]: archive.read(member) for member in archive.infolist()}


@pytest.mark.parametrize("value", [{}, caa(), sae(), transfer_map(), [torch.ones(1)] * 3], ids=["", "v", "s", "t", "l"])
@pytest.mark.parametrize("name", ["x.pt", "naïve name.pt", "x" * 200])
def test_records_of_torch_are_those_that_zipfile_finds(tmp_path, value, name):
    path = saved(tmp_path / name, value)

    assert contents(path) == by_zipfile(path)


def test_a_file_that_went_through_a_buffer_is_read(tmp_path):
    buffer = io.BytesIO()
    torch.save(caa(), buffer)
    (tmp_path / "x.pt").write_bytes(buffer.getvalue())

    assert contents(tmp_path / "x.pt") == by_zipfile(tmp_path / "x.pt")


def test_the_archive_that_the_bad_ones_are_made_of_is_good(tmp_path):
    path = write_zip(tmp_path / "x.pt", MEMBERS)

    assert contents(path) == by_zipfile(path) == {name.split("/", 1)[1]: content for name, content in MEMBERS}


def of_torch(change):
    """A maker of contents: a file by `torch.save`, with both forms of the directory's end, and a change to it."""

    def make(path: Path) -> bytes:
        return change(bytearray(saved(path, caa()).read_bytes()))

    return make


def by_hand(change):
    return lambda path: change(bytearray(write_zip(path, MEMBERS).read_bytes()))


def put(content: bytearray, place: int, form: str, value: int) -> bytes:
    struct.pack_into(form, content, place, value)
    return bytes(content)


def entry(field: int, form: str, value: int):
    """A change to the first entry of the directory."""
    return lambda content: put(content, content.index(b"PK\x01\x02") + field, form, value)


def end(field: int, form: str, value: int):
    """A change to the end of the directory, counted from its own beginning."""
    return lambda content: put(content, len(content) - 22 + field, form, value)


def long_end(field: int, form: str, value: int):
    return lambda content: put(content, content.index(b"PK\x06\x06") + field, form, value)


BAD = {
    "one of the two ends counts less": (of_torch(end(10, "<H", 1)), "two directories that differ"),
    "one of the two ends starts elsewhere": (of_torch(long_end(48, "<Q", 0)), "two directories that differ"),
    "one of the two ends is shorter": (of_torch(long_end(40, "<Q", 46)), "two directories that differ"),
    "a long end that is longer": (of_torch(long_end(4, "<Q", 100)), "two directories that differ"),
    "a locator of another place": (
        of_torch(lambda content: put(content, content.index(b"PK\x06\x07") + 8, "<Q", 0)),
        "two directories that differ",
    ),
    "a gap before the end": (
        by_hand(lambda content: bytes(content[:-22] + b"gap" + content[-22:])),
        "not where its end says",
    ),
    "something before the beginning": (by_hand(lambda content: b"#!" + bytes(content)), "not where its end says"),
    "several disks": (by_hand(end(4, "<H", 1)), "not where its end says"),
    "other counts on this disk": (by_hand(end(8, "<H", 2)), "not where its end says"),
    "fewer members than entries": (
        by_hand(lambda content: put(bytearray(put(content, len(content) - 14, "<H", 2)), len(content) - 12, "<H", 2)),
        "directory is damaged",
    ),
    "more members than entries": (
        by_hand(lambda content: put(bytearray(put(content, len(content) - 14, "<H", 4)), len(content) - 12, "<H", 4)),
        "directory is damaged",
    ),
    "a comment that is announced": (by_hand(end(20, "<H", 2)), "no zip directory at its end"),
    "a compressed member": (by_hand(entry(10, "<H", 8)), "compressed or encrypted"),
    "an encrypted member": (by_hand(entry(8, "<H", 1)), "compressed or encrypted"),
    "a member of two sizes": (by_hand(entry(20, "<I", 3)), "compressed or encrypted"),
    "a member on another disk": (by_hand(entry(34, "<H", 1)), "fields that torch.save does not write"),
    "a member with a comment": (by_hand(entry(32, "<H", 1)), "fields that torch.save does not write"),
    "a member with an extra field": (by_hand(entry(30, "<H", 1)), "fields that torch.save does not write"),
    "a member whose size stands elsewhere": (
        by_hand(lambda content: entry(24, "<I", 0xFFFFFFFF)(bytearray(entry(20, "<I", 0xFFFFFFFF)(content)))),
        "fields that torch.save does not write",
    ),
    "a member that reaches into the directory": (
        by_hand(lambda content: entry(24, "<I", 5000)(bytearray(entry(20, "<I", 5000)(content)))),
        "overlap, stand twice or reach beyond",
    ),
    "a member in the directory": (by_hand(entry(42, "<I", 5000)), "header is not the one in the directory"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_an_archive_that_could_be_read_in_two_ways_is_refused(tmp_path, make, message):
    path = tmp_path / "x.pt"
    path.write_bytes(make(path))

    with pytest.raises(FormatError, match=f"^x.pt: .*{message}") as caught:
        contents(path)

    assert caught.value.file == "x.pt"


def test_members_of_the_directory_stand_in_any_order(tmp_path):
    path = write_zip(tmp_path / "x.pt", MEMBERS)
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    entries = [b"PK\x01\x02" + part for part in content[start:-22].split(b"PK\x01\x02")[1:]]
    path.write_bytes(content[:start] + b"".join(reversed(entries)) + content[-22:])

    assert contents(path) == by_zipfile(path)
