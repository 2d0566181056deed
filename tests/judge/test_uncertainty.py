"""Intervals and tests of equivalence are held to scipy and to simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steer_eval.judge.uncertainty import equivalence, mean_interval, prompts_needed, tost_power

VALUES = st.lists(st.floats(-4, 4).map(lambda x: round(x, 2)), min_size=3, max_size=40)


@settings(max_examples=50, deadline=None)
@given(VALUES, st.floats(0.1, 3))
def test_tost_is_two_one_sided_t_tests(values: list[float], bound: float) -> None:
    found = equivalence(values, bound)
    if len(set(values)) == 1:
        assert found.verdict == "inconclusive"
        return
    upper = stats.ttest_1samp(values, -bound, alternative="greater").pvalue
    lower = stats.ttest_1samp(values, bound, alternative="less").pvalue
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.9)

    assert found.p == pytest.approx(max(upper, lower), abs=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    # Both sides of one theorem: the test rejects exactly if the 90 % interval lies within the bound.
    if abs(found.p - 0.05) > 1e-6:
        assert (found.verdict == "reproduced") == (interval.low > -bound and interval.high < bound)
    assert (found.verdict == "contradicted") == (interval.low > bound or interval.high < -bound)


def test_an_interval_across_the_bound_is_inconclusive() -> None:
    values = [0.0, 1.0, 0.5, -0.5, 1.5, 0.0]

    assert equivalence(values, 0.6).verdict == "inconclusive"
    assert equivalence(values, 2.0).verdict == "reproduced"
    assert equivalence([value + 9 for value in values], 2.0).verdict == "contradicted"
    assert equivalence([1.0], 2.0).verdict == "inconclusive"
    assert equivalence([0.0] * 9, 2.0).verdict == "inconclusive"


def test_power_is_what_simulation_gives() -> None:
    generator = np.random.default_rng(0)
    for n, deviation, bound in ((10, 1.0, 1.0), (35, 1.0, 0.5), (20, 1.3, 1.0)):
        drawn = generator.normal(0, deviation, size=(40_000, n))
        error = drawn.std(axis=1, ddof=1) / np.sqrt(n)
        half = stats.t.ppf(0.95, n - 1) * error
        inside = np.mean((drawn.mean(axis=1) + half < bound) & (drawn.mean(axis=1) - half > -bound))
        assert tost_power(n, deviation, bound) == pytest.approx(inside, abs=0.01)


def test_as_many_prompts_are_needed_as_give_the_power_and_no_more() -> None:
    for deviation, bound in ((0.8, 0.5), (1.0, 0.5), (1.3, 1.0)):
        needed = prompts_needed(deviation, bound)
        assert tost_power(needed, deviation, bound) >= 0.8 > tost_power(needed - 1, deviation, bound)


def test_ten_prompts_are_too_few_for_half_a_point() -> None:
    assert prompts_needed(0.9, 1.0) <= 10 < prompts_needed(0.8, 0.5)


def test_the_bootstrap_is_that_of_scipy_and_the_same_each_time() -> None:
    values = np.random.default_rng(3).normal(2, 1, 40)
    found = mean_interval(list(values))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval

    assert found is not None
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    assert found == mean_interval(list(values))


def test_one_prompt_has_no_interval() -> None:
    assert mean_interval([3.0]) is None
