"""Fitting on some texts and measuring on others.

Invariant: all rows of one text are on one side of every split, so what is measured is never what was fitted on; the
baseline is the mean of the rows that were fitted on, which scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steer_eval.transfer.maps import Floats, LinearMap
from steer_eval.transfer.similarity import svcca

FOLDS = 6

Fit = Callable[[Floats, Floats], LinearMap]


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

    def shuffled(self, random: np.random.Generator) -> PairedRows:
        """The same rows, those of the source in random order: nothing is left to find."""
        return PairedRows(self.source[random.permutation(len(self.source))], self.target, self.texts)


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


def held_out_r2(rows: PairedRows, fit: Fit, *, seed: int) -> float:
    """Share of the variance of left-out target rows that a map explains.

    `1 - sum |y - y^|^2 / sum |y - mean|^2`, both sums over all dimensions and folds, the mean that of the fitted rows.

    Args:
        rows: The rows.
        fit: How the map is fitted.
        seed: Decides the folds.
    """
    missed, spread = 0.0, 0.0
    for left_out in splits(rows.texts, seed=seed):
        fitted = fit(*rows.of(~left_out))
        source, target = rows.of(left_out)
        missed += float(((target - fitted.rows(source)) ** 2).sum())
        spread += float(((target - fitted.target_mean) ** 2).sum())
    return 1 - missed / spread


def held_out_svcca(rows: PairedRows, *, rank: int, seed: int) -> float:
    """Mean canonical correlation on left-out rows, averaged over folds.

    Args:
        rows: The rows.
        rank: Principal components of each side.
        seed: Decides the folds.
    """
    found = [svcca(rows.of(~left_out), rows.of(left_out), rank=rank) for left_out in splits(rows.texts, seed=seed)]
    return float(np.mean(found))
