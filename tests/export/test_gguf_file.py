from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steer_eval.errors import FormatError
from steer_eval.export.gguf_file import (
    MAX_ALIGNMENT,
    MAX_ARRAY,
    MAX_FILE_BYTES,
    MAX_KEYS,
    MAX_STRING_BYTES,
    MAX_TENSORS,
    read_gguf,
    to_bytes,
)

KEYS = {"general.architecture": "controlvector", "a.text": "wü", "a.number": 2**32 - 1, "a.empty": ""}
# Sizes whose bytes are more, fewer and exactly the alignment.
TENSORS = {f"direction.{n}": np.arange(n, dtype=np.float32) / 3 for n in (1, 8, 9, 576)}


def written(folder: Path, content: bytes) -> Path:
    path = folder / "v.gguf"
    path.write_bytes(content)
    return path


def test_the_gguf_package_reads_the_same(tmp_path):
    reader = GGUFReader(written(tmp_path, to_bytes(KEYS, TENSORS)))

    assert {name: reader.fields[name].contents() for name in KEYS} == KEYS
    assert reader.fields["a.number"].types == [GGUFValueType.UINT32]
    assert [tensor.name for tensor in reader.tensors] == list(TENSORS)
    for tensor in reader.tensors:
        assert tensor.data.tobytes() == TENSORS[tensor.name].tobytes()
        assert tensor.tensor_type.name == "F32"


def test_the_gguf_package_writes_the_same_bytes(tmp_path):
    writer = GGUFWriter(tmp_path / "theirs.gguf", "controlvector")
    writer.add_string("a.text", "wü")
    writer.add_uint32("a.number", 2**32 - 1)
    for name, values in TENSORS.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    keys = {name: value for name, value in KEYS.items() if name != "a.empty"}
    assert (tmp_path / "theirs.gguf").read_bytes() == to_bytes(keys, TENSORS)


@pytest.mark.parametrize("alignment", [None, 64, 1024])
def test_what_the_gguf_package_writes_is_read(tmp_path, alignment):
    writer = GGUFWriter(tmp_path / "v.gguf", "controlvector")
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_array("a.layers", [3, 1, 2])
    writer.add_array("a.names", ["x", "yz"])
    writer.add_bool("a.flag", True)
    writer.add_float64("a.float", 0.1)
    writer.add_int64("a.integer", -5)
    writer.add_tensor("single", np.array([1.5, -2.0, 3.25], dtype=np.float32))
    writer.add_tensor("half", np.array([0.1, 65504.0], dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    file = read_gguf(tmp_path / "v.gguf")

    ours = {name: value for name, value in file.keys.items() if name.startswith("a.")}
    assert ours == {"a.layers": (3, 1, 2), "a.names": ("x", "yz"), "a.flag": True, "a.float": 0.1, "a.integer": -5}
    assert file.tensors["single"].tolist() == [1.5, -2.0, 3.25]
    assert file.tensors["half"].dtype == np.float16
    assert file.tensors["half"].tolist() == [float(np.float16(0.1)), 65504.0]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=40) | st.integers(0, 2**32 - 1), max_size=5).filter(
        lambda keys: "general.alignment" not in keys
    ),
    st.lists(st.integers(1, 40), max_size=5),
)
def test_everything_survives(keys, sizes):
    tensors = {f"t{index}": np.full(size, index, np.float32) for index, size in enumerate(sizes)}
    with TemporaryDirectory() as folder:
        file = read_gguf(written(Path(folder), to_bytes(keys, tensors)))
    assert file.keys == keys
    assert {name: values.tolist() for name, values in file.tensors.items()} == {
        name: values.tolist() for name, values in tensors.items()
    }


def string(text: bytes | str) -> bytes:
    encoded = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(encoded)) + encoded


