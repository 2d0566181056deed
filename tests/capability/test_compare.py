from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.metrics import mean, mean_stderr, pooled_sample_stderr, weighted_perplexity

from steer_eval.capability.compare import Estimate, compare, pooled
from steer_eval.evaluation.perplexity import ratio_interval

VALUES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40)


def items(values) -> dict[int, float]:
    return {index: float(value) for index, value in enumerate(values)}


@given(VALUES)
def test_means_have_lm_evals_values_and_standard_errors(pairs) -> None:
    base, other = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    found = compare(items(base), items(other), mean, is_mean=True, is_perplexity=False)

    assert found.base.value == pytest.approx(mean(base))
    assert found.steered.stderr == pytest.approx(mean_stderr(other))
    assert found.difference.value == pytest.approx(mean(other) - mean(base))


@given(VALUES)
def test_the_difference_has_the_standard_error_of_mcnemars_table(pairs) -> None:
    """For right and wrong answers it follows from the documents that changed sides alone."""
    n = len(pairs)
    gained, lost = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    variance = ((gained + lost) - (gained - lost) ** 2 / n) / (n - 1)
    found = compare(*(items(side) for side in zip(*pairs, strict=True)), mean, is_mean=True, is_perplexity=False)

    assert found.difference.stderr == pytest.approx(math.sqrt(max(variance, 0) / n), abs=1e-9)


def test_perplexity_has_the_interval_of_a_sweep() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 30, size=50)
    base = tokens * rng.normal(3, 0.3, size=50)
    other = base + tokens * rng.normal(0.4, 0.2, size=50)
    sides = [
        {i: (-float(nll), int(n)) for i, (nll, n) in enumerate(zip(side, tokens, strict=True))}
        for side in (base, other)
    ]
    found = compare(*sides, weighted_perplexity, is_mean=False, is_perplexity=True)
    expected = ratio_interval(other, base, tokens, resamples=20_000, confidence=0.95, seed=3)

    assert found.base.value == pytest.approx(np.exp(base.sum() / tokens.sum()))
    assert found.ratio.value == pytest.approx(np.exp((other - base).sum() / tokens.sum()))
    assert (found.ratio.low, found.ratio.high) == pytest.approx((expected.low, expected.high), rel=0.02)
    assert found.difference.value == pytest.approx(found.steered.value - found.base.value)
    # The text is the same for both, so the difference is better known than either.
    assert found.difference.stderr < found.steered.stderr


def test_only_documents_with_the_metric_under_both_are_compared() -> None:
    found = compare({0: 1.0, 1: 0.0, 2: 1.0}, {1: 1.0, 2: 1.0, 3: 0.0}, mean, is_mean=True, is_perplexity=False)
    assert (found.documents, found.difference.value) == (2, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_finite_number_is_left_open(value: float) -> None:
    found = compare({0: 1.0, 1: 1.0}, {0: value, 1: 1.0}, mean, is_mean=True, is_perplexity=False)
    assert found.steered == found.difference == Estimate(None, None)
    assert found.base == Estimate(1.0, 0.0)


def test_a_single_document_has_no_standard_error() -> None:
    found = compare({0: (-3.0, 2)}, {0: (-5.0, 2)}, weighted_perplexity, is_mean=False, is_perplexity=True)
    assert found.base == Estimate(pytest.approx(math.exp(1.5)), None)
    assert (found.difference.stderr, found.ratio) == (None, None)


def test_a_group_is_its_tasks_by_documents_or_plainly() -> None:
    parts = [(Estimate(0.5, 0.05), 100), (Estimate(0.8, 0.02), 300)]
    weighted = pooled(parts, 0.725)
    assert weighted.stderr == pytest.approx(math.hypot(0.25 * 0.05, 0.75 * 0.02))
    assert weighted.stderr == pytest.approx(pooled_sample_stderr([0.05, 0.02], [100, 300]), rel=0.01)
    assert pooled(parts, 0.65).stderr == pytest.approx(math.hypot(0.05, 0.02) / 2)
    assert pooled(parts, 0.6).stderr is None
    assert pooled([(Estimate(0.5, None), 1)], 0.5) == Estimate(0.5, None)
