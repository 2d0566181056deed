"""How sure a score is, and whether two are the same within a stated bound.

Invariant: prompts are what is sampled, so intervals come from resampling prompts (and whatever was asked about a prompt
goes with it), and a test counts prompts. Where the interval spans the bound, the verdict is `inconclusive`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from steer_eval.evaluation.perplexity import Interval

Floats = NDArray[np.float64]
RESAMPLES = 2000
CONFIDENCE = 0.95
LEVEL = 0.05
POWER = 0.8
MAX_PROMPTS = 100_000
Word = Literal["reproduced", "contradicted", "inconclusive"]


def mean_interval(
    values: Sequence[float], *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval of a mean over prompts; None for fewer than two.

    Args:
        values: One value per prompt.
        resamples: How often the prompts are drawn again.
        confidence: Coverage.
        seed: Of the draws, which are the same on every machine.
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return None
    generator = np.random.Generator(np.random.Philox(seed))
    drawn = generator.integers(0, len(array), size=(resamples, len(array)))
    means = array[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class Equivalence:
    """Whether a mean difference lies within a bound.

    Args:
        bound: The bound: within ±bound counts as the same.
        n: Prompts.
        mean: Mean difference.
        low: Lower end of the interval at confidence `1 - 2 · LEVEL`.
        high: Its upper end.
        p: The larger p-value of the two one-sided tests.
        verdict: `reproduced` if the interval lies within the bound, `contradicted` if it lies outside, else
            `inconclusive`.
        needed: Prompts that 80 % power takes at this spread if the true difference is zero; None if there is no spread
            to tell it from.
    """

    bound: float
    n: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: Word
    needed: int | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__}


def equivalence(differences: Sequence[float], bound: float) -> Equivalence:
    """Two one-sided t tests (TOST) of paired differences.

    Args:
        differences: One difference per prompt.
        bound: The bound, above zero.
    """
    from scipy import stats

    array = np.asarray(differences, dtype=np.float64)
    n = len(array)
    if n < 2:
        return Equivalence(bound, n, float(array[0]) if n else None, None, None, None, "inconclusive", None)
    mean, deviation = float(array.mean()), float(array.std(ddof=1))
    error = deviation / math.sqrt(n)
    if len(np.unique(array)) == 1:
        # All prompts differ by the same: there is no spread to test against, and one number to look at.
        word: Word = "inconclusive"
        return Equivalence(bound, n, mean, mean, mean, None, word, None)
    upper = float(stats.t.sf((mean + bound) / error, n - 1))
    lower = float(stats.t.cdf((mean - bound) / error, n - 1))
    half = float(stats.t.ppf(1 - LEVEL, n - 1)) * error
    low, high = mean - half, mean + half
    p = max(upper, lower)
    word = "reproduced" if p < LEVEL else "contradicted" if low > bound or high < -bound else "inconclusive"
    return Equivalence(bound, n, mean, low, high, p, word, prompts_needed(deviation, bound))


def prompts_needed(deviation: float, bound: float, *, power: float = POWER, level: float = LEVEL) -> int:
    """Prompts that a TOST needs to say `reproduced` with some power when the true difference is zero.

    Args:
        deviation: Standard deviation of the differences per prompt.
        bound: The bound.
        power: How often it shall succeed.
        level: Of each one-sided test.

    Returns:
        The number of prompts, `MAX_PROMPTS` if that is not enough.
    """
    return _smallest(lambda n: tost_power(n, deviation, bound, level=level) >= power)


def tost_power(n: int, deviation: float, bound: float, *, level: float = LEVEL) -> float:
    """Power of a TOST when the true difference is zero.

    The sample's mean is normal and its variance chi-squared and independent of it; the power is that of the mean lying
    within what the bound leaves beside `t · s / √n`, averaged over the variance.
    """
    from scipy import integrate, stats

    df = n - 1
    error = deviation / math.sqrt(n)
    critical = float(stats.t.ppf(1 - level, df))
    most = df * (bound / (critical * error)) ** 2
    if not math.isfinite(most) or most <= 0:
        return 0.0

    def inside(chi: float) -> float:
        room = bound - critical * error * math.sqrt(chi / df)
        return (2 * float(stats.norm.cdf(room / error)) - 1) * float(stats.chi2.pdf(chi, df))

    # Beyond these quantiles there is next to no probability.
    low, high = (float(value) for value in stats.chi2.ppf([1e-9, 1 - 1e-9], df))
    if most <= low:
        return 0.0
    value, _ = integrate.quad(inside, low, min(most, high), limit=200)
    return float(value)


def _smallest(holds: Callable[[int], bool]) -> int:
    """The smallest number from 2 on for which something holds that stays true."""
    high = 2
    while not holds(high):
        high *= 2
        if high > MAX_PROMPTS:
            return MAX_PROMPTS
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if middle >= 2 and holds(middle):
            high = middle
        else:
            low = middle
    return high