def file_of(
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensors: list[bytes] = (),
    keys: list[bytes] = (),
    data: bytes = bytes(64),
    counts: tuple[int, int] | None = None,
) -> bytes:
    header = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(keys))))
    header += b"".join([*keys, *tensors])
    return header.ljust(-(-len(header) // 32) * 32, b"\0") + data


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def tensor(name: str = "t", *, shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def alignment(value: int) -> list[bytes]:
    return [key("general.alignment", 4, struct.pack("<I", value))]


def array(kind: int, count: int, data: bytes = b"") -> list[bytes]:
    return [key("k", 9, struct.pack("<IQ", kind, count) + data)]


BAD = {
    "empty": (b"", "ends inside the header|not a GGUF file"),
    "magic": (file_of(magic=b"GGML"), "not a GGUF file"),
    "version 1": (file_of(version=1), "version"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "byte order"),
    "too many tensors": (file_of(counts=(MAX_TENSORS + 1, 0)), "tensor_count: more than are read"),
    "too many keys": (file_of(counts=(0, MAX_KEYS + 1)), "key_count: more than are read"),
    "counts of a negative number": (file_of(counts=(2**64 - 1, 2**64 - 1)), "more than are read"),
    "tensors that are not there": (file_of(counts=(50, 0), data=b""), "ends inside the header"),
    "long string": (file_of(keys=[struct.pack("<Q", MAX_STRING_BYTES + 1)]), "more than are read"),
    "endless string": (file_of(keys=[struct.pack("<Q", 2**63)]), "more than are read"),
    "string past the end": (file_of(keys=[struct.pack("<Q", 5000)]), "ends inside the header"),
    "key not UTF-8": (file_of(keys=[string(b"\xff")]), "UTF-8"),
    "value not UTF-8": (file_of(keys=[key("k", 8, string(b"\xff"))]), "k: the text is not UTF-8"),
    "key twice": (file_of(keys=[key("k", 7, b"\1")] * 2), "k: the key is there twice"),
    "unknown type": (file_of(keys=[key("k", 13, b"\1")]), "k: a type of value"),
    "array of arrays": (file_of(keys=array(9, 1, struct.pack("<IQ", 4, 0))), "k: a type of value"),
    "long array": (file_of(keys=array(7, MAX_ARRAY + 1)), "k: more than are read"),
    "array past the end": (file_of(keys=array(10, MAX_ARRAY)), "ends inside the header"),
    "alignment 0": (file_of(keys=alignment(0)), "general.alignment"),
    "alignment 48": (file_of(keys=alignment(48)), "general.alignment"),
    "large alignment": (file_of(keys=alignment(2 * MAX_ALIGNMENT)), "general.alignment"),
    "alignment of a text": (file_of(keys=[key("general.alignment", 8, string("32"))]), "general.alignment"),
    "alignment that is true": (file_of(keys=[key("general.alignment", 7, b"\1")]), "general.alignment"),
    "tensor twice": (file_of(tensors=[tensor(), tensor(offset=32)]), "t: the tensor is there twice"),
    "no dimension": (file_of(tensors=[tensor(shape=())]), "t: only vectors are read"),
    "matrix": (file_of(tensors=[tensor(shape=(2, 2))]), "t: only vectors are read"),
    "many dimensions": (file_of(tensors=[string("t") + struct.pack("<I", 2**31)]), "t: only vectors are read"),
    "no element": (file_of(tensors=[tensor(shape=(0,))]), "t: the tensor is empty"),
    "quantised": (file_of(tensors=[tensor(kind=3)]), "t: a type that is not read"),
    "offset elsewhere": (file_of(tensors=[tensor(offset=32)]), "does not follow"),
    "offset outside": (file_of(tensors=[tensor(offset=2**63)]), "does not follow"),
    "overlap": (file_of(tensors=[tensor("a"), tensor("b")]), "b: the tensor does not follow"),
    "huge tensor": (file_of(tensors=[tensor(shape=(2**62,))]), "t: more than are read"),
    "tensor past the end": (file_of(tensors=[tensor(shape=(17,))]), "t: the file ends before"),
    "tensors past the end": (file_of(tensors=[tensor("a", shape=(16,)), tensor("b", offset=64)]), "b: the file ends"),
}


def test_the_file_that_the_bad_ones_are_made_of_is_good(tmp_path):
    file = read_gguf(written(tmp_path, file_of(tensors=[tensor()], keys=[key("k", 7, b"\1")])))

    assert file.keys == {"k": True}
    assert file.tensors["t"].tolist() == [0.0] * 4


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named(tmp_path, content, message):
    with pytest.raises(FormatError, match=message) as caught:
        read_gguf(written(tmp_path, content), name="calm.gguf")

    assert caught.value.file == "calm.gguf"


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "v").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)

    with pytest.raises(FormatError, match="more than the"):
        read_gguf(tmp_path / "v")


@pytest.mark.parametrize("place", ["absent", "."])
def test_what_is_no_file_is_named(tmp_path, place):
    with pytest.raises(FormatError, match="calm"):
        read_gguf(tmp_path / place, name="calm")


GOOD = file_of(tensors=[tensor("a"), tensor("b", offset=32)], keys=[*array(8, 2, string("x") * 2), *alignment(32)])


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=120).map(lambda tail: b"GGUF" + struct.pack("<I", 3) + tail)
    | st.integers(0, len(GOOD)).map(lambda end: GOOD[:end])
    | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
        lambda change: GOOD[: change[0]] + bytes([change[1]]) + GOOD[change[0] + 1 :]
    )
)
@example(GOOD)
def test_damaged_files_are_read_within_their_bounds_or_format_errors(content):
    with TemporaryDirectory() as folder:
        try:
            file = read_gguf(written(Path(folder), content))
        except FormatError:
            return
    assert sum(values.nbytes for values in file.tensors.values()) <= len(content)
