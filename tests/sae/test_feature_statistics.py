from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steer_eval.sae.feature_statistics import (
    Activity,
    benjamini_hochberg,
    bootstrap_interval,
    paired_change,
    sign_flip_test,
)

PROMPTS, FEATURES = 40, 60


def null_differences(seed: int, features: int = FEATURES) -> np.ndarray:
    """Sparse and skewed as activations are, the same in both conditions."""
    random = np.random.default_rng(seed)
    base, steered = (
        random.exponential(size=(PROMPTS, features)) * (random.random((PROMPTS, features)) < 0.3) for _ in "ab"
    )
    return steered - base


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_adjusted_p_values_are_those_of_scipy(p):
    assert np.allclose(benjamini_hochberg(np.array(p)), stats.false_discovery_control(p), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_sign_flip_test_agrees_with_scipy(seed):
    differences = null_differences(seed, features=4) + np.array([0.0, 0.1, 0.3, 1.0])
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=4000, axis=0, rng=seed
    ).pvalue

    assert np.allclose(sign_flip_test(differences, seed=seed), expected, atol=0.03)


@pytest.mark.parametrize("prompts", [2, 4, 11])
def test_few_prompts_are_tested_exactly(prompts):
    differences = null_differences(3, features=5)[:prompts] + np.linspace(0, 1, 5)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf, axis=0)

    assert np.allclose(sign_flip_test(differences, seed=0), np.minimum(expected.pvalue, 1.0), atol=1e-12)


def test_one_planted_feature_of_thousands_is_a_discovery():
    differences = null_differences(2, features=2304)
    differences[:, 1000] += 3.0

    change = paired_change(np.zeros_like(differences), differences, seed=0)

    assert (change.q <= 0.05).nonzero()[0].tolist() == [1000]


@pytest.mark.parametrize("prompts", [12, PROMPTS])
def test_the_interval_agrees_with_scipy(prompts):
    differences = np.random.default_rng(5).exponential(size=(prompts, 3)) * np.array([0.1, 1.0, -3.0])
    mean, error = differences.mean(axis=0), stats.sem(differences)
    resampled = stats.bootstrap(
        (differences,),
        lambda drawn, axis: (drawn.mean(axis) - mean[:, None]) / stats.sem(drawn, axis=axis),
        axis=0,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=0,
    ).bootstrap_distribution
    half = np.quantile(np.abs(resampled), 0.95, axis=-1) * error

    low, high = bootstrap_interval(differences, seed=0)

    assert np.allclose((high - low) / (2 * half), 1, atol=0.1)
    assert np.allclose((low + high) / 2, mean)


@pytest.mark.parametrize("prompts", [5, 10, PROMPTS])
def test_the_interval_of_no_change_holds_0(prompts):
    """No more of the seeds than of a test at the 5 % level, above."""
    excluded = 0
    for seed in range(200):
        low, high = bootstrap_interval(null_differences(seed, features=1)[:prompts], seed=seed)
        excluded += bool(low[0] > 0 or high[0] < 0)

    assert excluded <= 18


@pytest.mark.parametrize("prompts", [4, 6, 10, PROMPTS])
@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential"])
def test_the_interval_holds_the_mean_as_often_as_it_says(draw, prompts):
    """Skewed differences, whose mean is 1, are covered a little less often."""
    mean, promised = {"standard_normal": (0.0, 0.94), "standard_exponential": (1.0, 0.92)}[draw]
    differences = getattr(np.random.default_rng(prompts), draw)((prompts, 3000))

    low, high = bootstrap_interval(differences, seed=0)

    assert promised <= ((low <= mean) & (mean <= high)).mean() <= 0.995


@pytest.mark.parametrize("prompts", [5, 10, PROMPTS])
def test_the_interval_of_a_planted_change_does_not_hold_0(prompts):
    planted = null_differences(0, features=20)[:prompts]
    planted[:, 7] = np.random.default_rng(1).normal(-3.0, 0.5, size=prompts)

    low, high = bootstrap_interval(planted, seed=0)

    assert low[7] < -3.0 < high[7] < 0
    assert np.sum((high < 0) | (low > 0)) <= 2


@pytest.mark.parametrize("prompts", [1, 2, 3])
def test_too_few_prompts_have_no_interval(prompts):
    low, high = bootstrap_interval(np.random.default_rng(0).normal(size=(prompts, 4)), seed=0)

    assert np.isnan([low, high]).all()


def test_what_has_no_spread_or_shows_on_next_to_no_prompt_has_no_interval():
    differences = np.random.default_rng(0).normal(size=(PROMPTS, 4))
    differences[:, 0] = 0
    differences[:, 1] = 0.1
    differences[:, 2] = np.eye(PROMPTS)[0]

    low, high = bootstrap_interval(differences, seed=0)

    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, True, True, False]


def test_planted_features_are_found():
    differences = null_differences(1)
    planted = [3, 17, 42]
    differences[:, planted] += np.array([0.8, -0.8, 1.5])

    change = paired_change(np.zeros_like(differences), differences, seed=0)

    found = set((change.q <= 0.05).nonzero()[0].tolist())
    assert found >= set(planted)
    assert len(found) <= 4
    assert all(change.low[feature] * change.high[feature] > 0 for feature in planted)
    assert np.allclose(change.delta, differences.mean(axis=0))


def test_a_null_stays_null():
    """At the 5 % level at most 18 of 200 seeds reject: the 99.5th percentile of a binomial with p = 0.05 is 18."""
    rejections = sum(
        bool(sign_flip_test(null_differences(seed, features=1), seed=seed, draws=2000)[0] <= 0.05)
        for seed in range(200)
    )
    any_discovery = sum(
        bool(
            (
                benjamini_hochberg(sign_flip_test(null_differences(seed, features=20), seed=seed, draws=2000)) <= 0.05
            ).any()
        )
        for seed in range(200)
    )

    assert rejections <= 18
    assert any_discovery <= 18


def test_features_that_never_change_are_no_discovery():
    change = paired_change(np.ones((5, 2)), np.ones((5, 2)), seed=0)

    assert change.p.tolist() == [1.0, 1.0]
    assert change.delta.tolist() == [0.0, 0.0]
    assert np.isnan([change.low, change.high]).all()


def test_frequencies_by_token_and_by_prompt_are_told_apart():
    activity = Activity(means=np.zeros((3, 2)), firing=np.array([[1, 0], [4, 0], [0, 0]]), tokens=np.array([10, 6, 4]))

    assert activity.prompt_frequency.tolist() == [2 / 3, 0]
    assert activity.token_frequency.tolist() == [5 / 20, 0]


@given(seed=st.integers(0, 2**32), scale=st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_a_change_of_unit_scales_everything_but_the_p_values(seed, scale):
    base, steered = null_differences(seed, 5), null_differences(seed + 1, 5)
    one, other = paired_change(base, steered, seed=0), paired_change(scale * base, scale * steered, seed=0)

    assert np.allclose(other.delta, scale * one.delta)
    assert np.allclose(other.low, scale * one.low, equal_nan=True)
    assert np.array_equal(other.p, one.p)
