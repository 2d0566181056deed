from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pt_files import bits, saved, transfer_map, transferred
from scipy.linalg import orthogonal_procrustes

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.transfer import (
    METHODS,
    VECTORS,
    orthogonality_error,
    rank_of,
    read_transfer_map_pt,
    read_transferred_pt,
)


def test_every_bit_of_the_carried_vectors_survives(tmp_path):
    content = transferred()
    vectors = read_transferred_pt(saved(tmp_path / "x.pt", content))

    assert tuple(vectors.carried) == METHODS
    for method in METHODS:
        assert bits(vectors.carried[method]) == bits(content[f"v_{method}"])
    assert bits(vectors.native) == bits(content["v_small_native"])
    assert bits(vectors.source) == bits(content["v_large_source"])
    assert (vectors.layer, vectors.coefficient, vectors.dtype) == (14, 1.0, "float32")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_vectors_are_read_exactly(tmp_path, dtype):
    content = {key: value.to(dtype) if key.startswith("v_") else value for key, value in transferred().items()}
    vectors = read_transferred_pt(saved(tmp_path / "x.pt", content))

    assert vectors.dtype == str(dtype).removeprefix("torch.")
    assert bits(torch.from_numpy(vectors.native).to(dtype)) == bits(content["v_small_native"])


def transposed(content: dict, *keys: str) -> dict:
    return {key: np.ascontiguousarray(value.T) if key in keys else value for key, value in content.items()}


def as_tensors(content: dict) -> dict:
    return {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in content.items()}


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.sets(st.sampled_from("WR")), st.booleans())
def test_maps_are_turned_the_right_way_round(large, small, turned, tensors):
    large += small
    original = transfer_map(large, small)
    content = transposed(original, *turned)
    with TemporaryDirectory() as folder:
        maps = read_transfer_map_pt(saved(Path(folder) / "x.pt", as_tensors(content) if tensors else content))

        assert bits(maps.ridge) == bits(original["W"])
        assert bits(maps.orthogonal) == bits(original["R"])
        assert bits(maps.intercept) == bits(original["b"])
        assert maps.transposed == tuple(sorted(turned, reverse=True))
        assert (maps.layer_large, maps.layer_small, maps.alpha) == (14, 12, 100.0)


def test_a_row_of_the_large_model_goes_through_the_map_as_scikit_learn_has_it(tmp_path):
    # Ridge as scikit-learn solves it: coef_ is [d_small, d_large], and predict is x @ coef_.T + intercept_.
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 3))
    centred = x - x.mean(0)
    coef = np.linalg.solve(centred.T @ centred + 2.0 * np.eye(5), centred.T @ (y - y.mean(0))).T
    intercept = y.mean(0) - x.mean(0) @ coef.T
    content = {**transfer_map(5, 3), "W": coef.astype(np.float32), "b": intercept.astype(np.float32)}
    maps = read_transfer_map_pt(saved(tmp_path / "x.pt", content))

    assert maps.transposed == ("W",)
    np.testing.assert_allclose(x @ maps.ridge + maps.intercept, x @ coef.T + intercept, atol=1e-5)


def test_numpy_numbers_and_arrays_in_fortran_order_are_read(tmp_path):
    content = transfer_map()
    stored = {**content, "W": np.asfortranarray(content["W"]), "alpha": np.float64(0.5), "L_large": np.int64(3)}
    maps = read_transfer_map_pt(saved(tmp_path / "x.pt", stored))

    np.testing.assert_array_equal(maps.ridge, content["W"])
    assert (maps.alpha, maps.layer_large) == (0.5, 3)
    assert type(maps.alpha) is float


def test_a_map_of_the_study_s_size_is_read(tmp_path):
    content = {**transfer_map(2048, 1024), "L_small": 14}
    maps = read_transfer_map_pt(saved(tmp_path / "x.pt", content))

    assert all(
        bits(ours) == bits(content[key])
        for key, ours in zip("WbR", (maps.ridge, maps.intercept, maps.orthogonal), strict=True)
    )
    assert orthogonality_error(maps.orthogonal) < 1e-5 < orthogonality_error(maps.ridge)


VECTORS_BAD = {
    "vector absent": ({"v_ridge": None}, "v_ridge: "),
    "matrix": ({"v_random": torch.ones(2, 3)}, "v_random.shape: "),
    "integers": ({"v_small_native": torch.ones(6, dtype=torch.int32)}, "v_small_native.dtype: "),
    "ridge of another width": ({"v_ridge": torch.ones(9)}, "v_ridge: the vector has another width"),
    "procrustes of another width": ({"v_procrustes": torch.ones(1)}, "v_procrustes: the vector has another width"),
    "random of another width": ({"v_random": torch.ones(5)}, "v_random: the vector has another width"),
    "layer of a float": ({"L_small": 14.0}, "L_small: "),
    "coefficient of text": ({"c_small": "1"}, "c_small: "),
    "coefficient of more digits": ({"c_small": 2**53 + 1}, "c_small: .*more digits than a float"),
}


