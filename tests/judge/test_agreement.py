"""Agreement is held to other implementations."""

from __future__ import annotations

import math
import warnings

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from steer_eval.cells import Cell
from steer_eval.judge.agreement import agreement, compare, interval_alpha, spearman, weighted_kappa
from steer_eval.judge.rubric import load_rubric

LEVELS = st.sampled_from([1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5])
PAIRS = st.lists(st.tuples(LEVELS, LEVELS), min_size=2, max_size=60)
RUBRIC = load_rubric()


def split(pairs: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    a, b = zip(*pairs, strict=True)
    return np.array(a, dtype=float), np.array(b, dtype=float)


@settings(deadline=None)
@given(PAIRS)
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    a, b = split(pairs)
    ours = weighted_kappa(a, b, step=0.5)
    labels = list(range(2, 11))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cohen_kappa_score((2 * a).astype(int), (2 * b).astype(int), weights="quadratic", labels=labels)

    if ours is None:
        assert len(set(a)) == len(set(b)) == 1
        assert a[0] == b[0]
    else:
        assert ours == pytest.approx(theirs, abs=1e-9)


@settings(deadline=None)
@given(PAIRS)
def test_spearman_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    a, b = split(pairs)
    ours = spearman(a, b)

    if len(set(a)) == 1 or len(set(b)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


@settings(deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda judges: st.lists(st.lists(st.none() | LEVELS, min_size=judges, max_size=judges), min_size=2, max_size=30)
    )
)
def test_alpha_is_that_of_krippendorff(columns: list[list[float | None]]) -> None:
    scores = np.array([[math.nan if each is None else each for each in column] for column in columns]).T
    rated = (~np.isnan(scores)).sum(axis=0) >= 2
    values = scores[:, rated][~np.isnan(scores[:, rated])]
    ours = interval_alpha(scores)

    if len(set(values.tolist())) < 2:
        assert ours is None
        return
    assert ours == pytest.approx(krippendorff.alpha(scores, level_of_measurement="interval"), abs=1e-9)


@settings(deadline=None)
@given(PAIRS)
def test_shares_and_difference_are_what_they_say(pairs: list[tuple[float, float]]) -> None:
    a, b = split(pairs)
    found = agreement("coherence", list(a), list(b), step=0.5)

    assert found.exact == pytest.approx(sum(x == y for x, y in pairs) / len(pairs))
    assert found.within_half == pytest.approx(sum(abs(x - y) <= 0.5 for x, y in pairs) / len(pairs))
    assert found.mean_difference == pytest.approx(b.mean() - a.mean())
    assert found.n == len(pairs)


@settings(deadline=None)
@given(PAIRS)
def test_kappa_has_no_direction(pairs: list[tuple[float, float]]) -> None:
    a, b = split(pairs)
    one, other = weighted_kappa(a, b, step=0.5), weighted_kappa(b, a, step=0.5)

    assume(one is not None)
    assert one == pytest.approx(other)


def test_only_cells_that_both_scored_are_compared() -> None:
    cells = [Cell("m", "steered", 3, float(c)) for c in range(4)]
    first = {cell: dict.fromkeys(RUBRIC.names, 2.0) for cell in cells[:3]}
    second = {cell: {**dict.fromkeys(RUBRIC.names, 2.0), "mature_anger": 4.0} for cell in cells[1:]}

    found = {each.axis: each for each in compare(first, second, RUBRIC)}

    assert set(found) == {*RUBRIC.names, "margin"}
    assert {each.n for each in found.values()} == {2}
    assert found["margin"].mean_difference == 2.0
    assert found["coherence"].exact == 1.0


def test_nothing_in_common_is_no_agreement() -> None:
    assert all(each.n == 0 and each.kappa is None and each.exact is None for each in compare({}, {}, RUBRIC))
