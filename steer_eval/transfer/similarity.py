"""How alike two models' residuals are, whatever their bases.

Invariant: nothing here is fitted on the rows that it is measured on without saying so. The biased forms of CKA and CCA
are near 1 for unrelated rows once there are fewer rows than dimensions, so only forms that do not have that fault are
offered.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steer_eval.transfer.maps import Floats


def debiased_cka(source: Floats, target: Floats) -> float:
    """Linear centred kernel alignment with the unbiased estimate of HSIC.

    0 in expectation for unrelated rows, 1 for rows that are equal up to a rotation and a scale (Kornblith et al. 2019,
    arXiv:1905.00414; Song et al. 2012 for the estimator).

    Args:
        source: `[rows, d_source]`, at least 4 rows.
        target: `[rows, d_target]`.
    """
    return debiased_ckas(source, target, [np.arange(len(source))])[0]


def debiased_ckas(source: Floats, target: Floats, pairings: Sequence[NDArray[np.intp]]) -> list[float]:
    """`debiased_cka` under several pairings of the same rows, from one Gram matrix of each side.

    All are in units of the rows as they stand, so that they compare as their HSIC do. Where a pairing names a row
    twice, the copies are two rows that are as alike as can be.

    Args:
        source: `[rows, d_source]`, at least 4 rows.
        target: `[rows, d_target]`.
        pairings: For each source row the target row that it goes with.
    """
    first, second = (_gram(rows) for rows in (source, target))
    x, y = (_hollow(gram, np.arange(len(gram))) for gram in (first, second))
    scale = float(np.sqrt(_hsic(x, x) * _hsic(y, y)))
    return [_hsic(x, _hollow(second, pairing)) / scale for pairing in pairings]


def _gram(rows: Floats) -> Floats:
    # The estimator is invariant to a shift; centring first keeps large means out of float64's last digits.
    centred = rows - rows.mean(axis=0)
    gram: Floats = centred @ centred.T
    return gram


def _hollow(gram: Floats, pairing: NDArray[np.intp]) -> Floats:
    """The Gram matrix of rows in the order of a pairing, without its diagonal."""
    ordered: Floats = gram[np.ix_(pairing, pairing)]
    np.fill_diagonal(ordered, 0.0)
    return ordered


def _hsic(first: Floats, second: Floats) -> float:
    """Unbiased HSIC, but for a factor, of two Gram matrices without their diagonals."""
    n = len(first)
    if n < 4:
        raise ValueError(f"{n} rows; the unbiased estimate needs 4")
    trace = float((first * second).sum())
    sums = float(first.sum() * second.sum()) / ((n - 1) * (n - 2))
    cross = float(first.sum(axis=0) @ second.sum(axis=0)) * 2 / (n - 2)
    return trace + sums - cross


def svcca(fit: tuple[Floats, Floats], held_out: tuple[Floats, Floats], *, rank: int) -> float:
    """Mean canonical correlation on held-out rows (SVCCA, Raghu et al. 2017, arXiv:1706.05806).

    Both sides are reduced to their leading principal components, the canonical directions are found on one set of rows,
    and the correlations along them are measured on another.

    Args:
        fit: Source and target rows to fit on, `[rows, d]` each.
        held_out: Source and target rows to measure on.
        rank: Principal components that are kept; at most half of the rows that are fitted on say anything.
    """
    projections = [_whitening(rows, rank) for rows in fit]
    x, y = ((rows - mean) @ basis for rows, (mean, basis) in zip(fit, projections, strict=True))
    left, _, right = np.linalg.svd(x.T @ y, full_matrices=False)
    sides = (left, right.T)
    a, b = (
        (rows - mean) @ basis @ side for rows, (mean, basis), side in zip(held_out, projections, sides, strict=True)
    )
    return float(_correlations(a, b).mean())


def _correlations(a: Floats, b: Floats) -> Floats:
    """Pearson correlation of each column; 0 where a column does not vary, as one row and copies of it do not."""
    directions = []
    for side in (a, b):
        centred = side - side.mean(axis=0)
        norm, rounding = np.linalg.norm(centred, axis=0), 1e-12 * np.linalg.norm(side, axis=0)
        directions.append(np.divide(centred, norm, out=np.zeros_like(centred), where=norm > rounding))
    found: Floats = (directions[0] * directions[1]).sum(axis=0)
    return found


def _whitening(rows: Floats, rank: int) -> tuple[Floats, Floats]:
    """Mean, and the map to the leading principal components with unit variance, `[d, rank]`."""
    mean = rows.mean(axis=0)
    _, singular, right = np.linalg.svd(rows - mean, full_matrices=False)
    kept = min(rank, int((singular > singular[0] * 1e-10).sum()))
    return mean, right[:kept].T / singular[:kept]


def leading_components(rows: Floats, *, rank: int) -> Floats:
    """Rows in their leading principal components, `[rows, rank]`, not whitened."""
    left, singular, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    reduced: Floats = left[:, :rank] * singular[:rank]
    return reduced


def cosine(first: Floats, second: Floats) -> float:
    """Cosine of two vectors `[d]`."""
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def nearest(carried: Floats, native: Floats) -> NDArray[np.intp]:
    """For each carried vector the index of its nearest native one, by cosine.

    Args:
        carried: `[pairs, d]`.
        native: `[pairs, d]`.
    """
    directions = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (carried, native)]
    found: NDArray[np.intp] = (directions[0] @ directions[1].T).argmax(axis=1)
    return found