@pytest.mark.parametrize(("change", "message"), VECTORS_BAD.values(), ids=VECTORS_BAD)
def test_vectors_that_do_not_fit_are_named(tmp_path, change, message):
    with pytest.raises(FormatError, match=f"^vectors/x.pt: {message}"):
        read_transferred_pt(saved(tmp_path / "x.pt", {**transferred(), **change}), name="vectors/x.pt")


MAPS_BAD = {
    "intercept absent": ({"b": None}, "b: "),
    "intercept of one row": ({"b": np.ones((1, 4), np.float32)}, "b.shape: "),
    "double precision": ({"W": np.ones((6, 4))}, "W.dtype: "),
    "neither side fits": ({"W": np.ones((6, 5), np.float32)}, "W: neither side"),
    "orthogonal map of another model": ({"R": np.ones((7, 4), np.float32)}, "R: the two maps have different shapes"),
    "intercept of none": ({"b": np.ones(5, np.float32)}, "W: neither side"),
    "negative penalty": ({"alpha": -1.0}, "alpha: "),
    "penalty of text": ({"alpha": "auto"}, "alpha: "),
    "layer of null": ({"L_large": None}, "L_large: "),
}


@pytest.mark.parametrize(("change", "message"), MAPS_BAD.values(), ids=MAPS_BAD)
def test_maps_that_do_not_fit_are_named(tmp_path, change, message):
    with pytest.raises(FormatError, match=f"^transfer/x.pt: {message}"):
        read_transfer_map_pt(saved(tmp_path / "x.pt", {**transfer_map(), **change}), name="transfer/x.pt")


@pytest.mark.parametrize("key", VECTORS)
def test_a_vector_with_a_value_that_is_no_number_is_named(tmp_path, key):
    content = transferred()
    content[key][3] = math.inf

    with pytest.raises(NotFiniteError, match=rf"{key}\[3\]"):
        read_transferred_pt(saved(tmp_path / "x.pt", content))


@pytest.mark.parametrize(("key", "index", "place"), [("W", (5, 3), "5, 3"), ("b", (0,), "0"), ("R", (0, 1), "0, 1")])
def test_a_map_with_a_value_that_is_no_number_is_named(tmp_path, key, index, place):
    content = transfer_map()
    content[key][index] = math.nan

    with pytest.raises(NotFiniteError) as caught:
        read_transfer_map_pt(saved(tmp_path / "x.pt", content))

    assert caught.value.where == f"{key}[{place}]"


def test_settings_that_are_no_numbers_are_named(tmp_path):
    with pytest.raises(NotFiniteError, match="c_small: "):
        read_transferred_pt(saved(tmp_path / "x.pt", {**transferred(), "c_small": math.nan}))
    with pytest.raises(NotFiniteError, match="alpha: "):
        read_transfer_map_pt(saved(tmp_path / "x.pt", {**transfer_map(), "alpha": math.inf}))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)], ids=repr)
def test_an_orthogonal_map_has_no_error_and_another_has(shape):
    rng = np.random.default_rng(0)
    side = max(shape)
    rotation, _ = orthogonal_procrustes(rng.standard_normal((40, side)), rng.standard_normal((40, side)))
    exact = rotation[: shape[0], : shape[1]].astype(np.float32)
    before = exact.copy()

    assert orthogonality_error(exact) < 1e-6
    assert rank_of(exact) == min(shape)
    assert orthogonality_error(2 * exact) == pytest.approx(12.0, abs=1e-4)
    assert bits(exact) == bits(before)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_map_that_leaves_out_directions_has_no_error_and_one_that_shrinks_them_has(rank):
    rng = np.random.default_rng(1)
    first, second = (np.linalg.qr(rng.standard_normal((side, 4)))[0] for side in (6, 5))
    turned = (first[:, :rank] @ second[:, :rank].T).astype(np.float32)
    shrunk = (turned + 0.5 * first[:, 3:] @ second[:, 3:].T).astype(np.float32)

    assert orthogonality_error(turned) < 1e-6
    assert rank_of(turned) == rank
    assert orthogonality_error(shrunk) > 0.03


def test_the_published_vectors_are_read(upstream):
    file = upstream / "model" / "vectors" / "qwen_small_transferred_caa.pt"
    content = torch.load(file, weights_only=True)
    vectors = read_transferred_pt(file)

    assert {key: bits(content[key]) for key in VECTORS} == {
        **{f"v_{method}": bits(vectors.carried[method]) for method in METHODS},
        "v_small_native": bits(vectors.native),
        "v_large_source": bits(vectors.source),
    }
    assert (vectors.layer, vectors.coefficient) == (content["L_small"], content["c_small"])
