"""Transferred vectors and transfer maps in safetensors."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pt_files
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors import safe_open
from safetensors.numpy import load_file

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.safetensors_file import MAX_HEADER_BYTES
from steer_eval.formats.transfer import (
    MAX_VECTORS_BYTES,
    VECTORS,
    Centring,
    TransferMap,
    TransferredVectors,
    read_transfer_map,
    read_transfer_map_pt,
    read_transferred,
    read_transferred_pt,
    write_transfer_map,
    write_transferred,
)
from steer_eval.inventory import Root, take_inventory

HEX = "0123456789abcdef" * 4
ORIGIN = {"source_format": "transferred-pt", "source_file": "vectors/a.pt", "source_sha256": HEX}
MAP_ORIGIN = {**ORIGIN, "source_format": "transfer-map-pt"}
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def vectors_of(small: int = 6, large: int = 9, **changes: Any) -> TransferredVectors:
    rng = np.random.default_rng(3)
    carried = {key: rng.standard_normal(small).astype(np.float32) for key in ("ridge", "procrustes", "random")}
    native, source = (rng.standard_normal(size).astype(np.float32) for size in (small, large))
    return replace(TransferredVectors(carried, native, source, 14, 1.5, provenance=dict(ORIGIN)), **changes)


def map_of(**changes: Any) -> TransferMap:
    rng = np.random.default_rng(4)
    ridge, orthogonal = (rng.standard_normal((6, 4)).astype(np.float32) for _ in range(2))
    intercept = rng.standard_normal(4).astype(np.float32)
    return replace(TransferMap(ridge, intercept, orthogonal, 14, 12, 100.0, provenance=dict(MAP_ORIGIN)), **changes)


@st.composite
def some_vectors(draw: st.DrawFn) -> TransferredVectors:
    small, large = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    row = arrays(np.float32, small, elements=FLOATS)
    return TransferredVectors(
        carried={key: draw(row) for key in ("ridge", "procrustes", "random")},
        native=draw(row),
        source=draw(arrays(np.float32, large, elements=FLOATS)),
        layer=draw(st.integers(0, 9999)),
        coefficient=draw(st.floats(allow_nan=False, allow_infinity=False)),
        dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        provenance=draw(st.sampled_from([{}, ORIGIN])),
    )


@settings(max_examples=40, deadline=None)
@given(some_vectors())
def test_every_bit_of_transferred_vectors_survives(vectors: TransferredVectors) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "transfer" / "v.safetensors"
        write_transferred(path, vectors)
        again = read_transferred(path)
        tensors = load_file(path)

        assert [entry.name for entry in path.parent.iterdir()] == ["v.safetensors"]
    expected = {f"v_{key}": values for key, values in vectors.carried.items()}
    expected |= {"v_small_native": vectors.native, "v_large_source": vectors.source}
    assert {key: values.tobytes() for key, values in tensors.items()} == {
        key: values.tobytes() for key, values in expected.items()
    }
    assert all(again.carried[key].tobytes() == values.tobytes() for key, values in vectors.carried.items())
    assert again.native.tobytes() == vectors.native.tobytes()
    assert again.source.tobytes() == vectors.source.tobytes()
    assert (again.layer, again.dtype, again.provenance) == (vectors.layer, vectors.dtype, vectors.provenance)
    assert struct.pack("d", again.coefficient) == struct.pack("d", vectors.coefficient)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 6))
def test_every_bit_of_a_map_survives_in_its_orientation(data: st.DataObject, large: int, small: int) -> None:
    shapes = {key: (small, large) if data.draw(st.booleans()) else (large, small) for key in ("W", "R")}
    source = {
        **{key: data.draw(arrays(np.float32, shape, elements=FLOATS)) for key, shape in shapes.items()},
        "b": data.draw(arrays(np.float32, small, elements=FLOATS)),
        "L_large": 14,
        "L_small": 12,
        "alpha": data.draw(st.floats(0, allow_infinity=False)),
    }
    with TemporaryDirectory() as folder:
        original = read_transfer_map_pt(pt_files.saved(Path(folder) / "m.pt", source))
        write_transfer_map(Path(folder) / "m.safetensors", original)
        again = read_transfer_map(Path(folder) / "m.safetensors")
        tensors = load_file(Path(folder) / "m.safetensors")

    for key in ("W", "R", "b"):
        assert tensors[key].shape == source[key].shape
        assert tensors[key].tobytes() == source[key].tobytes()
    for key in ("ridge", "intercept", "orthogonal"):
        assert getattr(again, key).shape == getattr(original, key).shape
        assert getattr(again, key).tobytes() == getattr(original, key).tobytes()
    assert (again.transposed, again.layer_large, again.layer_small) == (original.transposed, 14, 12)
    assert struct.pack("d", again.alpha) == struct.pack("d", source["alpha"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_small_dtypes_are_widened_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    source = {key: value.to(dtype) if key.startswith("v_") else value for key, value in pt_files.transferred().items()}
    original = read_transferred_pt(pt_files.saved(tmp_path / "v.pt", source))
    write_transferred(tmp_path / "v.safetensors", original)

    assert read_transferred(tmp_path / "v.safetensors").dtype == str(dtype).removeprefix("torch.")
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        for key in VECTORS:
            wide = file.get_tensor(key)
            assert wide.dtype == torch.float32
            assert pt_files.bits(wide.to(dtype)) == pt_files.bits(source[key])


def test_several_dtypes_are_recorded_by_tensor(tmp_path: Path) -> None:
    source = pt_files.transfer_map()
    source["W"] = torch.from_numpy(source["W"]).to(torch.float16)
    original = read_transfer_map_pt(pt_files.saved(tmp_path / "m.pt", source))
    write_transfer_map(tmp_path / "m.safetensors", original)

    assert read_transfer_map(tmp_path / "m.safetensors").dtype == "W float16, b float32, R float32"


def test_an_array_in_fortran_order_keeps_its_shape(tmp_path: Path) -> None:
    """What `coefficients.T` of scikit-learn is when it is saved."""
    source = pt_files.transfer_map(6, 4)
    source["W"] = np.asfortranarray(source["W"])
    write_transfer_map(tmp_path / "m.safetensors", read_transfer_map_pt(pt_files.saved(tmp_path / "m.pt", source)))

    assert load_file(tmp_path / "m.safetensors")["W"].tobytes() == np.ascontiguousarray(source["W"]).tobytes()


def test_equal_values_are_equal_files(tmp_path: Path) -> None:
    vectors, maps = vectors_of(), map_of()
    backwards = dict(reversed(ORIGIN.items()))
    strided = np.repeat(vectors.native, 2)[::2]
    for name, value in {"a": vectors, "b": replace(vectors, provenance=backwards, native=strided)}.items():
        write_transferred(tmp_path / name, value)
    for name, ridge in {"c": maps.ridge, "d": np.asfortranarray(maps.ridge)}.items():
        write_transfer_map(tmp_path / name, replace(maps, ridge=ridge))

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()


def test_the_data_begin_at_a_multiple_of_eight(tmp_path: Path) -> None:
    write_transferred(tmp_path / "v.safetensors", vectors_of())
    [length] = struct.unpack("<Q", (tmp_path / "v.safetensors").read_bytes()[:8])

    assert length % 8 == 0


@pytest.mark.parametrize(
    ("value", "write"),
    [
        (vectors_of(provenance={"source_format": "transferred-pt"}), write_transferred),
        (vectors_of(provenance={**ORIGIN, "source_sha256": "short"}), write_transferred),
        (vectors_of(layer=10000), write_transferred),
        (map_of(provenance=ORIGIN), write_transfer_map),
        (map_of(alpha=-1.0), write_transfer_map),
        (map_of(alpha=float("inf")), write_transfer_map),
    ],
    ids=["no file", "bad checksum", "bad layer", "other format", "negative alpha", "infinite alpha"],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, value: Any, write: Any) -> None:
    with pytest.raises(FormatError):
        write(tmp_path / "x.safetensors", value)

    assert list(tmp_path.iterdir()) == []


def test_metadata_beyond_the_bound_of_the_reader_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="metadata"):
        write_transferred(
            tmp_path / "x.safetensors", vectors_of(provenance={**ORIGIN, "extra": "x" * MAX_HEADER_BYTES})
        )

    assert list(tmp_path.iterdir()) == []


def rewritten(path: Path, change: Any, data: bytes | None = None) -> Path:
    """Change the header of a file, and its data if given."""
    content = path.read_bytes()
    [length] = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + (content[8 + length :] if data is None else data))
    return path


BAD_HEADERS = {
    "no metadata": lambda header: header.pop("__metadata__"),
    "other format": lambda header: header["__metadata__"].update(format="steer-eval/vector/1"),
    "no coefficient": lambda header: header["__metadata__"].pop("c_small"),
    "coefficient in words": lambda header: header["__metadata__"].update(c_small="one"),
    "layer in words": lambda header: header["__metadata__"].update(L_small="14.0"),
    "half an origin": lambda header: header["__metadata__"].pop("source_sha256"),
    "half floats": lambda header: header["v_random"].update(dtype="F16", shape=[12]),
    "a matrix": lambda header: header["v_random"].update(shape=[2, 3]),
    "another name": lambda header: header.update(v_other=header.pop("v_random")),
    "a longer shape": lambda header: header["v_random"].update(shape=[7]),
    "an overlap": lambda header: header["v_random"].update(data_offsets=[0, 24]),
}


@pytest.mark.parametrize("change", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_bad_header_is_refused(tmp_path: Path, change: Any) -> None:
    write_transferred(tmp_path / "v.safetensors", vectors_of())

    with pytest.raises(FormatError, match=r"v\.safetensors"):
        read_transferred(rewritten(tmp_path / "v.safetensors", change))


def test_an_infinite_setting_in_finite_words_is_refused(tmp_path: Path) -> None:
    write_transferred(tmp_path / "v.safetensors", vectors_of())
    path = rewritten(tmp_path / "v.safetensors", lambda header: header["__metadata__"].update(c_small="1e999"))

    with pytest.raises(NotFiniteError, match="c_small"):
        read_transferred(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_refused_where_it_stands(tmp_path: Path, bad: float) -> None:
    maps = map_of()
    maps.orthogonal[2, 1] = bad
    write_transfer_map(tmp_path / "m.safetensors", maps)

    with pytest.raises(NotFiniteError, match=r"R\[2, 1\]"):
        read_transfer_map(tmp_path / "m.safetensors")


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    narrow = np.zeros(5, dtype=np.float32)
    write_transferred(tmp_path / "v.safetensors", vectors_of(native=narrow))
    write_transfer_map(tmp_path / "m.safetensors", map_of(intercept=narrow))
    write_transfer_map(tmp_path / "n.safetensors", map_of(orthogonal=np.zeros((7, 4), dtype=np.float32)))

    with pytest.raises(FormatError, match="another width"):
        read_transferred(tmp_path / "v.safetensors")
    with pytest.raises(FormatError, match="neither side"):
        read_transfer_map(tmp_path / "m.safetensors")
    with pytest.raises(FormatError, match="different shapes"):
        read_transfer_map(tmp_path / "n.safetensors")


def test_a_header_that_claims_too_much_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(FormatError, match="header length"):
        read_transferred(path)

    with path.open("wb") as file:
        file.truncate(MAX_VECTORS_BYTES + 1)
    with pytest.raises(FormatError, match="more than the"):
        read_transferred(path)
    with pytest.raises(FormatError, match="absent"):
        read_transfer_map(tmp_path / "nowhere.safetensors")


def centred_map(**changes: Any) -> TransferMap:
    large, small = (np.arange(size, dtype=np.float32) for size in (6, 4))
    return map_of(provenance={"random_seed": "3", "n_rows": "12"}, centring=Centring(large, small, 0.75), **changes)


def test_maps_with_means_and_a_scale_are_the_second_format(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_transfer_map(path, centred_map())

    again = read_transfer_map(path)

    with safe_open(path, "np") as file:
        assert file.metadata()["format"] == "steer-eval/transfer-map/2"
    assert again.centring is not None
    assert np.array_equal(again.centring.large, centred_map().centring.large)
    assert np.array_equal(again.centring.small, centred_map().centring.small)
    assert again.centring.scale == 0.75
    assert again.provenance == {"random_seed": "3", "n_rows": "12"}
    assert np.array_equal(again.ridge, centred_map().ridge)
    assert take_inventory([Root(tmp_path, "", "model")]).artifacts[0].troubles == ()
    first = tmp_path / "first.safetensors"
    write_transfer_map(first, map_of(provenance={"scale": "of the study"}))
    assert (read_transfer_map(first).centring, read_transfer_map(first).provenance["scale"]) == (None, "of the study")


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["__metadata__"].pop("scale"),
        lambda header: header["__metadata__"].update(scale="much"),
        lambda header: header["__metadata__"].update(format="steer-eval/transfer-map/1"),
        lambda header: header["__metadata__"].update(format="steer-eval/transfer-map/3"),
        lambda header: header.update(mean=header.pop("mean_small")),
    ],
)
def test_half_of_the_second_format_is_refused(tmp_path: Path, change: Any) -> None:
    write_transfer_map(tmp_path / "m.safetensors", centred_map())

    with pytest.raises(FormatError, match=r"m\.safetensors"):
        read_transfer_map(rewritten(tmp_path / "m.safetensors", change))


def test_a_mean_of_another_width_is_refused(tmp_path: Path) -> None:
    wide = Centring(np.zeros(6, dtype=np.float32), np.zeros(5, dtype=np.float32), 1.0)
    write_transfer_map(tmp_path / "m.safetensors", replace(centred_map(), centring=wide))

    with pytest.raises(FormatError, match="mean_small: the mean has another width"):
        read_transfer_map(tmp_path / "m.safetensors")


def test_a_coefficient_that_no_float_is_equal_to_is_refused(tmp_path: Path) -> None:
    path = pt_files.saved(tmp_path / "v.pt", {**pt_files.transferred(), "c_small": 2**53 + 1})

    with pytest.raises(FormatError, match="c_small: the value has more digits"):
        read_transferred_pt(path)


def test_the_inventory_tells_the_two_apart_by_what_they_hold(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    write_transferred(repo / "transfer" / "one.safetensors", vectors_of())
    write_transfer_map(repo / "transfer" / "deep" / "two.safetensors", map_of())
    (repo / "transfer" / "three.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")

    inventory = take_inventory([Root(repo, "repo/", "model")])

    assert [(artifact.path, artifact.kind) for artifact in inventory.artifacts] == [
        ("transfer/deep/two.safetensors", "transfer_map"),
        ("transfer/one.safetensors", "transferred"),
        ("transfer/three.safetensors", "transfer"),
    ]
    [vectors] = inventory.of("transferred")
    [maps] = inventory.of("transfer_map")
    assert isinstance(vectors.value, TransferredVectors)
    assert isinstance(maps.value, TransferMap)
    [trouble] = inventory.artifacts[2].troubles
    assert "none of the known kinds" in str(trouble)
