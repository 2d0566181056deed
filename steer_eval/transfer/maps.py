"""Linear maps from one residual stream to another.

Invariant: a map is fitted on centred rows and remembers both means, so a row is carried as
`(x - source_mean) @ matrix + target_mean` and a direction, which has no place, as `v @ matrix`. Fitting uses nothing
but the rows that it is given. All arithmetic is float64.

Each kind of map is fitted in two steps, `..._from(source)(target)`: what depends on the source alone is done once,
however many targets follow. A permutation null has hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-1, 5, 13))
"""Ridge penalties that cross-validation chooses from, two per decade, in units of the squared rows."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A fitted map.

    Args:
        matrix: `[d_source, d_target]`.
        source_mean: What is taken from a source row: the mean of the rows that it was fitted on, or zero, `[d_source]`.
        target_mean: What is added to a carried row: the mean of the target rows, or zero, `[d_target]`.
        settings: What was chosen in fitting, by name: the ridge penalty, the scale, the seed.
    """

    matrix: Floats
    source_mean: Floats
    target_mean: Floats
    settings: dict[str, float]

    def rows(self, source: Floats) -> Floats:
        """Carry rows of the source's residual stream, `[rows, d_source]` to `[rows, d_target]`."""
        carried: Floats = (source - self.source_mean) @ self.matrix + self.target_mean
        return carried

    def direction(self, vector: Floats) -> Floats:
        """Carry a direction, `[..., d_source]` to `[..., d_target]`."""
        carried: Floats = vector @ self.matrix
        return carried


Prepared = Callable[[Floats], LinearMap]
"""Fits a map to target rows `[rows, d_target]`."""

Fitter = Callable[[Floats], Prepared]
"""Takes in source rows `[rows, d_source]`."""


def ridge_from(source: Floats, *, alphas: Sequence[float] = ALPHAS) -> Prepared:
    """Ridge regression, its penalty chosen by leave-one-out error (Hastie et al. 2009, section 7.10).

    The left-out residuals follow from one decomposition of the source rows, so hundreds of dimensions and penalties
    cost one fit. With `left` the left singular vectors and `p = left.T @ y`, a penalty leaves
    `outside + left @ (kept * p)`, where `outside` is what the source rows don't span and `kept` the share that
    shrinking leaves unexplained. The sum of its squares with the weights of leaving out is a quadratic form, so that
    the target enters by `p @ p.T` and `p @ outside.T` alone and no penalty needs a product of its own; one form per
    penalty, `[rank, rank]`, stays in memory.

    Args:
        source: `[rows, d_source]`.
        alphas: Penalties to choose from; with one, nothing is chosen.
    """
    x, source_mean = _centred(source)
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    # Per penalty: the share of each direction that is not explained, the weight of each row, and the quadratic form.
    unexplained = np.array([alpha / (singular**2 + alpha) for alpha in alphas])
    weights = np.array([_left_out_weights(left, 1 - kept) for kept in unexplained])
    forms = [
        np.outer(kept, kept) * (left.T @ (weight[:, None] * left))
        for kept, weight in zip(unexplained, weights, strict=True)
    ]

    def left_out(y: Floats, projected: Floats) -> list[float]:
        outside = y - left @ projected
        squares = np.einsum("rd,rd->r", outside, outside)
        inner = projected @ projected.T
        cross = left.T * (projected @ outside.T)
        return [
            float(weight @ squares + 2 * (kept @ cross @ weight) + np.vdot(form, inner))
            for kept, weight, form in zip(unexplained, weights, forms, strict=True)
        ]

    def fit(target: Floats) -> LinearMap:
        y, target_mean = _centred(target, rows=len(x))
        projected = left.T @ y
        alpha = alphas[int(np.argmin(left_out(y, projected)))] if len(alphas) > 1 else alphas[0]
        matrix = right.T @ ((singular / (singular**2 + alpha))[:, None] * projected)
        return LinearMap(matrix, source_mean, target_mean, {"alpha": alpha})

    return fit


def _left_out_weights(left: Floats, shrinking: Floats) -> Floats:
    """What a row's squared residual is multiplied by to be the one that it has when it is left out."""
    leverages = (left**2 * shrinking).sum(axis=1) + 1 / len(left)
    weights: Floats = 1 / (1 - np.minimum(leverages, 1 - 1e-12)) ** 2
    return weights


def procrustes_from(source: Floats) -> Prepared:
    """The rotation with one scale that brings centred rows closest (Schoenemann 1966; Gower 1975).

    Between spaces of different width the rotation is of the narrower one into the wider one.

    Args:
        source: `[rows, d_source]`.
    """
    x, source_mean = _centred(source)

    def fit(target: Floats) -> LinearMap:
        y, target_mean = _centred(target, rows=len(x))
        rotation, overlap = _rotation(x, y)
        scale = overlap / float(((x @ rotation) ** 2).sum())
        return LinearMap(scale * rotation, source_mean, target_mean, {"scale": scale})

    return fit


def plain_procrustes_from(source: Floats) -> Prepared:
    """The rotation that brings rows closest as they stand: neither centred nor scaled.

    What is not centred spends its best direction on the common mean, which every row has; for comparison only.

    Args:
        source: `[rows, d_source]`.
    """
    x = source.astype(np.float64)

    def fit(target: Floats) -> LinearMap:
        _centred(target, rows=len(x))
        rotation, _ = _rotation(x, target.astype(np.float64))
        return LinearMap(rotation, np.zeros(x.shape[1]), np.zeros(target.shape[1]), {"scale": 1.0})

    return fit


def random_from(source: Floats, *, seed: int) -> Prepared:
    """A random rotation with the scale that fits best: what a map without information does.

    Args:
        source: `[rows, d_source]`.
        seed: Decides the rotation.
    """
    x, source_mean = _centred(source)

    @cache
    def rotation_into(d_target: int) -> tuple[Floats, Floats]:
        random = np.random.Generator(np.random.Philox(seed))
        rotation = random_rotation(random, x.shape[1], d_target)
        return rotation, x @ rotation

    def fit(target: Floats) -> LinearMap:
        y, target_mean = _centred(target, rows=len(x))
        rotation, carried = rotation_into(y.shape[1])
        scale = float((carried * y).sum() / (carried**2).sum())
        return LinearMap(scale * rotation, source_mean, target_mean, {"scale": scale, "seed": seed})

    return fit


def random_rotation(random: np.random.Generator, d_source: int, d_target: int) -> Floats:
    """A matrix `[d_source, d_target]` with orthonormal rows or columns, uniform among these (Mezzadri 2007)."""
    wide, narrow = max(d_source, d_target), min(d_source, d_target)
    basis, triangle = np.linalg.qr(random.standard_normal((wide, narrow)))
    basis = basis * np.sign(np.diag(triangle))
    return basis if d_source == wide else basis.T


def _rotation(x: Floats, y: Floats) -> tuple[Floats, float]:
    """The rotation that brings rows closest, and the overlap that it reaches, which is a sum of singular values."""
    left, singular, right = np.linalg.svd(x.T @ y, full_matrices=False)
    return left @ right, float(singular.sum())


def _centred(values: Floats, *, rows: int | None = None) -> tuple[Floats, Floats]:
    if len(values) < 2:
        raise ValueError(f"{len(values)} rows; a map needs two pairs of rows")
    if rows not in (None, len(values)):
        raise ValueError(f"{rows} source rows and {len(values)} target rows; a map is fitted on pairs")
    wide = values.astype(np.float64)
    mean: Floats = wide.mean(axis=0)
    return wide - mean, mean
