"""Archives that are no good ones: made wrong on purpose, and damaged at random."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pt_files import (
    FOLDER,
    call,
    described,
    dict_of,
    floats,
    latin,
    mapping,
    named,
    number,
    numpy_array,
    numpy_dtype,
    program,
    same,
    saved,
    tensor,
    text,
    with_directory,
    with_member_inside,
    write_archive,
    write_zip,
)

from steer_eval.errors import FormatError
from steer_eval.formats.torch_file import (
    MAX_FILE_BYTES,
    MAX_PICKLE_BYTES,
    read_torch,
)
from steer_eval.formats.zip_records import MAX_MEMBERS

ONE = dict_of(tensor([2], [1]))
RECORD = floats(1, 2)


def damaged(change):
    """A maker of files: a good archive, and a change to its bytes."""

    def make(path: Path) -> None:
        write_archive(path, ONE, RECORD)
        path.write_bytes(change(path.read_bytes()))

    return make


def archive(*records: bytes, pickled: bytes = ONE, **options):
    return lambda path: write_archive(path, pickled, *records, **options)


def junk(name: str):
    return archive(RECORD, more=[(name, b"x")])


def directory(name: str, **fields: int):
    return lambda path: with_directory(write_archive(path, ONE, RECORD), name, **fields)


def many_members(path: Path) -> None:
    write_archive(path, ONE, *[RECORD] * (MAX_MEMBERS - 2))


def large_pickle(path: Path) -> None:
    """An archive with a pickle beyond the limit, as a hole in the file."""
    size = MAX_PICKLE_BYTES + 1
    write_zip(path, [(f"{FOLDER}/version", b"3\n"), (f"{FOLDER}/data.pkl", b"")])
    content = with_directory(path, "data.pkl", size=size, compressed=size).read_bytes()
    start = content.index(b"PK\1\2")
    with path.open("wb") as file:
        file.write(content[:start])
        file.seek(start + size)
        file.write(content[start:-6] + struct.pack("<IH", start + size, 0))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)


BAD_FILES = {
    "empty": (lambda path: path.write_bytes(b""), "not a PyTorch file"),
    "text": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "not a PyTorch file"),
    "bare pickle": (lambda path: path.write_bytes(pickle.dumps({}, protocol=2)), "bare pickle"),
    "bare pickle of protocol 5": (lambda path: path.write_bytes(pickle.dumps({}, protocol=5)), "bare pickle"),
    "before the archives": (
        lambda path: saved(path, {"x": torch.ones(2)}, _use_new_zipfile_serialization=False),
        "saved by an old torch.save",
    ),
    "TorchScript": (
        lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path),
        "code/__torch__.* is compressed",
    ),
    "no members": (lambda path: write_zip(path, []), "0 members"),
    "too many members": (many_members, f"{MAX_MEMBERS + 1} members"),
    "version of the future": (archive(RECORD, version=b"9999"), "the file is refused: "),
    "pickle too large": (large_pickle, "data.pkl: the pickle has more than"),
    "too large": (sparse, "4294967297 bytes, more than"),
    "no pickle": (lambda path: write_zip(path, [(f"{FOLDER}/version", b"3\n")]), "no data.pkl"),
    "no version": (archive(RECORD, version=None), "no version"),
    "version that is no number": (archive(RECORD, version=b"three"), "version is no number"),
    "comment": (archive(RECORD, comment=b"hello"), "not a PyTorch file"),
    "something before": (damaged(lambda content: b"\x7fELF" + content), "not where its end says"),
    "something behind": (damaged(lambda content: content + b"more"), "not a PyTorch file"),
    "compressed": (archive(RECORD, deflate=True), "compressed"),
    "encrypted": (directory("data/0", flags=1), "compressed or encrypted"),
    "big-endian": (archive(RECORD, byteorder=b"big"), "byteorder: the tensors are not little-endian"),
    "byte order with more": (archive(RECORD, byteorder=b"littlebig"), "not little-endian"),
    "two folders": (junk("other/data/1"), "no part of a tensor file"),
    "no folder": (junk("data.pkl"), "no part of a tensor file"),
    "code": (junk(f"{FOLDER}/code/__torch__.py"), "code/__torch__.py.* no part of a tensor file"),
    "constants": (junk(f"{FOLDER}/constants.pkl"), "no part of a tensor file"),
    "path out of the archive": (junk(f"{FOLDER}/data/../../x"), "no part of a tensor file"),
    "absolute path": (junk("/data/1"), "no part of a tensor file"),
    "record that is no number": (junk(f"{FOLDER}/data/x"), "no part of a tensor file"),
    "member twice": (junk(f"{FOLDER}/data/0"), "overlap, stand twice"),
    "member in another": (with_member_inside, "overlap, stand twice"),
    "two members at one place": (directory("data/0", offset=0), "not the one in the directory"),
    "member beyond the file": (directory("data/0", size=2**31, compressed=2**31), "beyond the file"),
    "member shorter than it is": (directory("data/0", size=4, compressed=4), "of 8 bytes, which is 4"),
    "other local name": (
        damaged(lambda content: content.replace(b"archive/data/0", b"archive/data/9", 1)),
        "not the one in the directory",
    ),
    "no local header": (damaged(lambda content: b"PK\3\5" + content[4:]), "not the one in the directory"),
    "cut short": (damaged(lambda content: content[:-30]), "not a PyTorch file"),
    "cut to its end": (damaged(lambda content: content[-22:]), "not where its end says"),
    "not aligned": (archive(RECORD, align=1), "not aligned"),
    "record absent": (archive(), "x.pt: value: the tensor needs a record data/0 of 8 bytes, which is absent"),
    "record of metadata absent": (
        archive(
            pickled=program(
                named("collections.OrderedDict") + b")R" + mapping(_metadata=mapping(x=tensor([2], [1]))) + b"b"
            )
        ),
        "x.pt: data.pkl: a tensor needs a record data/0 of 8 bytes, which is absent",
    ),
    "record too short": (archive(RECORD[:-1]), "which is 7 bytes long"),
    "record too long": (archive(RECORD + b"\0"), "which is 9 bytes long"),
    "record of another number": (
        archive(RECORD, pickled=dict_of(tensor([2], [1], record=text("00")))),
        "data/00 of 8 bytes, which is absent",
    ),
    "storage of exabytes": (
        archive(RECORD, pickled=dict_of(tensor([2], [1], elements=2**61))),
        "which is 8 bytes long",
    ),
    "folder": (Path.mkdir, "can't be read"),
    "absent": (Path.exists, "the file is absent"),
}


@pytest.mark.parametrize(("make", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named(tmp_path, make, message):
    make(tmp_path / "x.pt")

    with pytest.raises(FormatError, match=message) as caught:
        read_torch(tmp_path / "x.pt", name="model/x.pt")

    assert caught.value.file == "model/x.pt"
    assert str(caught.value).startswith("model/x.pt: ")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("byteorder", [b"little", None], ids=repr)
def test_the_archive_that_the_bad_ones_are_made_of_is_good(tmp_path, byteorder):
    path = write_archive(tmp_path / "x.pt", ONE, RECORD, byteorder=byteorder)

    assert same(read_torch(path).content, {"value": torch.tensor([1.0, 2.0])})


MIXED = program(
    mapping(
        a=tensor([2, 2], [2, 1], elements=6, offset=1),
        b=numpy_array([2], floats(1, 2)),
        c=call("numpy._core.multiarray.scalar", numpy_dtype(), latin(floats(3))),
        d=call("torch._utils._rebuild_parameter", tensor([6], [1]), b"\x88", named("collections.OrderedDict") + b")R"),
        e=b"](" + number(1) + number(2.5) + text("x") + b"e",
    )
)


def changed(content: bytes):
    """Content with a few bytes replaced, or cut off."""
    return st.integers(0, len(content)).map(lambda end: content[:end]) | st.tuples(
        st.integers(0, len(content) - 1), st.binary(min_size=1, max_size=3)
    ).map(lambda change: content[: change[0]] + change[1] + content[change[0] + len(change[1]) :])


def assert_read_or_refused(path: Path) -> None:
    try:
        file = read_torch(path)
    except FormatError:
        return
    # Numbers of numpy are plain ones in the header, and keys texts.
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in file.content.items()}
    assert file.header == described(plain)


@settings(max_examples=200, deadline=None)
@given(changed(MIXED))
def test_a_damaged_pickle_is_read_as_torch_reads_it_or_refused(pickled):
    with TemporaryDirectory() as folder:
        assert_read_or_refused(write_archive(Path(folder) / "x.pt", pickled, floats(*range(6))))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_read_as_torch_reads_it_or_refused(data):
    with TemporaryDirectory() as folder:
        path = write_archive(Path(folder) / "x.pt", MIXED, floats(*range(6)))
        path.write_bytes(data.draw(changed(path.read_bytes())))
        assert_read_or_refused(path)
