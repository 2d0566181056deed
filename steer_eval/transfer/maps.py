"""Linear maps from one residual stream to another.

Invariant: a map is fitted on centred rows and remembers both means, so a row is carried as
`(x - source_mean) @ matrix + target_mean` and a direction, which has no place, as `v @ matrix`. Fitting uses nothing
but the rows that it is given. All arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        source_mean: Mean of the source rows that it was fitted on, `[d_source]`.
        target_mean: Mean of the target rows, `[d_target]`.
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


def fit_ridge(source: Floats, target: Floats, *, alphas: Sequence[float] = ALPHAS) -> LinearMap:
    """Ridge regression, its penalty chosen by leave-one-out error (Hastie et al. 2009, section 7.10).

    The left-out residuals follow from one decomposition of the `[rows, rows]` Gram matrix, so hundreds of dimensions
    and penalties cost one fit.

    Args:
        source: `[rows, d_source]`.
        target: `[rows, d_target]`, row by row the same text.
        alphas: Penalties to choose from; with one, nothing is chosen.
    """
    x, y, source_mean, target_mean = _centred(source, target)
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    projected = left.T @ y

    def left_out(alpha: float) -> float:
        shrunk = singular**2 / (singular**2 + alpha)
        leverage = (left**2 * shrunk).sum(axis=1) + 1 / len(x)
        residuals = (y - left @ (shrunk[:, None] * projected)) / (1 - np.minimum(leverage, 1 - 1e-12))[:, None]
        return float((residuals**2).sum())

    alpha = min(alphas, key=left_out) if len(alphas) > 1 else alphas[0]
    matrix = right.T @ ((singular / (singular**2 + alpha))[:, None] * projected)
    return LinearMap(matrix, source_mean, target_mean, {"alpha": alpha})


def fit_procrustes(source: Floats, target: Floats) -> LinearMap:
    """The rotation with one scale that brings centred rows closest (Schoenemann 1966; Gower 1975).

    Between spaces of different width the rotation is of the narrower one into the wider one.

    Args:
        source: `[rows, d_source]`.
        target: `[rows, d_target]`.
    """
    x, y, source_mean, target_mean = _centred(source, target)
    left, singular, right = np.linalg.svd(x.T @ y, full_matrices=False)
    rotation = left @ right
    carried = x @ rotation
    scale = float(singular.sum() / (carried**2).sum())
    return LinearMap(scale * rotation, source_mean, target_mean, {"scale": scale})


def random_map(source: Floats, target: Floats, *, seed: int) -> LinearMap:
    """A random rotation with the scale that fits best: what a map without information does.

    Args:
        source: `[rows, d_source]`.
        target: `[rows, d_target]`.
        seed: Decides the rotation.
    """
    x, y, source_mean, target_mean = _centred(source, target)
    random = np.random.Generator(np.random.Philox(seed))
    rotation = random_rotation(random, x.shape[1], y.shape[1])
    carried = x @ rotation
    scale = float((carried * y).sum() / (carried**2).sum())
    return LinearMap(scale * rotation, source_mean, target_mean, {"scale": scale, "seed": seed})


def random_rotation(random: np.random.Generator, d_source: int, d_target: int) -> Floats:
    """A matrix `[d_source, d_target]` with orthonormal rows or columns, uniform among these (Mezzadri 2007)."""
    wide, narrow = max(d_source, d_target), min(d_source, d_target)
    basis, triangle = np.linalg.qr(random.standard_normal((wide, narrow)))
    basis = basis * np.sign(np.diag(triangle))
    return basis if d_source == wide else basis.T


def _centred(source: Floats, target: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    if len(source) != len(target) or len(source) < 2:
        raise ValueError(f"{len(source)} source rows and {len(target)} target rows; a map needs two pairs of rows")
    x, y = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = x.mean(axis=0), y.mean(axis=0)
    return x - source_mean, y - target_mean, source_mean, target_mean
