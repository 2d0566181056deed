"""Properties of readers beyond refusing by the right error: what is accepted means what everybody else reads."""

from __future__ import annotations

import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from studies import provenance

from fuzz import assemble as a
from fuzz import corpus, mutations, text_mutations, torch_mutations
from fuzz.readers import described
from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats import strict_yaml
from steer_eval.formats.caa_pt import read_caa_pt
from steer_eval.formats.pickle_program import ArraySpec, RefusedPickleError, TensorSpec, interpret, run
from steer_eval.formats.sae import TopKSae, read_sae_pt
from steer_eval.formats.saelens import read_saelens, write_saelens
from steer_eval.formats.safetensors_file import ITEM_BYTES
from steer_eval.formats.safetensors_file import read_header as read_safetensors_header
from steer_eval.formats.strict_json import parse as parse_json
from steer_eval.formats.strict_json import read_json, scan_json, write_json
from steer_eval.formats.torch_file import _numpy_globals, read_header, read_torch
from steer_eval.formats.vector import SteeringVector, read_vector, write_vector

KINDS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
SHAPES = st.lists(st.integers(0, 4), max_size=4)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(codec="utf-8"), max_size=6)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A tensor of any type and shape; some are views, transposed or parameters."""
    tensor = torch.ones(draw(SHAPES)).to(draw(st.sampled_from(KINDS)))
    if draw(st.booleans()) and tensor.dim() >= 2:
        tensor = tensor.transpose(0, 1)
    if draw(st.booleans()) and tensor.dim():
        tensor = tensor[draw(st.integers(0, tensor.shape[0])) :]
    if draw(st.booleans()) and tensor.is_floating_point():
        return torch.nn.Parameter(tensor, draw(st.booleans()))
    return tensor


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    array = np.ones(shape, draw(st.sampled_from(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"))))
    return np.asfortranarray(array) if draw(st.booleans()) else array


LEAVES = (
    tensors()
    | arrays()
    | NAMES
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.none()
    | st.booleans()
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(NAMES, inner, max_size=3)
        | st.dictionaries(NAMES, inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES | st.integers(10, 20), TREES, max_size=3))
def test_the_header_is_what_pytorch_loads(value):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        torch.save(value, path)
        trusted = torch.load(path, weights_only=False)

        header = read_header(path)
        file = read_torch(path)

        assert header == described(trusted)
        assert file.header == header
        assert described(file.content) == header


def loaded(pickled: bytes, sizes: dict[str, int]) -> Any:
    """What PyTorch alone makes of a pickle beside records of the sizes that it asks for."""
    records = {record.removeprefix("data/"): bytes(size) for record, size in sizes.items()}
    file = a.archive(a.members(pickled, records))
    with torch.serialization.safe_globals(_numpy_globals()):
        return torch.load(io.BytesIO(file), weights_only=True, map_location="cpu")


def plain(value: Any) -> Any:
    """Specs as `described` has what they stand for."""
    if isinstance(value, TensorSpec | ArraySpec):
        return {"dtype": value.dtype, "shape": list(value.shape)}
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


SEEDS = corpus.pickle_seeds(
    (*corpus.caa_seeds(), *corpus.torch_seeds(corpus.sae(), corpus.misc(), corpus.transfer_map(arrays=True)))
)


@settings(max_examples=600, deadline=None)
@given(st.integers(0, 2**40))
def test_pytorch_loads_what_the_interpreter_accepts_as_it_says(seed):
    pickled = mutations.mutated(SEEDS, [torch_mutations.pickle_program], Random(seed))  # noqa: S311
    try:
        program = run(pickled)
    except RefusedPickleError:
        return
    try:
        said = repr(plain(program.value))
    except RecursionError:
        # A value that holds itself: PyTorch makes it too, and the reader refuses it by its depth.
        return
    assert repr(plain(interpret(pickled))) == said
    sizes = {storage.record: storage.elements * storage.item_bytes for storage in program.storages}
    # The reader asks for records of these sizes, and refuses a tuple with parts that are no values.
    if sum(sizes.values()) > 2**20 or any(
        f"{kind}(" in repr(program.value) for kind in ("Global", "RawBytes", "Dtype", "StorageSpec", "PendingArray")
    ):
        return
    content = loaded(pickled, sizes)

    assert repr(described(content, top=False)) == said


def test_the_mutations_of_pickles_are_often_accepted():
    accepted = 0
    for seed in range(300):
        pickled = torch_mutations.pickle_program(Random(seed).choice(SEEDS), Random(seed), SEEDS)  # noqa: S311
        try:
            run(pickled)
        except RefusedPickleError:
            continue
        accepted += 1

    assert accepted > 15


@settings(max_examples=100, deadline=None)
@given(TREES.filter(lambda tree: "tensor" not in repr(tree).lower() and "array" not in repr(tree)))
def test_a_pickle_of_plain_values_is_its_value(value):
    assert plain(interpret(pickle.dumps(value, 2))) == plain(value)


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=9), st.sampled_from((torch.float32, torch.float16, torch.bfloat16)), NAMES)
def test_a_vector_is_read_with_its_bits_or_named_as_not_finite(floats, dtype, model):
    vector = torch.tensor(floats).to(dtype)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        torch.save(corpus.caa(vector=vector, model=f"lab/{model}"), path)
        if not vector.isfinite().all():
            with pytest.raises(NotFiniteError):
                read_caa_pt(path)
            return
        read = read_caa_pt(path)

        assert torch.equal(torch.from_numpy(read.values.copy()).to(dtype), vector)
        assert (read.layer, read.provenance["model"], read.provenance["n_pairs"]) == (3, f"lab/{model}", "4")


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=9), st.integers(0, 9999))
def test_a_vector_in_safetensors_is_read_as_it_was_written(floats, layer):
    values = np.array(floats, dtype=np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "v.safetensors"
        write_vector(path, SteeringVector(values, layer, provenance("tiny", layer, 1.0)))
        read = read_vector(path)

        assert read.values.tobytes() == values.tobytes()
        assert read.layer == layer


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from(corpus.DTYPES), st.integers(0, 99), st.integers(0, 2**31))
def test_an_sae_goes_round_through_both_of_its_formats(d_in, d_sae, dtype, layer, seed):
    made = torch.Generator().manual_seed(seed)
    w_enc, w_dec = (torch.randn(shape, generator=made).to(dtype) for shape in ((d_in, d_sae), (d_sae, d_in)))
    b_enc, b_dec = (torch.randn(size, generator=made).to(dtype) for size in (d_sae, d_in))
    sae = TopKSae(w_enc, b_enc, w_dec, b_dec, 1, layer, "lab/tiny", {})
    document = {"d_model": d_in, "d_sae": d_sae, "k": 1, "layer": layer, "model_id": "lab/tiny"}
    with TemporaryDirectory() as folder:
        write_saelens(Path(folder) / "sae", sae)
        torch.save({"state_dict": sae.tensors(), **document}, Path(folder) / "sae.pt")
        for read in (read_saelens(Path(folder) / "sae"), read_sae_pt(Path(folder) / "sae.pt")):
            assert (read.k, read.layer, read.model, read.d_in, read.d_sae) == (1, layer, "lab/tiny", d_in, d_sae)
            for name, tensor in sae.tensors().items():
                assert read.tensors()[name].dtype == dtype
                assert torch.equal(read.tensors()[name], tensor)


SAFETENSORS_KINDS = {kind: str(kind).removeprefix("torch.") for kind in KINDS}


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), tensors(), max_size=4),
    # The library writes no JSON where there are neither tensors nor metadata but a dict for them.
    st.dictionaries(NAMES, NAMES, min_size=1, max_size=3) | st.none(),
)
def test_the_library_and_the_header_agree_on_safetensors(named, metadata):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in named.items()}, path, metadata)
        header = read_safetensors_header(path, name="x")

        assert header.pop("__metadata__", None) == metadata
        assert {name: entry["shape"] for name, entry in header.items()} == {
            name: list(tensor.shape) for name, tensor in named.items()
        }


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**40))
def test_what_the_header_says_the_library_loads(seed):
    content = mutations.mutated(corpus.safetensors_seeds(), text_mutations.SAFETENSORS, Random(seed))  # noqa: S311
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(content)
        try:
            header = read_safetensors_header(path, name="x")
        except FormatError:
            return
        try:
            opened = safe_open(path, framework="np")
        except SafetensorError:
            # The library refuses more, never less: what it calls by other names, and sizes that it can't count.
            return
        names = set(header) - {"__metadata__"}
        assert set(opened.keys()) == names
        for name in names:
            described_there = opened.get_slice(name)
            assert described_there.get_shape() == header[name]["shape"]
            assert described_there.get_dtype() == header[name]["dtype"]
            assert header[name]["dtype"] in ITEM_BYTES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | FLOATS | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_json_goes_round(value):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        write_json(path, value)

        assert read_json(path) == value
        assert scan_json(path) == (value, [])


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**40))
def test_json_that_is_accepted_means_what_the_standard_library_reads(seed):
    content = mutations.mutated(corpus.json_seeds(), text_mutations.JSON, Random(seed))  # noqa: S311
    try:
        text = content.decode("utf-8")
        value = parse_json(text, "x", "")
    except (UnicodeDecodeError, FormatError):
        return
    assert value == json.loads(text)
    # Strict means that others read the same: no NaN, no key that stands twice, nothing but text.
    assert json.loads(json.dumps(value, allow_nan=False).encode("utf-8").decode("utf-8")) == value


@settings(max_examples=60, deadline=None)
@given(JSON, st.integers(0, 4))
def test_every_number_that_is_none_is_found_on_its_line(value, count):
    text = json.dumps([value, *[{"bad": float("nan")}] * count], indent=1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text(text, encoding="utf-8")
        scanned, errors = scan_json(path)

    assert scanned == [value, *[{"bad": None}] * count]
    lines = [number for number, line in enumerate(text.split("\n"), start=1) if line.strip() == '"bad": NaN']
    assert [error.where for error in errors] == [
        f"line {line}: [{index}].bad" for index, line in enumerate(lines, start=1)
    ]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**40))
def test_yaml_that_is_accepted_could_be_json(seed):
    content = mutations.mutated(corpus.yaml_seeds(), text_mutations.YAML, Random(seed))  # noqa: S311
    try:
        text = content.decode("utf-8")
        value = strict_yaml.parse(text, "x")
    except (UnicodeDecodeError, FormatError):
        return
    assert json.loads(json.dumps(value, allow_nan=False).encode("utf-8").decode("utf-8")) == value
    # Dates aside, which stay text, the safe loader reads the same.
    assert json.dumps(yaml.safe_load(text), default=lambda _: None).count("[") == json.dumps(value).count("[")
