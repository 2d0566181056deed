"""Fitting on some texts and measuring on others.

Invariant: all rows of one text are on one side of every split, so what is measured is never what was fitted on; the
baseline is the mean of the rows that were fitted on, which scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steer_eval.transfer.maps import Fitter, Floats
from steer_eval.transfer.similarity import leading_components, svcca

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

    def reduced(self, rank: int) -> PairedRows:
        """Both sides in their leading principal components, which do not depend on the pairing."""
        return PairedRows(
            leading_components(self.source, rank=rank), leading_components(self.target, rank=rank), self.texts
        )


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
        fit = fitter(rows.source[~left_out])
        source = rows.source[left_out]
        for number, pairing in enumerate(pairings):
            target = rows.target[pairing]
            fitted_on, measured_on = target[~left_out], target[left_out]
            missed[number] += ((measured_on - fit(fitted_on).rows(source)) ** 2).sum()
            spread[number] += ((measured_on - fitted_on.mean(axis=0)) ** 2).sum()
            on_fits(1)
    return [float(share) for share in 1 - missed / spread]


def held_out_svcca(rows: PairedRows, *, rank: int, seed: int) -> float:
    """Mean canonical correlation on left-out rows, averaged over folds.

    Args:
        rows: The rows.
        rank: Principal components of each side.
        seed: Decides the folds.
    """
    found = [svcca(rows.of(~left_out), rows.of(left_out), rank=rank) for left_out in splits(rows.texts, seed=seed)]
    return float(np.mean(found))
