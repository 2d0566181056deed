"""Perplexity, its ratio and the interval of the ratio, from summed log-likelihoods.

Invariant: these are functions of per-sentence sums only, so whoever has a sweep row can compute them again.

Perplexity is `exp` of the token-weighted mean negative log-likelihood. The ratio is the perplexity of a fixed corpus
under the steered model over that under the unsteered one. Its interval is a percentile bootstrap over sentences,
paired: the same sentences are drawn for both models, because most of the variance is in the text and cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A closed interval."""

    low: float
    high: float

    def spans(self, bound: float) -> bool:
        """Whether the bound lies inside, so that the measurement can't tell its sides apart."""
        return self.low <= bound <= self.high


def perplexity(nll: Floats, tokens: Counts) -> float:
    """Perplexity from sums of negative log-likelihood in nats `[sentences]` and token counts `[sentences]`."""
    return float(np.exp(nll.sum() / tokens.sum()))


def ratio(nll: Floats, base_nll: Floats, tokens: Counts) -> float:
    """Perplexity ratio of a steered model to the unsteered one, on the same tokens."""
    return float(np.exp((nll.sum() - base_nll.sum()) / tokens.sum()))


def ratio_interval(
    nll: Floats, base_nll: Floats, tokens: Counts, *, resamples: int, confidence: float, seed: int
) -> Interval:
    """Paired sentence-bootstrap interval of a perplexity ratio (Efron and Tibshirani, 1993, chapter 13).

    Args:
        nll: Summed negative log-likelihood under the steered model, `[sentences]`.
        base_nll: The same under the unsteered model.
        tokens: Scored tokens, `[sentences]`.
        resamples: Number of bootstrap samples.
        confidence: Coverage, for example 0.95.
        seed: Seed of the resampling.
    """
    difference = nll - base_nll
    draws = np.random.default_rng(seed).integers(0, len(tokens), size=(resamples, len(tokens)))
    log_ratios = difference[draws].sum(axis=1) / tokens[draws].sum(axis=1)
    tail = (1 - confidence) / 2
    with np.errstate(over="ignore"):
        low, high = np.exp(np.quantile(log_ratios, [tail, 1 - tail]))
    return Interval(float(low), float(high))
