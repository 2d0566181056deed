import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from steer_eval.evaluation.perplexity import Interval, perplexity, ratio, ratio_interval

TOKENS = np.array([12, 30, 7, 19, 25, 41, 9, 16, 22, 28, 11])
BASE = np.random.default_rng(0).gamma(20, 0.2, size=len(TOKENS)) * TOKENS
STEERED = BASE + np.random.default_rng(1).normal(0.3, 0.2, size=len(TOKENS)) * TOKENS

lengths = st.integers(2, 12)
protocol = {"resamples": 500, "confidence": 0.95, "seed": 0}


@st.composite
def sentence_sums(draw):
    count = draw(lengths)
    nll = arrays.arrays(np.float64, count, elements=st.floats(0, 500))
    tokens = draw(arrays.arrays(np.int64, count, elements=st.integers(1, 100)))
    return draw(nll), draw(nll), tokens


def test_perplexity_is_exp_of_the_mean_over_tokens():
    per_token = np.array([0.5, 1.5, 2.0, 4.0, 1.0])
    sums, tokens = np.array([0.5 + 1.5, 2.0 + 4.0 + 1.0]), np.array([2, 3])
    assert perplexity(sums, tokens) == pytest.approx(math.exp(per_token.mean()), rel=1e-14)


def test_perplexity_of_a_uniform_model_is_its_vocabulary():
    assert perplexity(TOKENS * math.log(320), TOKENS) == pytest.approx(320, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(sentence_sums())
def test_the_ratio_is_the_quotient_of_the_perplexities(sums):
    nll, base, tokens = sums
    per_token = (nll.sum() - base.sum()) / tokens.sum()
    assert ratio(nll, base, tokens) == pytest.approx(math.exp(per_token), rel=1e-12)
    if max(nll.sum(), base.sum()) / tokens.sum() < 200:
        quotient = perplexity(nll, tokens) / perplexity(base, tokens)
        assert ratio(nll, base, tokens) == pytest.approx(quotient, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(sentence_sums(), st.permutations(range(12)))
def test_the_order_of_sentences_does_not_matter(sums, order):
    nll, base, tokens = sums
    order = [index for index in order if index < len(tokens)]
    assert ratio(nll[order], base[order], tokens[order]) == pytest.approx(ratio(nll, base, tokens), rel=1e-9)


class TestInterval:
    @pytest.mark.parametrize("confidence", [0.8, 0.95])
    def test_it_is_scipys_paired_percentile_bootstrap(self, confidence):
        def statistic(nll, base, tokens, axis=-1):
            return np.exp((nll.sum(axis=axis) - base.sum(axis=axis)) / tokens.sum(axis=axis))

        expected = stats.bootstrap(
            (STEERED, BASE, TOKENS.astype(np.float64)),
            statistic,
            n_resamples=20_000,
            confidence_level=confidence,
            method="percentile",
            paired=True,
            vectorized=True,
            rng=np.random.default_rng(3),
        )
        observed = ratio_interval(STEERED, BASE, TOKENS, resamples=20_000, confidence=confidence, seed=4)
        # The quantiles of 20,000 resamples scatter by a few hundredths of the spread.
        tolerance = 0.05 * float(expected.standard_error)
        assert observed.low == pytest.approx(expected.confidence_interval.low, abs=tolerance)
        assert observed.high == pytest.approx(expected.confidence_interval.high, abs=tolerance)

    def test_it_surrounds_the_ratio(self):
        interval = ratio_interval(STEERED, BASE, TOKENS, **protocol)
        assert interval.low < ratio(STEERED, BASE, TOKENS) < interval.high

    def test_pairing_makes_it_narrower_than_the_text_varies(self):
        interval = ratio_interval(STEERED, BASE, TOKENS, **protocol)
        shuffled = ratio_interval(STEERED, BASE[::-1] / TOKENS[::-1] * TOKENS, TOKENS, **protocol)
        assert interval.high - interval.low < 0.5 * (shuffled.high - shuffled.low)

    @settings(max_examples=20, deadline=None)
    @given(sentence_sums())
    def test_of_a_model_with_itself_it_is_one(self, sums):
        nll, _, tokens = sums
        assert ratio_interval(nll, nll, tokens, **protocol) == Interval(1.0, 1.0)

    @settings(max_examples=20, deadline=None)
    @given(sentence_sums(), st.floats(-1, 1))
    def test_of_a_constant_change_per_token_it_is_a_point(self, sums, change):
        nll, _, tokens = sums
        interval = ratio_interval(nll + change * tokens, nll, tokens, **protocol)
        assert (interval.low, interval.high) == pytest.approx((math.exp(change),) * 2, rel=1e-9)

    @settings(max_examples=20, deadline=None)
    @given(sentence_sums())
    def test_it_stays_between_the_extreme_sentences(self, sums):
        nll, base, tokens = sums
        changes = (nll - base) / tokens
        interval = ratio_interval(nll, base, tokens, **protocol)
        assert interval.low <= interval.high
        assert interval.low >= math.exp(changes.min()) * (1 - 1e-9)
        assert interval.high <= math.exp(changes.max()) * (1 + 1e-9)

    @settings(max_examples=20, deadline=None)
    @given(sentence_sums())
    def test_exchanging_the_models_inverts_it(self, sums):
        nll, base, tokens = sums
        there = ratio_interval(nll, base, tokens, **protocol)
        back = ratio_interval(base, nll, tokens, **protocol)
        assert math.log(back.low) == pytest.approx(-math.log(there.high), rel=1e-6, abs=1e-9)
        assert math.log(back.high) == pytest.approx(-math.log(there.low), rel=1e-6, abs=1e-9)

    def test_more_confidence_is_wider(self):
        narrow = ratio_interval(STEERED, BASE, TOKENS, resamples=2000, confidence=0.8, seed=0)
        wide = ratio_interval(STEERED, BASE, TOKENS, resamples=2000, confidence=0.99, seed=0)
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_the_seed_decides_it(self):
        first = ratio_interval(STEERED, BASE, TOKENS, resamples=100, confidence=0.95, seed=1)
        assert first == ratio_interval(STEERED, BASE, TOKENS, resamples=100, confidence=0.95, seed=1)
        assert first != ratio_interval(STEERED, BASE, TOKENS, resamples=100, confidence=0.95, seed=2)

    def test_one_sentence_has_no_spread(self):
        interval = ratio_interval(STEERED[:1], BASE[:1], TOKENS[:1], **protocol)
        assert interval.low == interval.high == pytest.approx(ratio(STEERED[:1], BASE[:1], TOKENS[:1]))

    def test_it_covers_the_truth_about_as_often_as_it_says(self):
        rng = np.random.default_rng(5)
        hits = 0
        for _ in range(200):
            tokens = rng.integers(5, 40, size=60)
            base = rng.gamma(20, 0.2, size=60) * tokens
            change = rng.normal(0.2, 0.1, size=60) * tokens
            interval = ratio_interval(base + change, base, tokens, resamples=300, confidence=0.9, seed=int(tokens[0]))
            hits += interval.spans(math.exp(0.2))
        assert 0.82 <= hits / 200 <= 0.97


@pytest.mark.parametrize(("bound", "inside"), [(0.9, False), (1.0, True), (1.5, True), (2.0, True), (2.1, False)])
def test_an_interval_is_closed(bound, inside):
    assert Interval(1.0, 2.0).spans(bound) is inside
