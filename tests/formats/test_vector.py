from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file, safe_open
from studies import HEX, provenance

from steer_eval.errors import FormatError
from steer_eval.formats.vector import (
    MAX_FILE_BYTES,
    SteeringVector,
    cosine,
    file_name,
    parse_file_name,
    read_vector,
    write_vector,
)

VALUES = arrays(
    np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
).filter(len)


def a_vector(values: np.ndarray) -> SteeringVector:
    return SteeringVector(values, 7, provenance("tiny", 7, 1.0))


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_every_bit_survives_and_safetensors_reads_the_same(values):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vectors" / "v.safetensors"
        write_vector(path, a_vector(values))
        again = read_vector(path)

        assert again.values.tobytes() == values.tobytes()
        assert again.values.dtype == np.float32
        assert (again.layer, again.provenance) == (7, provenance("tiny", 7, 1.0))
        assert load_file(path)["vector"].numpy().tobytes() == values.tobytes()
        with safe_open(path, framework="pt") as opened:
            assert opened.metadata() == again.provenance
        assert [entry.name for entry in path.parent.iterdir()] == ["v.safetensors"]


def test_equal_vectors_are_equal_files(tmp_path):
    vector = a_vector(np.arange(8, dtype=np.float32))
    backwards = replace(vector, provenance=dict(reversed(vector.provenance.items())))
    strided = replace(vector, values=np.arange(16, dtype=np.float32)[::2] / 2)
    for name, value in {"a": vector, "b": backwards, "c": strided}.items():
        write_vector(tmp_path / name, value)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


HEADER = {
    "__metadata__": provenance("tiny", 7, 5.0),
    "vector": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
}
DATA = np.array([3, 4, 0, 0], dtype=np.float32).tobytes()


def file_of(header: object, data: bytes = DATA, *, length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def with_tensor(**changes: object) -> dict[str, object]:
    return {**HEADER, "vector": {**HEADER["vector"], **changes}}


def with_metadata(**changes: object) -> dict[str, object]:
    metadata = {**HEADER["__metadata__"], **changes}
    return {**HEADER, "__metadata__": {key: value for key, value in metadata.items() if value is not None}}


BAD_FILES = {
    "empty": (b"", "header length"),
    "seven bytes": (b"\0" * 7, "header length"),
    "huge header length": (file_of(HEADER, length=2**63), "header length"),
    "header longer than the file": (file_of(HEADER, length=10_000), "header length"),
    "header of no JSON": (file_of(b"{]" * 20), "header: not JSON"),
    "header of no object": (file_of(b"[1, 2]"), "no JSON object"),
    "deep header": (file_of(b"[" * 100_000), "header: .*nested too deeply"),
    "long integer in the header": (file_of(b'{"a": ' + b"9" * 5000 + b"}"), "header: an integer is too large"),
    "header not UTF-8": (file_of(b'{"\xff": 1}'), "not safetensors"),
    "no metadata": (file_of({"vector": HEADER["vector"]}), "__metadata__"),
    "other tensor": (
        file_of({**HEADER, "extra": {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]}}, DATA + bytes(4)),
        "extra",
    ),
    "two tensors of the same bytes": (file_of({**HEADER, "vectors": HEADER["vector"]}), "overlap"),
    "half precision": (file_of(with_tensor(dtype="F16", shape=[8])), "vector.dtype"),
    "double precision": (file_of(with_tensor(dtype="F64", shape=[2])), "vector.dtype"),
    "two dimensions": (file_of(with_tensor(shape=[2, 2])), "vector.shape"),
    "no dimension": (file_of(with_tensor(shape=[], data_offsets=[0, 4]), DATA[:4]), "vector.shape"),
    "no element": (file_of(with_tensor(shape=[0], data_offsets=[0, 0]), b""), "vector.shape"),
    "shape and data disagree": (file_of(with_tensor(shape=[5])), "not safetensors"),
    "impossible shape": (file_of(with_tensor(shape=[2**62])), "not safetensors"),
    "truncated": (file_of(HEADER)[:-1], "not safetensors"),
    "overlong": (file_of(HEADER) + b"\0", "not safetensors"),
    "layer is no number": (file_of(with_metadata(layer="seven")), "__metadata__.layer"),
    "layer of many digits": (file_of(with_metadata(layer="9" * 5000)), "__metadata__.layer"),
    "norm is no number": (file_of(with_metadata(norm="...")), "__metadata__.norm"),
    "no checksum": (file_of(with_metadata(pairs_sha256=None)), "pairs_sha256"),
    "NaN": (file_of(HEADER, DATA[:8] + struct.pack("<f", float("nan")) + DATA[:4]), r"vector\[2\]: .*not finite"),
    "infinity": (file_of(HEADER, DATA[:12] + struct.pack("<f", float("inf"))), r"vector\[3\]: .*not finite"),
}


