"""Which features change under steering, with the noise of the prompts taken into account.

Invariant: everything is a pure function of per-prompt means and firing counts, and of a seed. Prompts are the unit of
resampling: tokens of one text are not independent. The same prompts stand in both conditions, so all tests are paired.

A mean over tokens is taken within each prompt first, then over prompts, so a long text has no more weight than a short
one. The share of *tokens* on which a feature fires and the share of *prompts* on which it fires at least once are two
figures under two names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
DRAWS = 100_000
"""Draws of the sign-flip test. A p-value is at least one over their number, and to be a discovery, a single feature of
2,304 must come below 0.05 / 2,304."""
CONFIDENCE = 0.95
INTERVAL = "symmetric bootstrap-t over prompts"
_CHUNK = 256
_ROUNDING = 1e-10
_SIGN_CHUNK = 32


@dataclass(frozen=True, eq=False)
class Activity:
    """What features did on the texts of one condition.

    Args:
        means: Mean activation over the tokens of each prompt's text, float64 `[prompts, features]`.
        firing: Tokens of each prompt's text on which the feature fires, int64 `[prompts, features]`.
        tokens: Tokens of each prompt's text, int64 `[prompts]`.
    """

    means: NDArray[np.float64]
    firing: NDArray[np.int64]
    tokens: NDArray[np.int64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean activation, `[features]`."""
        average: NDArray[np.float64] = self.means.mean(axis=0)
        return average

    @property
    def prompt_frequency(self) -> NDArray[np.float64]:
        """Share of prompts on which the feature fires at least once, `[features]`."""
        share: NDArray[np.float64] = (self.firing > 0).mean(axis=0)
        return share

    @property
    def token_frequency(self) -> NDArray[np.float64]:
        """Share of tokens on which the feature fires, `[features]`."""
        share: NDArray[np.float64] = self.firing.sum(axis=0) / self.tokens.sum()
        return share


@dataclass(frozen=True, eq=False)
class Change:
    """How features change from one condition to another, each an array `[features]`.

    Args:
        delta: Mean over prompts of the paired difference.
        low: Lower end of the bootstrap interval of `delta`; NaN where the prompts give none.
        high: Its upper end, NaN where `low` is.
        p: Two-sided p-value of the sign-flip test.
        q: The same after Benjamini and Hochberg: rejecting all features with q up to 0.05 makes at most 5 % of the
            rejections false in expectation.
    """

    delta: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]


def paired_change(base: NDArray[np.float64], steered: NDArray[np.float64], *, seed: int) -> Change:
    """Compare two conditions on the same prompts.

    Args:
        base: Means of the one condition, `[prompts, features]`.
        steered: Means of the other, `[prompts, features]`.
        seed: Decides the resamples.
    """
    differences = steered - base
    low, high = bootstrap_interval(differences, seed=seed)
    p = sign_flip_test(differences, seed=seed)
    return Change(differences.mean(axis=0), low, high, p, benjamini_hochberg(p))


def bootstrap_interval(
    differences: NDArray[np.float64], *, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Symmetric bootstrap-t interval of the mean difference, resampling prompts (Hall 1988; Efron and Tibshirani 1993).

    `mean ± c · se`, where `c` is what `|mean* - mean| / se*` of a resample exceeds no more often than the confidence
    allows. A percentile interval divides by no standard error, and so is too narrow for few prompts, as a normal
    quantile in place of one of t is.

    A resample without spread, the same difference in each place, has no standard error: its mean could lie anywhere
    from the sample's, and counts as infinitely far. Where there are too many of them, no finite interval has the
    confidence. That is always so for fewer than four prompts, for differences that are all the same, and for features
    that fire on very few prompts.

    Args:
        differences: Paired differences, `[prompts, features]`.
        seed: Decides the resamples.

    Returns:
        Lower and upper ends, `[features]` each; NaN where nothing can be said.
    """
    prompts, features = differences.shape
    if prompts < 2:
        return np.full(features, np.nan), np.full(features, np.nan)
    random = np.random.Generator(np.random.Philox(seed))
    weights = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=RESAMPLES) / prompts
    mean = differences.mean(axis=0)
    centred = differences - mean
    reach = np.concatenate(
        [_critical(weights, centred[:, start : start + _CHUNK]) for start in range(0, features, _CHUNK)]
    )
    half = reach * centred.std(axis=0, ddof=1) / np.sqrt(prompts)
    return mean - half, mean + half


def _critical(weights: NDArray[np.float64], centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many standard errors of its own a resample's mean lies from 0, at the confidence, `[features]`.

    Args:
        weights: Share of each prompt in each resample, `[resamples, prompts]`.
        centred: Differences less their mean, `[prompts, features]`.

    Returns:
        NaN where it is infinite.
    """
    means = weights @ centred
    squares = weights @ centred**2
    variance = squares - means**2
    # What is left of equal numbers after the subtraction is rounding.
    spread = variance > _ROUNDING * squares
    errors = np.sqrt(np.where(spread, variance, 1.0) / (centred.shape[0] - 1))
    distance = np.where(spread, np.abs(means) / errors, np.inf)
    # Of R resamples and the sample itself, as many as the confidence says lie no further than this one.
    place = math.ceil(CONFIDENCE * (len(weights) + 1)) - 1
    reached: NDArray[np.float64] = np.partition(distance, place, axis=0)[place]
    return np.where(np.isfinite(reached), reached, np.nan)


def sign_flip_test(differences: NDArray[np.float64], *, seed: int, draws: int = DRAWS) -> NDArray[np.float64]:
    """Two-sided p-values of the mean difference under random signs (Fisher's paired randomisation test).

    Under the null hypothesis a pair's two texts could as well have come in the other order. All combinations of signs
    are tried where there are no more than the draws; else the observed signs count as one of the draws, so no p-value
    is 0 and the test holds its level.

    Args:
        differences: Paired differences, `[prompts, features]`.
        seed: Decides the draws.
        draws: How many.

    Returns:
        `[features]`; 1 where all differences are 0.
    """
    prompts = len(differences)
    every = 2**prompts <= draws
    if every:
        bits = np.arange(2**prompts)[:, None] >> np.arange(prompts) & 1
    else:
        bits = np.random.Generator(np.random.Philox(key=[seed, 1])).integers(2, size=(draws, prompts), dtype=np.int8)
    signs = 2.0 * bits - 1.0
    found = []
    for start in range(0, differences.shape[1], _SIGN_CHUNK):
        chunk = differences[:, start : start + _SIGN_CHUNK]
        observed = np.abs(chunk.sum(axis=0))
        # Sums that are equal on paper differ in their last bits by the order of the additions.
        slack = 1e-12 * np.abs(chunk).sum(axis=0)
        extreme = (np.abs(signs @ chunk) >= observed - slack).sum(axis=0)
        found.append(extreme / len(signs) if every else (extreme + 1) / (draws + 1))
    return np.concatenate(found)


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest false discovery rate at which each p-value is rejected (Benjamini and Hochberg 1995), `[tests]`."""
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(p[order] * len(p) / ranks)
    return np.minimum(adjusted, 1.0)
