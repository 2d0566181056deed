"""A metric of one task under two conditions, and how sure their difference is.

Invariant: documents are paired: the difference and its standard error come from the same documents under both
conditions, so what is hard about a document cancels. A metric that is a mean over documents has the standard errors of
a mean; any other (perplexity, F1) has those of a bootstrap over documents that draws the same ones for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95
_SAME = 1e-9

Aggregate = Callable[[Sequence[Any]], float]


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error; either is None where it can't be told."""

    value: float | None
    stderr: float | None

    @classmethod
    def of(cls, value: float, stderr: float) -> Estimate:
        """An estimate whose parts that are no finite numbers are left open."""
        return cls(value if math.isfinite(value) else None, stderr if math.isfinite(stderr) else None)

    def to_json(self) -> dict[str, float | None]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """A ratio of two positive metrics, with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A metric under two conditions.

    Args:
        base: Under the first.
        steered: Under the second.
        difference: Second less first, on the documents that have the metric under both.
        ratio: Second over first, for perplexities.
        documents: How many documents were compared.
    """

    base: Estimate
    steered: Estimate
    difference: Estimate
    ratio: Ratio | None
    documents: int


def compare(
    base: Mapping[int, Any], steered: Mapping[int, Any], aggregate: Aggregate, *, is_mean: bool, is_perplexity: bool
) -> Comparison:
    """Compare a metric under two conditions.

    Args:
        base: What the metric has for each document under the first condition, by document.
        steered: The same under the second.
        aggregate: What makes one number of them.
        is_mean: Whether that is the mean.
        is_perplexity: Whether it is a perplexity, whose ratio matters.
    """
    shared = sorted(base.keys() & steered.keys())
    first, second = [base[document] for document in shared], [steered[document] for document in shared]
    if is_mean:
        a, b = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
        return Comparison(_mean(a), _mean(b), _mean(b - a), None, len(shared))
    values = _value(aggregate, first), _value(aggregate, second)
    draws = np.random.default_rng(0).integers(0, len(shared), size=(RESAMPLES, len(shared)))
    drawn = np.array(
        [[_value(aggregate, [side[index] for index in draw]) for side in (first, second)] for draw in draws]
    )
    with np.errstate(all="ignore"):
        spread = [
            float(np.std(each, ddof=1)) if len(shared) > 1 else math.nan
            for each in (drawn[:, 0], drawn[:, 1], drawn[:, 1] - drawn[:, 0])
        ]
    ratio = _ratio(values, drawn) if is_perplexity and len(shared) > 1 else None
    difference = Estimate.of(values[1] - values[0], spread[2])
    return Comparison(
        Estimate.of(values[0], spread[0]), Estimate.of(values[1], spread[1]), difference, ratio, len(shared)
    )


def pooled(parts: Sequence[tuple[Estimate, int]], whole: float | None) -> Estimate:
    """A group's metric from those of its tasks, which are independent of each other.

    Args:
        parts: Each task's estimate and number of documents.
        whole: The group's metric.

    Returns:
        The whole with a standard error, if it is the mean of the parts, by documents or plainly.
    """
    if whole is None or not parts or any(part.value is None or part.stderr is None for part, _ in parts):
        return Estimate(whole, None)
    values = np.array([part.value for part, _ in parts], dtype=np.float64)
    errors = np.array([part.stderr for part, _ in parts], dtype=np.float64)
    counts = np.array([count for _, count in parts], dtype=np.float64)
    for weights in (counts / counts.sum(), np.full(len(parts), 1 / len(parts))):
        if abs(float(weights @ values) - whole) <= _SAME * max(1.0, abs(whole)):
            return Estimate.of(whole, float(np.sqrt((weights**2) @ errors**2)))
    return Estimate(whole, None)


def _mean(values: NDArray[np.float64]) -> Estimate:
    if not len(values):
        return Estimate(None, None)
    with np.errstate(all="ignore"):
        stderr = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return Estimate.of(float(values.mean()), stderr)


def _value(aggregate: Aggregate, items: Sequence[Any]) -> float:
    try:
        return float(aggregate(items))
    except (ValueError, ZeroDivisionError, OverflowError, ArithmeticError, TypeError):
        # What a metric says of documents that it is not defined on.
        return math.nan


def _ratio(values: tuple[float, float], drawn: NDArray[np.float64]) -> Ratio | None:
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(all="ignore"):
        low, high = np.quantile(drawn[:, 1] / drawn[:, 0], [tail, 1 - tail])
        ratio = Ratio(float(np.float64(values[1]) / values[0]), float(low), float(high))
    return ratio if all(map(math.isfinite, asdict(ratio).values())) else None
