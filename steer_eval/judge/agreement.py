"""How far two judges, or one judge twice, agree.

Invariant: only scores that both gave for the same cell of a sweep are compared. Rows of cells without text are left
out: they hold made-up scores, the same ones for every judge, and would make any two judges agree. Cells of a comparison
are left out: some hold the texts of sweep cells again, and others lie far from all texts of a sweep.

Kappa and alpha are written out here, in numpy alone, because cards and verdicts show them without any extra installed;
tests hold them to scikit-learn and to the package krippendorff.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.cells import Cell
from steer_eval.judge.rubric import MARGIN, Rubric

Floats = NDArray[np.float64]
HALF = 0.5
_CLOSE = 1e-9


@dataclass(frozen=True)
class Agreement:
    """Agreement of two judges on one axis or on the margin.

    Args:
        axis: The axis, or `margin`.
        n: Cells that both scored.
        kappa: Quadratic weighted kappa; None where one of them gave a single score throughout.
        alpha: Krippendorff's alpha for an interval scale; None where all scores are equal.
        spearman: Rank correlation; None where one of them gave a single score throughout.
        exact: Share of equal scores; None without cells, as all else.
        within_half: Share of scores that lie at most half a point apart.
        mean_difference: Mean of the second judge's score less the first's.
    """

    axis: str
    n: int
    kappa: float | None
    alpha: float | None
    spearman: float | None
    exact: float | None
    within_half: float | None
    mean_difference: float | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def agreement(axis: str, first: Sequence[float], second: Sequence[float], *, step: float) -> Agreement:
    """Agreement of two lists of scores of the same things.

    Args:
        axis: What was scored.
        first: One judge's scores.
        second: The other's.
        step: The scale's step, which makes scores categories.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not len(a):
        return Agreement(axis, 0, None, None, None, None, None, None)
    apart = np.abs(a - b)
    return Agreement(
        axis,
        len(a),
        weighted_kappa(a, b, step=step),
        interval_alpha(np.stack([a, b])),
        spearman(a, b),
        float(np.mean(apart <= _CLOSE)),
        float(np.mean(apart <= HALF + _CLOSE)),
        float(np.mean(b - a)),
    )


def compare(
    first: Mapping[Cell, Mapping[str, float]], second: Mapping[Cell, Mapping[str, float]], rubric: Rubric
) -> list[Agreement]:
    """Agreement of two judges on every axis and on the margin, over the cells of sweeps that both scored.

    Args:
        first: One judge's scores by cell and axis.
        second: The other's.
        rubric: Gives axes, margin and step.
    """
    both = (cell for cell in set(first) & set(second) if cell.variant is None)
    common = sorted(both, key=lambda cell: (cell.model, cell.label, cell.layer or -1, cell.coef))
    found = []
    for axis in rubric.names:
        pairs = [
            (first[cell][axis], second[cell][axis]) for cell in common if axis in first[cell] and axis in second[cell]
        ]
        found.append(agreement(axis, [a for a, _ in pairs], [b for _, b in pairs], step=rubric.step))
    margins = [
        (one, other)
        for cell in common
        if (one := rubric.margin_of(dict(first[cell]))) is not None
        and (other := rubric.margin_of(dict(second[cell]))) is not None
    ]
    if rubric.margin is not None:
        found.append(agreement(MARGIN, [a for a, _ in margins], [b for _, b in margins], step=rubric.step))
    return found


def weighted_kappa(first: Floats, second: Floats, *, step: float) -> float | None:
    """Cohen's kappa with quadratic weights, over all levels between the lowest and the highest score.

    With these weights it depends only on the squared differences: that of the pairs, and that of all combinations.
    """
    a, b = np.round(first / step), np.round(second / step)
    expected = float(np.mean((a[:, None] - b[None, :]) ** 2))
    if expected == 0:
        return None
    return 1.0 - float(np.mean((a - b) ** 2)) / expected


def interval_alpha(scores: Floats) -> float | None:
    """Krippendorff's alpha on an interval scale.

    Args:
        scores: `[judges, things]`, NaN where a judge gave none.

    Returns:
        Alpha, or None where it is not defined: no thing with two scores, or all scores equal.
    """
    present = ~np.isnan(scores)
    rated = present.sum(axis=0) >= 2
    kept, present = scores[:, rated], present[:, rated]
    values = kept[present]
    total = len(values)
    if total < 2:
        return None
    # Sums of squared differences of all ordered pairs, from sums and squares: 2 n Σx² - 2 (Σx)².
    spread = 2 * total * float(np.sum(values**2)) - 2 * float(np.sum(values)) ** 2
    expected = spread / (total * (total - 1))
    if expected <= _CLOSE:
        return None
    counts = present.sum(axis=0)
    filled = np.where(present, kept, 0.0)
    within = 2 * counts * np.sum(filled**2, axis=0) - 2 * np.sum(filled, axis=0) ** 2
    observed = float(np.sum(within / (counts - 1))) / total
    return 1.0 - observed / expected


def spearman(first: Floats, second: Floats) -> float | None:
    """Rank correlation, ties at their mean rank."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(np.sum(a**2)) * float(np.sum(b**2)))
    return None if norm <= _CLOSE else float(np.sum(a * b)) / norm


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2
    ranks: Floats = mean_rank[inverse].astype(np.float64)
    return ranks
