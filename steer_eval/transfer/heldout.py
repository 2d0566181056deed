"""Fitting on some texts and measuring on others.

Invariant: all rows of one text are on one side of every split, so what is measured is never what was fitted on; the
baseline is the mean of the rows that were fitted on, which scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steer_eval.transfer.maps import Fitter, Floats
from steer_eval.transfer.similarity import canonical_correlation, leading_components

FOLDS = 6

Pairing = NDArray[np.intp]
"""For each source row the target row that it goes with, int `[rows]`; a row may be named more than once."""


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Residuals of two models for the same texts.

    Args:
        source: float64 `[rows, d_source]`.
        target: float64 `[rows, d_target]`, row by row at the same place of the same text.
        texts: Text of each row, int64 `[rows]`.
    """

    source: Floats
    target: Floats
    texts: NDArray[np.int64]

    def of(self, rows: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Source and target of some rows."""
        return self.source[rows], self.target[rows]

    def paired(self, pairing: Pairing) -> PairedRows:
        """The rows of the source with those that a pairing gives them."""
        return PairedRows(self.source, self.target[pairing], self.texts)


def splits(texts: NDArray[np.int64], *, seed: int, folds: int = FOLDS) -> Iterator[NDArray[np.bool_]]:
    """Rows to measure on, fold by fold.

    Args:
        texts: Text of each row.
        seed: Decides which texts go together.
        folds: How many.
    """
    names = np.unique(texts)
    shuffled = np.random.Generator(np.random.Philox(seed)).permutation(names)
    for part in np.array_split(shuffled, min(folds, len(names))):
        yield np.isin(texts, part)


def held_out_r2(rows: PairedRows, fitter: Fitter, *, seed: int) -> float:
    """Share of the variance of left-out target rows that a map explains.

    `1 - sum |y - y^|^2 / sum |y - mean|^2`, both sums over all dimensions and folds, the mean that of the fitted rows.

    Args:
        rows: The rows.
        fitter: How the map is fitted.
        seed: Decides the folds.
    """
    return held_out_r2s(rows, fitter, [np.arange(len(rows.texts))], seed=seed)[0]


def held_out_r2s(
    rows: PairedRows,
    fitter: Fitter,
    pairings: Sequence[Pairing],
    *,
    seed: int,
    on_fits: Callable[[int], None] = lambda _done: None,
) -> list[float]:
    """`held_out_r2` under several pairings of the same rows; each fold of the source is taken in once.

    Args:
        rows: The rows.
        fitter: How the map is fitted.
        pairings: The pairings.
        seed: Decides the folds.
        on_fits: Called with the number of maps just fitted.
    """
    missed, spread = np.zeros(len(pairings)), np.zeros(len(pairings))
    for left_out in splits(rows.texts, seed=seed):
        fit = fitter(rows.source[~left_out], rows.texts[~left_out])
        source = rows.source[left_out]
        for number, pairing in enumerate(pairings):
            fitted_on, measured_on = rows.target[pairing[~left_out]], rows.target[pairing[left_out]]
            missed[number] += ((measured_on - fit(fitted_on).rows(source)) ** 2).sum()
            spread[number] += ((measured_on - fitted_on.mean(axis=0)) ** 2).sum()
            on_fits(1)
    return [float(share) for share in 1 - missed / spread]


def held_out_turned_r2s(
    rows: PairedRows,
    rotations: Iterable[Floats],
    *,
    seed: int,
    on_fits: Callable[[int], None] = lambda _done: None,
) -> list[float]:
    """`held_out_r2` of given rotations, for each of which one scale is fitted.

    A rotation is taken once for all folds: taking a mean and turning can be done in either order.

    Args:
        rows: The rows.
        rotations: Matrices `[d_source, d_target]`.
        seed: Decides the folds.
        on_fits: Called with the number of scales just fitted.
    """
    folds = []
    for left_out in splits(rows.texts, seed=seed):
        mean = rows.target[~left_out].mean(axis=0)
        folds.append((left_out, rows.target[~left_out] - mean, rows.target[left_out] - mean))
    spread = sum(float(np.vdot(measured_on, measured_on)) for _, _, measured_on in folds)
    found = []
    for rotation in rotations:
        turned, missed = rows.source @ rotation, 0.0
        for left_out, fitted_on, measured_on in folds:
            fit = turned[~left_out]
            mean = fit.mean(axis=0)
            fit = fit - mean
            scale = float(np.vdot(fit, fitted_on) / np.vdot(fit, fit))
            miss = measured_on - scale * (turned[left_out] - mean)
            missed += float(np.vdot(miss, miss))
            on_fits(1)
        found.append(1 - missed / spread)
    return found


def held_out_svcca(rows: PairedRows, *, rank: int, seed: int) -> float:
    """Mean canonical correlation on left-out rows, averaged over folds.

    Args:
        rows: The rows.
        rank: Principal components of each side.
        seed: Decides the folds.
    """
    return held_out_svccas(rows, [np.arange(len(rows.texts))], rank=rank, seed=seed)[0]


def held_out_svccas(
    rows: PairedRows,
    pairings: Sequence[Pairing],
    *,
    rank: int,
    seed: int,
    on_fits: Callable[[int], None] = lambda _done: None,
) -> list[float]:
    """`held_out_svcca` under several pairings of the same rows; each fold of the source is reduced once.

    Principal components, like canonical directions, are those of the rows that are fitted on.

    Args:
        rows: The rows.
        pairings: The pairings.
        rank: Principal components of each side.
        seed: Decides the folds.
        on_fits: Called with the number of fits just made.
    """
    found = np.zeros(len(pairings))
    folds = list(splits(rows.texts, seed=seed))
    for left_out in folds:
        source = leading_components(rows.source[~left_out], rank=rank)
        sides = source(rows.source[~left_out]), source(rows.source[left_out])
        for number, pairing in enumerate(pairings):
            fitted_on, measured_on = rows.target[pairing[~left_out]], rows.target[pairing[left_out]]
            target = leading_components(fitted_on, rank=rank)
            found[number] += canonical_correlation(
                (sides[0], target(fitted_on)), (sides[1], target(measured_on))
            ) / len(folds)
            on_fits(1)
    return [float(mean) for mean in found]
