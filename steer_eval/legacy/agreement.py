"""How far two judges agree on the cells that both have judged.

Invariant: only cells with text that both judges scored are compared. What can't be computed (a rank correlation of
scores that are all alike) is None, never a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from steer_eval.legacy.best import MEASURES, Judgement


@dataclass(frozen=True)
class AxisAgreement:
    """Agreement on one axis.

    Args:
        axis: The axis, or `margin`.
        mean: Mean of the first judge's score less the second's.
        largest: Largest absolute difference.
        equal: Cells in which both gave exactly the same score.
        spearman: Rank correlation, ties at their mean rank; None where one judge's scores are all alike.
    """

    axis: str
    mean: float
    largest: float
    equal: int
    spearman: float | None


@dataclass(frozen=True)
class Agreement:
    """Agreement of two judges on one model.

    Args:
        model: The model.
        first: One judge.
        second: The other.
        cells: Number of cells that both judged.
        axes: Agreement by axis.
        common: Cells (layer, coefficient) that are among the best of both.
    """

    model: str
    first: str
    second: str
    cells: int
    axes: tuple[AxisAgreement, ...]
    common: tuple[tuple[int, float], ...]


def agreements(judgements: Sequence[Judgement]) -> Iterator[Agreement]:
    """Agreement of each two judges of a model, on the cells that both judged.

    Args:
        judgements: What each judge says of each model.
    """
    for first, second in combinations(judgements, 2):
        if first.model != second.model:
            continue
        theirs = {score.cell: score for score in second.judged}
        shared = [(score, theirs[score.cell]) for score in first.judged if score.cell in theirs]
        if not shared:
            continue
        axes = tuple(
            _agreement(
                axis,
                np.array([mine.values[axis] for mine, _ in shared]),
                np.array([other.values[axis] for _, other in shared]),
            )
            for axis in MEASURES
        )
        best = {score.cell for score in second.best}
        common = tuple(score.cell for score in first.best if score.cell in best)
        yield Agreement(first.model, first.judge, second.judge, len(shared), axes, common)


def _agreement(axis: str, first: NDArray[np.float64], second: NDArray[np.float64]) -> AxisAgreement:
    difference = first - second
    return AxisAgreement(
        axis,
        float(difference.mean()),
        float(np.abs(difference).max()),
        int((difference == 0).sum()),
        spearman(first, second),
    )


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where either side is constant."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return means
