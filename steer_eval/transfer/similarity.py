"""How alike two models' residuals are, whatever their bases.

Invariant: nothing here is fitted on the rows that it is measured on without saying so. The biased forms of CKA and CCA
are near 1 for unrelated rows once there are fewer rows than dimensions, so only forms that do not have that fault are
offered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from steer_eval.transfer.maps import Floats
from steer_eval.transfer.variation import check_spread

_SMALL = 6
"""Up to so many dimensions or rows per component, a whole decomposition is quicker than iterating."""


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
    scale = _spread(x, "source") * _spread(y, "target")
    return [_hsic(x, _hollow(second, pairing)) / scale for pairing in pairings]


def _spread(gram: Floats, side: str) -> float:
    """Square root of a side's HSIC with itself, which is 0 for rows that are equal, and for all but one that are."""
    own = float(np.sqrt(max(0.0, _hsic(gram, gram))))
    check_spread(own, float(np.linalg.norm(gram)), f"{len(gram)} rows of the {side}")
    return own


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

    Both sides are reduced to their leading principal components and the canonical directions found on one set of rows,
    and the correlations along them are measured on another.

    Args:
        fit: Source and target rows to fit on, `[rows, d]` each.
        held_out: Source and target rows to measure on.
        rank: Principal components that are kept; at most half of the rows that are fitted on say anything.
    """
    (source, target) = (leading_components(rows, rank=rank) for rows in fit)
    return canonical_correlation((source(fit[0]), target(fit[1])), (source(held_out[0]), target(held_out[1])))


def canonical_correlation(fit: tuple[Floats, Floats], held_out: tuple[Floats, Floats]) -> float:
    """Mean correlation on held-out rows along the canonical directions of other rows.

    Args:
        fit: Source and target rows to fit on, whitened, `[rows, rank]` each.
        held_out: Source and target rows to measure on, in the same components.
    """
    left, _, right = np.linalg.svd(fit[0].T @ fit[1], full_matrices=False)
    return float(_correlations(held_out[0] @ left, held_out[1] @ right.T).mean())


def _correlations(a: Floats, b: Floats) -> Floats:
    """Pearson correlation of each column; 0 where a column does not vary, as one row and copies of it do not."""
    directions = []
    for side in (a, b):
        centred = side - side.mean(axis=0)
        norm, rounding = np.linalg.norm(centred, axis=0), 1e-12 * np.linalg.norm(side, axis=0)
        directions.append(np.divide(centred, norm, out=np.zeros_like(centred), where=norm > rounding))
    found: Floats = (directions[0] * directions[1]).sum(axis=0)
    return found


def leading_components(rows: Floats, *, rank: int) -> Callable[[Floats], Floats]:
    """What takes rows `[any, d]` to the leading principal components of some rows, with unit variance in these.

    Args:
        rows: The rows whose components are meant, `[rows, d]`.
        rank: How many; fewer are kept where the rows have no more.
    """
    mean = rows.mean(axis=0)
    singular, right = _leading(rows - mean, rank)
    basis = right.T / singular

    def reduced(others: Floats) -> Floats:
        components: Floats = (others - mean) @ basis
        return components

    return reduced


def _leading(x: Floats, rank: int) -> tuple[Floats, Floats]:
    """Leading singular values, none of which is only rounding, and their right vectors, `[kept, d]`."""
    if min(x.shape) <= _SMALL * rank:
        _, singular, right = np.linalg.svd(x, full_matrices=False)
    else:
        # A few of hundreds: iterating to the last digit costs a tenth of a whole decomposition. The start is fixed.
        # Imported here: whoever reads claims on similarities needs none of SciPy.
        from scipy.sparse.linalg import svds

        start = np.random.Generator(np.random.Philox(0)).standard_normal(min(x.shape))
        _, singular, right = svds(x, k=rank, v0=start, return_singular_vectors="vh")
        order = np.argsort(singular)[::-1]
        singular, right = singular[order], right[order]
    kept = min(rank, max(1, int((singular > singular[0] * 1e-10).sum())))
    return singular[:kept], right[:kept]


def cosine(first: Floats, second: Floats) -> float:
    """Cosine of two vectors `[d]`; 0 where one of them is zero, and so has no direction."""
    return float(cosines(first[None], second)[0])


def cosines(rows: Floats, vector: Floats) -> Floats:
    """Cosine of each row `[rows, d]` to a vector `[d]`; 0 where either is zero."""
    found: Floats = _directions(rows) @ _directions(vector[None])[0]
    return found


def nearest(carried: Floats, native: Floats) -> NDArray[np.intp]:
    """For each carried vector the index of its nearest native one, by cosine; -1 for a vector that is zero.

    Args:
        carried: `[pairs, d]`.
        native: `[pairs, d]`.
    """
    found: NDArray[np.intp] = (_directions(carried) @ _directions(native).T).argmax(axis=1)
    return np.where(carried.any(axis=1), found, -1)


def _directions(rows: Floats) -> Floats:
    """Rows at norm 1; those that are zero stay so."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    directions: Floats = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return directions
