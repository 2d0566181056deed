from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pt_files import bits, caa, saved

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.caa_pt import exact_floats, read_caa_pt

VALUES = arrays(
    np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
).filter(len)


@settings(max_examples=30, deadline=None)
@given(VALUES, st.integers(0, 9999), st.booleans())
def test_every_bit_survives(values, layer, as_array):
    content = {**caa(layer=layer), "vector": values if as_array else torch.from_numpy(values)}
    with TemporaryDirectory() as folder:
        vector = read_caa_pt(saved(Path(folder) / "x.pt", content))

        assert vector.values.dtype == np.float32
        assert vector.values.tobytes() == values.tobytes()
        assert vector.layer == layer


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_number_is_read_exactly(tmp_path, dtype):
    values = torch.arange(2**16).to(torch.uint16).view(dtype)
    values = values[values.isfinite()]
    vector = read_caa_pt(saved(tmp_path / "x.pt", {**caa(), "vector": values}))

    assert bits(torch.from_numpy(vector.values).to(dtype)) == bits(values)
    assert vector.provenance["dtype"] == str(dtype).removeprefix("torch.")


def test_half_precision_arrays_are_read_exactly(tmp_path):
    values = np.arange(2**16).astype(np.uint16).view(np.float16)
    values = values[np.isfinite(values)]
    vector = read_caa_pt(saved(tmp_path / "x.pt", {**caa(), "vector": values}))

    assert vector.values.astype(np.float16).tobytes() == values.tobytes()


def test_the_provenance_is_what_the_file_records(tmp_path):
    content = caa(layer=7)
    vector = read_caa_pt(saved(tmp_path / "x.pt", {**content, "note": "not ours"}))

    assert vector.provenance == {
        "method": "caa",
        "dtype": "float32",
        "model": "lab/tiny-base",
        "norm": repr(content["norm"]),
        "layer": "7",
        "n_pairs": "80",
    }
    assert float(vector.provenance["norm"]) == pytest.approx(vector.norm, rel=1e-6)


def test_parameters_views_and_numpy_numbers_are_read(tmp_path):
    values = torch.arange(12.0).reshape(3, 4)
    content = {
        **caa(),
        "vector": torch.nn.Parameter(values)[:, 1].detach(),
        "norm": np.float64(2.5),
        "layer": np.int64(3),
    }
    vector = read_caa_pt(saved(tmp_path / "x.pt", content))

    assert vector.values.tolist() == [1.0, 5.0, 9.0]
    assert (vector.layer, vector.provenance["norm"]) == (3, "2.5")


def test_floats_of_float32_are_not_copied():
    values = torch.arange(4.0)
    array = np.arange(4, dtype=np.float32)

    assert exact_floats(values).ctypes.data == values.data_ptr()
    assert exact_floats(array) is array


BAD = {
    "double precision": ({"vector": torch.ones(4, dtype=torch.float64)}, "vector.dtype"),
    "integers": ({"vector": torch.ones(4, dtype=torch.int64)}, "vector.dtype"),
    "matrix": ({"vector": torch.ones(2, 2)}, "vector.shape"),
    "scalar": ({"vector": torch.tensor(1.0)}, "vector.shape"),
    "nothing": ({"vector": torch.ones(0)}, "vector.shape[0]"),
    "list": ({"vector": [1.0, 2.0]}, "vector"),
    "vector absent": ({"vector": None}, "vector"),
    "layer of a float": ({"layer": 14.0}, "layer"),
    "layer of a truth": ({"layer": True}, "layer"),
    "negative layer": ({"layer": -1}, "layer"),
    "layer of many": ({"layer": [14, 15]}, "layer"),
    "norm of a tensor": ({"norm": torch.tensor(1.0)}, "norm"),
    "negative norm": ({"norm": -1.0}, "norm"),
    "model of no name": ({"model": ""}, "model"),
    "model of a long name": ({"model": "x" * 257}, "model"),
    "no pairs": ({"n_pairs": 0}, "n_pairs"),
}


@pytest.mark.parametrize(("change", "where"), BAD.values(), ids=BAD)
def test_what_breaks_the_schema_is_named(tmp_path, change, where):
    path = saved(tmp_path / "x.pt", {**caa(), **change})

    with pytest.raises(FormatError) as caught:
        read_caa_pt(path, name="vectors/x.pt")

    assert (caught.value.file, caught.value.where) == ("vectors/x.pt", where)
    assert "schemas/caa_pt.schema.json" in caught.value.fix


@pytest.mark.parametrize("field", ["vector", "norm", "layer", "model", "n_pairs"])
def test_every_field_is_needed(tmp_path, field):
    content = caa()
    del content[field]

    with pytest.raises(FormatError, match=f"'{field}' is a required property"):
        read_caa_pt(saved(tmp_path / "x.pt", content))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_named_with_its_index(tmp_path, dtype, value):
    content = caa(dtype=dtype)
    content["vector"][5] = value

    with pytest.raises(NotFiniteError, match=r"^vectors/x.pt: vector\[5\]: ") as caught:
        read_caa_pt(saved(tmp_path / "x.pt", content), name="vectors/x.pt")

    assert caught.value.observed == str(np.float32(value))


def test_a_norm_that_is_no_number_is_named(tmp_path):
    with pytest.raises(NotFiniteError, match="norm"):
        read_caa_pt(saved(tmp_path / "x.pt", {**caa(), "norm": math.nan}))


def test_the_published_vectors_are_read(upstream):
    files = sorted((upstream / "model" / "vectors").glob("*_L*_caa.pt"))
    assert len(files) == 13
    for file in files:
        content = torch.load(file, weights_only=True)
        vector = read_caa_pt(file)
        assert vector.values.tobytes() == bits(content["vector"])
        assert vector.layer == content["layer"]
        assert vector.provenance == {
            "method": "caa",
            "dtype": "float32",
            **{key: value if key == "model" else repr(value) for key, value in content.items() if key != "vector"},
        }
        assert vector.norm == pytest.approx(content["norm"], rel=1e-6)
