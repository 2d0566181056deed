from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from studies import COEFFICIENTS, LAYERS, document, write_study

from steer_eval.cells import Cell, Conditions, perplexity_key, plan, random_direction, text_key, wants_text
from steer_eval.study import load_study


@pytest.fixture
def study(tmp_path):
    return load_study(write_study(tmp_path, document()))


def test_a_plan_has_every_point_once_and_all_controls(study):
    cells = plan(study, "tiny")
    grid = {(layer, coef) for layer in LAYERS for coef in COEFFICIENTS}

    assert len(set(cells)) == len(cells) == 2 + 2 * len(grid)
    assert cells[:2] == [Cell("tiny", "zero", 1, 0.0), Cell("tiny", "anchor", None, 0.0)]
    for label in ("steered", "random"):
        assert {(cell.layer, cell.coef) for cell in cells if cell.label == label} == grid


def test_text_is_wanted_of_all_but_most_random_cells(study):
    silent = {cell for cell in plan(study, "tiny") if not wants_text(study, cell)}

    assert silent == {Cell("tiny", "random", layer, coef) for layer in LAYERS for coef in (-1.0, 1.0, 4.0)}


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Cell("tiny", "steered", 3, -2.0), "tiny steered L=3 c=-2"),
        (Cell("tiny", "random", 0, 0.5), "tiny random L=0 c=+0.5"),
        (Cell("tiny", "anchor", None, 0.0), "tiny anchor"),
    ],
)
def test_cells_name_themselves(cell, words):
    assert str(cell) == words


VECTORS = arrays(np.float32, st.integers(2, 64), elements=st.floats(-1e4, 1e4, width=32))


@settings(max_examples=60)
@given(VECTORS, st.integers(0, 2**63 - 1), st.integers(0, 200))
def test_a_random_direction_keeps_the_norm(vector, seed, layer):
    norm = np.linalg.norm(vector.astype(np.float64))
    assume(norm == 0 or norm > 1e-20)
    direction = random_direction(vector, seed=seed, layer=layer)

    assert direction.dtype == np.float32
    assert direction.shape == vector.shape
    assert np.linalg.norm(direction.astype(np.float64)) == pytest.approx(norm, rel=1e-6)
    assert random_direction(vector, seed=seed, layer=layer).tobytes() == direction.tobytes()


def test_a_random_direction_depends_on_the_vector_by_its_norm_alone():
    first = random_direction(np.array([3, 4, 0], dtype=np.float32), seed=1, layer=2)
    second = random_direction(np.array([0, 0, 5], dtype=np.float32), seed=1, layer=2)

    assert first.tobytes() == second.tobytes()


def test_every_seed_and_layer_has_a_direction_of_its_own():
    vector = np.ones(4096, dtype=np.float32)
    places = [(seed, layer) for seed in (0, 1, 2**40) for layer in (0, 1, 5)]
    unit = np.stack([random_direction(vector, seed=seed, layer=layer) for seed, layer in places]) / 64.0
    overlaps = np.abs(unit @ unit.T - np.eye(len(places)))

    # Independent directions in 4096 dimensions: the cosine has a standard deviation of 1/64.
    assert overlaps.max() < 5 / 64
    assert np.abs(unit @ vector / 64.0).max() < 5 / 64


def test_a_random_direction_is_the_same_on_every_machine():
    direction = random_direction(np.array([0, 10, 0, 0], dtype=np.float32), seed=20261122, layer=5)

    assert direction.tolist() == PINNED


PINNED = [3.9096343517303467, 4.614051818847656, -6.203188419342041, 4.994571208953857]

EDITS = st.lists(
    st.tuples(
        st.integers(0, 90),
        st.floats(-20, 20, allow_nan=False).map(lambda c: c + 0.0),
        st.text("0123456789abcdef", min_size=4),
    ),
    max_size=2,
)
CONDITIONS = st.builds(Conditions, st.text(max_size=5), st.text(max_size=5))
PERPLEXITY = st.tuples(
    CONDITIONS,
    EDITS,
    st.none() | st.text(max_size=5),
    st.fixed_dictionaries(
        {"sha256": st.text(max_size=4), "window": st.integers(2, 9), "beyond": st.sampled_from("wt")}
    ),
)
TEXT = st.tuples(CONDITIONS, EDITS, st.none() | st.text(max_size=5), st.text(max_size=5), st.integers(1, 99))


@pytest.mark.parametrize(("key", "inputs"), [(perplexity_key, PERPLEXITY), (text_key, TEXT)])
def test_keys_are_equal_exactly_when_everything_is(key, inputs):
    @given(inputs, inputs)
    def compared(one, other):
        assert key(*one) == key(*one)
        assert (key(*one) == key(*other)) is (one == other)

    compared()


@pytest.mark.parametrize(("key", "inputs"), [(perplexity_key, PERPLEXITY), (text_key, TEXT)])
def test_any_single_change_changes_the_key(key, inputs):
    @given(inputs, inputs, st.data())
    def compared(one, other, data):
        place = data.draw(st.integers(0, len(one) - 1))
        changed = (*one[:place], other[place], *one[place + 1 :])

        assert (key(*one) == key(*changed)) is (one == changed)

    compared()


def test_parts_of_a_key_do_not_run_into_each_other():
    conditions = Conditions("w", "m")
    keys = {
        text_key(conditions, [], None, "ab", 1),
        text_key(conditions, [], "", "ab", 1),
        text_key(conditions, [], "a", "b", 1),
        text_key(Conditions("wm", ""), [], "a", "b", 1),
        text_key(conditions, [(1, 2.0, "a")], "a", "b", 1),
        text_key(conditions, [(1, 2.0, "a"), (1, 2.0, "a")], "a", "b", 1),
        perplexity_key(conditions, [], "a", {}),
    }

    assert len(keys) == 7
