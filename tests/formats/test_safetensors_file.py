from __future__ import annotations

import json
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from steer_eval.errors import FormatError
from steer_eval.formats.safetensors_file import ITEM_BYTES, MAX_DIMENSIONS, MAX_HEADER_BYTES, read_header, write_header

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
TENSORS = st.dictionaries(
    TEXT.filter(lambda name: name != "__metadata__"),
    st.builds(
        lambda dtype, shape: torch.ones(shape, dtype=DTYPES[dtype]),
        st.sampled_from(sorted(DTYPES)),
        st.lists(st.integers(0, 4), max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=4,
)
METADATA = st.dictionaries(TEXT, TEXT, max_size=3)


def test_every_dtype_has_the_bytes_that_it_has_in_torch():
    assert {code: dtype.itemsize for code, dtype in DTYPES.items()} == ITEM_BYTES


@settings(max_examples=60, deadline=None)
@given(TENSORS, METADATA)
def test_a_header_says_what_the_library_says(tensors, metadata):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_file(tensors, path, metadata)
        header = read_header(path, name="x")
        assert header.pop("__metadata__", {}) == metadata
        with safe_open(path, framework="pt") as opened:
            assert set(header) == set(opened.keys())
            for key, described in header.items():
                part = opened.get_slice(key)
                assert (described["dtype"], described["shape"]) == (part.get_dtype(), part.get_shape())


@settings(max_examples=60, deadline=None)
@given(TENSORS, METADATA)
def test_the_library_reads_what_is_written(tensors, metadata):
    described, content = {}, b""
    codes = {dtype: code for code, dtype in DTYPES.items()}
    for key, tensor in tensors.items():
        data = tensor.flatten().view(torch.uint8).numpy().tobytes()
        span = [len(content), len(content) + len(data)]
        described[key] = {"dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
        content += data
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(write_header(metadata, described) + content)
        assert read_header(path, name="x") == {"__metadata__": metadata, **described}
        again = load_file(path)
        assert {key: (each.dtype, each.shape) for key, each in again.items()} == {
            key: (each.dtype, each.shape) for key, each in tensors.items()
        }
        with safe_open(path, framework="pt") as opened:
            assert (opened.metadata() or {}) == metadata


def test_equal_metadata_makes_equal_headers_that_end_at_a_word():
    tensor = {"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}
    header = write_header({"b": "1", "a": "ü"}, tensor)

    assert header == write_header({"a": "ü", "b": "1"}, tensor)
    assert len(header) % 8 == 0


GOOD = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F16", "shape": [2, 1], "data_offsets": [8, 12]},
}
DATA = bytes(12)


def file_of(header: object = GOOD, data: bytes = DATA, *, length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def with_b(**changes: object) -> bytes:
    return file_of({**GOOD, "b": {**GOOD["b"], **changes}})


BAD_FILES = {
    "empty": (b"", "header length"),
    "no header": (file_of(b"", b""), "header length"),
    "seven bytes": (bytes(7), "header length"),
    "length beyond the file": (file_of(length=2**20), "header length"),
    "length of a sign": (file_of(length=2**64 - 1), "header length"),
    "header too long": (file_of(b"{" + b" " * MAX_HEADER_BYTES + b"}", b""), "header length"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "header length"),
    "no JSON": (file_of(b"[}"), "header: not JSON"),
    "no UTF-8": (file_of(b'{"\xff": 1}'), "not safetensors"),
    "no object": (file_of(b"[]", b""), "no JSON object"),
    "tensor twice": (file_of(b'{"a":1,"a":1}'), "'a' stands twice"),
    "too deep": (file_of(b"[" * 10_000), "nested too deeply"),
    "NaN": (file_of(b'{"a":NaN}'), "NaN is not JSON"),
    "metadata of numbers": (file_of({**GOOD, "__metadata__": {"layer": 14}}), "__metadata__: .*no strings"),
    "metadata of null": (file_of({**GOOD, "__metadata__": None}), "__metadata__"),
    "tensor of null": (file_of({"a": None}), "a: .*needs a known dtype"),
    "tensor of a list": (file_of({"a": ["dtype", "shape", "data_offsets"]}), "a: .*needs a known dtype"),
    "no dtype": (file_of({"a": {"shape": [2], "data_offsets": [0, 8]}}), "needs a known dtype"),
    "unknown dtype": (with_b(dtype="F4"), "b: .*needs a known dtype"),
    "dtype of a list": (with_b(dtype=["F16"]), "b: .*needs a known dtype"),
    "more about a tensor": (with_b(strides=[1]), "b: .*needs a known dtype"),
    "shape of a number": (with_b(shape=2), "b: .*needs a known dtype"),
    "shape of halves": (with_b(shape=[2.0, 1]), "b: .*needs a known dtype"),
    "shape of truths": (with_b(shape=[2, True]), "b: .*needs a known dtype"),
    "negative shape": (with_b(shape=[-2, -1]), "b: .*needs a known dtype"),
    "too many dimensions": (with_b(shape=[2] + [1] * MAX_DIMENSIONS), "b: .*needs a known dtype"),
    "one offset": (with_b(data_offsets=[8]), "b: .*needs a known dtype"),
    "three offsets": (with_b(data_offsets=[8, 10, 12]), "b: .*needs a known dtype"),
    "negative offsets": (with_b(data_offsets=[-4, 0]), "b: .*needs a known dtype"),
    "offsets backwards": (with_b(data_offsets=[12, 8]), "another length"),
    "shape and bytes differ": (with_b(shape=[3]), "b: .*another length"),
    "huge shape": (with_b(shape=[2**40, 2**40]), "b: .*another length"),
    "overlap": (with_b(data_offsets=[6, 10]), "b: .*overlap or leave a gap"),
    "gap": (with_b(data_offsets=[9, 13]), "b: .*overlap or leave a gap"),
    "first byte unused": (file_of({"a": {"dtype": "U8", "shape": [11], "data_offsets": [1, 12]}}), "leave a gap"),
    "too short": (file_of(data=bytes(11)), "do not fill"),
    "too long": (file_of(data=bytes(13)), "do not fill"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)

    with pytest.raises(FormatError, match=message) as caught:
        read_header(tmp_path / "x", name="vectors/x")

    assert caught.value.file == "vectors/x"
    assert len(str(caught.value)) < 400


def test_the_file_that_the_bad_ones_are_made_of_is_good(tmp_path):
    (tmp_path / "x").write_bytes(file_of())

    assert read_header(tmp_path / "x", name="x") == GOOD


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "x").write_bytes(file_of())
    size = (tmp_path / "x").stat().st_size

    assert read_header(tmp_path / "x", name="x", limit=size) == GOOD
    with pytest.raises(FormatError, match=f"{size} bytes, more than the {size - 1}"):
        read_header(tmp_path / "x", name="x", limit=size - 1)


@pytest.mark.parametrize(("place", "message"), [("absent", "absent"), (".", "not safetensors")])
def test_what_is_no_file_is_named(tmp_path, place, message):
    with pytest.raises(FormatError, match=f"^vectors/x: .*{message}"):
        read_header(tmp_path / place, name="vectors/x")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_passes_is_read_by_the_library(data):
    good = file_of()
    content = data.draw(
        st.binary(max_size=80)
        | st.integers(0, len(good)).map(lambda end: good[:end])
        | st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)).map(
            lambda change: good[: change[0]] + bytes([change[1]]) + good[change[0] + 1 :]
        )
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(content)
        try:
            header = read_header(path, name="x")
        except FormatError:
            return
        if content[8:9] != b"{":
            # JSON may begin with white space; the library wants the brace.
            return
        tensors = load_file(path)
        assert {key: list(tensor.shape) for key, tensor in tensors.items()} == {
            key: described["shape"] for key, described in header.items() if key != "__metadata__"
        }