def test_the_file_that_the_bad_ones_are_made_of_is_good(tmp_path):
    (tmp_path / "v").write_bytes(file_of(HEADER))

    assert read_vector(tmp_path / "v").norm == 5.0


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named(tmp_path, content, message):
    (tmp_path / "v").write_bytes(content)

    with pytest.raises(FormatError, match=message) as caught:
        read_vector(tmp_path / "v", name="vectors/v")

    assert caught.value.file == "vectors/v"


CONVERTED = {
    **{key: HEADER["__metadata__"][key] for key in ("format", "method", "model", "layer", "norm", "dtype")},
    "source_format": "caa-pt",
    "source_file": "vectors/tiny_L7_caa.pt",
    "source_sha256": HEX,
}


@pytest.mark.parametrize("more", [{}, {"n_pairs": "80"}, {"dtype": "bfloat16"}], ids=repr)
def test_a_converted_vector_names_its_source_in_place_of_a_measurement(tmp_path, more):
    vector = SteeringVector(np.arange(1, 5, dtype=np.float32), 7, {**CONVERTED, **more})
    write_vector(tmp_path / "v", vector)
    again = read_vector(tmp_path / "v")

    assert again.provenance == vector.provenance
    assert again.values.tobytes() == vector.values.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_file": None}, "'source_file' is a required property"),
        ({"source_sha256": None}, "'source_sha256' is a required property"),
        ({"source_sha256": "abc"}, "source_sha256"),
        ({"source_format": "hearsay"}, "source_format"),
        ({"source_format": None}, "is a required property"),
        ({"model": None}, "'model' is a required property"),
        ({"method": "By hand"}, "method"),
    ],
    ids=repr,
)
def test_a_vector_of_unknown_origin_is_refused(tmp_path, change, message):
    metadata = {key: value for key, value in {**CONVERTED, **change}.items() if value is not None}
    (tmp_path / "v").write_bytes(file_of({**HEADER, "__metadata__": metadata}))

    with pytest.raises(FormatError, match=f"^vectors/v: header: .*{message}"):
        read_vector(tmp_path / "v", name="vectors/v")


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "v").open("wb") as file:
        file.write(file_of(HEADER))
        file.truncate(MAX_FILE_BYTES + 1)

    with pytest.raises(FormatError, match=f"more than the {MAX_FILE_BYTES} that are read"):
        read_vector(tmp_path / "v")


@pytest.mark.parametrize("place", ["absent", "."])
def test_what_is_no_file_is_named(tmp_path, place):
    with pytest.raises(FormatError, match="vectors/v"):
        read_vector(tmp_path / place, name="vectors/v")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_files_are_vectors_or_format_errors(data):
    good = file_of(HEADER)
    content = data.draw(
        st.binary(max_size=80)
        | st.integers(0, len(good)).map(lambda end: good[:end])
        | st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)).map(
            lambda change: good[: change[0]] + bytes([change[1]]) + good[change[0] + 1 :]
        )
        | st.binary(max_size=60).map(file_of)
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "v"
        path.write_bytes(content)
        try:
            vector = read_vector(path)
        except FormatError:
            return
        assert np.isfinite(vector.values).all()
        assert vector.values.shape == (4,)


@pytest.mark.parametrize(
    "bad",
    [
        replace(a_vector(np.ones(4, np.float32)), provenance={"format": "steer-eval/vector/1"}),
        a_vector(np.ones((2, 2), np.float32)),
        a_vector(np.ones(0, np.float32)),
    ],
    ids=["provenance", "matrix", "empty"],
)
def test_what_can_not_be_read_is_not_written(tmp_path, bad):
    path = tmp_path / "v"
    path.write_bytes(b"old")

    with pytest.raises(FormatError):
        write_vector(path, bad)

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@given(st.from_regex(r"[a-z0-9][a-z0-9_]{0,8}", fullmatch=True), st.integers(0, 200))
def test_names_of_files_name_model_and_layer(model, layer):
    assert parse_file_name(file_name(model, layer)) == (model, layer)


@pytest.mark.parametrize("path", ["vectors/a_L1_caa.pt", "vectors/a_L_caa.safetensors", "a_Lx_caa.safetensors", ""])
def test_other_names_name_nothing(path):
    assert parse_file_name(path) is None


def test_norm_and_cosine_do_not_lose_float32_digits():
    first = a_vector(np.array([1e30, 1.0], dtype=np.float32))
    second = a_vector(np.array([0.0, 1e-30], dtype=np.float32))

    assert first.norm == pytest.approx(1e30, rel=1e-7)
    assert cosine(first, first) == pytest.approx(1.0, abs=1e-15)
    assert cosine(first, second) == pytest.approx(1e-30, rel=1e-6)
