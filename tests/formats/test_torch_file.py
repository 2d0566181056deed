"""What `torch.save` writes is read as `torch.load` reads it, and described without torch."""

from __future__ import annotations

import math
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pt_files import (
    bits,
    caa,
    described,
    dict_of,
    floats,
    sae,
    same,
    saved,
    tensor,
    transfer_map,
    transferred,
    with_pickle,
    write_archive,
)

from steer_eval.formats.torch_file import (
    read_header,
    read_torch,
)

TENSOR_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
ARRAY_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def assert_read(path: Path, value: object) -> None:
    """Check a file against what was saved, and against `torch.load` without any restriction."""
    trusted = torch.load(path, weights_only=False)
    assert same(trusted, value)
    file = read_torch(path)
    assert same(file.content, value)
    assert file.header == described(trusted)
    assert read_header(path) == described(value)


SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
TENSORS = st.builds(
    lambda dtype, shape, seed: torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).to(
        getattr(torch, dtype)
    ),
    st.sampled_from(TENSOR_DTYPES),
    SHAPES,
    st.integers(0, 99),
)
# numpy writes an array without elements through a function that no array with elements needs.
ARRAYS = st.builds(
    lambda dtype, shape, order: np.arange(math.prod(shape)).reshape(shape).astype(dtype, order=order),
    st.sampled_from(ARRAY_DTYPES),
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    st.sampled_from("CF"),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
)
VALUES = st.recursive(
    SCALARS | TENSORS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text("abc.", max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=4))
def test_what_torch_saves_is_read_as_torch_loads_it(value):
    with TemporaryDirectory() as folder:
        assert_read(saved(Path(folder) / "x.pt", value), value)


@pytest.mark.parametrize("dtype", TENSOR_DTYPES)
def test_every_bit_of_a_tensor_survives(tmp_path, dtype):
    # 0, 1, 0, 1, ...: all that a bool may hold; else any bytes.
    content = torch.arange(1024).remainder(2 if dtype == "bool" else 251).to(torch.uint8)
    value = {"x": content.view(getattr(torch, dtype)).reshape(2, -1)}

    assert_read(saved(tmp_path / "x.pt", value), value)


@pytest.mark.parametrize("dtype", ARRAY_DTYPES)
def test_every_bit_of_an_array_survives(tmp_path, dtype):
    content = (np.arange(1024) % (2 if dtype == "bool" else 251)).astype(np.uint8)
    value = {"x": content.view(dtype).reshape(2, -1), "one": content.view(dtype)[:1].reshape(())}

    assert_read(saved(tmp_path / "x.pt", value), value)


WIDE = torch.arange(24.0).reshape(4, 6)
ACCEPTED = {
    "vector": caa(),
    "half precision": caa(dtype=torch.float16),
    "bfloat16": caa(dtype=torch.bfloat16),
    "transferred": transferred(),
    "transfer map": transfer_map(),
    "sae": sae(),
    "nothing": {},
    "transposed": {"x": WIDE.T},
    "view into a larger storage": {"x": WIDE[1:3, ::2]},
    "two views of one storage": {"x": WIDE[0], "y": WIDE[:, 0]},
    "no elements": {"x": torch.zeros(0, 3)},
    "no dimensions": {"x": torch.tensor(1.5)},
    "number as key": {14: torch.ones(2), "15": 1},
    "Fortran order": {"x": np.asfortranarray(np.arange(6.0).reshape(2, 3))},
    "settings with a dtype": {"config": {"dtype": "float32", "shape": "wide"}, "other": {"shape": [3], "dtype": None}},
    "arrays in tuples": {"x": (np.ones(2), [np.zeros(1)], ((np.ones(1),),))},
}


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED)
def test_what_studies_need_is_read(tmp_path, value):
    assert_read(saved(tmp_path / "x.pt", value), value)


def test_the_state_of_a_module_is_read_with_its_metadata(tmp_path):
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    assert state._metadata
    path = saved(tmp_path / "x.pt", {"state_dict": state})

    assert read_header(path) == {"state_dict": described(state)}
    assert same(dict(read_torch(path).content["state_dict"]), dict(state))


def test_parameters_are_tensors(tmp_path):
    values = torch.nn.Parameter(torch.arange(4.0))
    path = saved(tmp_path / "x.pt", {"x": values, "y": torch.ones(2, requires_grad=True)})

    assert read_header(path) == {"x": described(values), "y": {"dtype": "float32", "shape": [2]}}
    assert bits(read_torch(path).content["x"]) == bits(values)


@pytest.mark.parametrize("value", [torch.arange(3.0), [1, torch.ones(2)], "text", None, 3], ids=repr)
def test_what_is_no_dict_stands_under_the_empty_key(tmp_path, value):
    path = saved(tmp_path / "x.pt", value)

    assert read_header(path) == {"": described(value)}
    assert same(read_torch(path).content, {"": value})


@pytest.mark.parametrize("key", ["collections", "ordered"])
def test_an_ordered_dict_is_a_dict(tmp_path, key):
    value = OrderedDict({key: 1, "x": torch.ones(2)})

    assert read_header(saved(tmp_path / "x.pt", value)) == described(value)


def test_numpy_1_names_are_read_as_those_of_numpy_2(tmp_path):
    value = {"W": np.arange(6, dtype=np.float32).reshape(2, 3), "alpha": np.float64(2.5)}
    path = with_pickle(saved(tmp_path / "x.pt", value), b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(path) as archive:
        assert b"numpy._core" not in archive.read("x/data.pkl")

    file = read_torch(path)
    assert same(file.content, value)
    assert file.header == {"W": {"dtype": "float32", "shape": [2, 3]}, "alpha": 2.5}


@pytest.mark.parametrize("scalar", [np.float32(0.1), np.float64(0.1), np.float16(0.5), np.int64(-3), np.bool_(True)])
def test_a_numpy_scalar_is_a_plain_number_in_the_header(tmp_path, scalar):
    header = read_torch(saved(tmp_path / "x.pt", {"x": scalar})).header

    assert header == {"x": scalar.item()}
    assert type(header["x"]) is type(scalar.item())


def test_a_header_is_read_without_torch_and_numpy(tmp_path):
    saved(tmp_path / "x.pt", {**transfer_map(), "vector": torch.ones(3)})
    code = (
        "import sys; from pathlib import Path; from steer_eval.formats.torch_file import read_header;"
        f"print(read_header(Path({str(tmp_path / 'x.pt')!r}))['vector']);"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "{'dtype': 'float32', 'shape': [3]}", done.stderr
    assert done.returncode == 0, done.stderr


def test_the_published_files_are_read(upstream):
    files = sorted((upstream / "model" / "vectors").glob("*.pt"))
    assert len(files) == 14
    for file in files:
        assert_read(file, torch.load(file, weights_only=False))


@pytest.mark.parametrize("location", ["cuda:0", "mps", "meta", "nowhere"])
def test_tensors_of_any_device_come_to_the_cpu(tmp_path, location):
    path = write_archive(tmp_path / "x.pt", dict_of(tensor([2], [1], location=location)), floats(1, 2))

    assert same(read_torch(path).content, {"value": torch.tensor([1.0, 2.0])})
