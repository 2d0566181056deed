"""Linear maps from one residual stream to another.

Invariant: a map is fitted on centred rows and remembers both means, so a row is carried as
`(x - source_mean) @ matrix + target_mean` and a direction, which has no place, as `v @ matrix`. Fitting uses nothing
but the rows that it is given. All arithmetic is float64.

Each kind of map is fitted in two steps, `..._from(source)(target)`: what depends on the source alone is done once,
however many targets follow. A permutation null has hundreds. All are told which document each row is of; ridge alone
asks, as it alone chooses something on what is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from steer_eval.transfer.penalty import left_out_errors
from steer_eval.transfer.variation import check_spread, known_directions, through

Floats = NDArray[np.float64]
Documents = NDArray[np.int64]
"""Document of each row, `[rows]`."""

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-1, 5, 13))
"""Ridge penalties that cross-validation chooses from, two per decade, in units of the squared rows."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A fitted map.

    Args:
        matrix: `[d_source, d_target]`.
        source_mean: What is taken from a source row: the mean of the rows that it was fitted on, or zero, `[d_source]`.
        target_mean: What is added to a carried row: the mean of the target rows, or zero, `[d_target]`.
        settings: What was chosen or found in fitting, by name: the ridge penalty, the scale, the rank, the seed.
    """

    matrix: Floats
    source_mean: Floats
    target_mean: Floats
    settings: dict[str, float]

    def rows(self, source: Floats) -> Floats:
        """Carry rows of the source's residual stream, `[rows, d_source]` to `[rows, d_target]`."""
        found: Floats = (source - self.source_mean) @ self.matrix + self.target_mean
        return found

    def direction(self, vector: Floats) -> Floats:
        """Carry a direction, `[..., d_source]` to `[..., d_target]`; zero where the map leaves nothing of it."""
        return through(vector, self.matrix)


Prepared = Callable[[Floats], LinearMap]
"""Fits a map to target rows `[rows, d_target]`."""

Fitter = Callable[[Floats, Documents], Prepared]
"""Takes in source rows `[rows, d_source]` and the document of each."""


def ridge_from(source: Floats, documents: Documents | None = None, *, alphas: Sequence[float] = ALPHAS) -> Prepared:
    """Ridge regression, its penalty chosen by the error on documents that are left out, one after the other.

    Args:
        source: `[rows, d_source]`.
        documents: Document of each row; None if each is one by itself.
        alphas: Penalties to choose from; with one, nothing is chosen.
    """
    x, source_mean = _centred(source)
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    errors = None
    if len(alphas) > 1:
        unexplained = [alpha / (singular**2 + alpha) for alpha in alphas]
        errors = left_out_errors(left, unexplained, np.arange(len(x)) if documents is None else documents)

    def fit(target: Floats) -> LinearMap:
        y, target_mean = _centred(target, rows=len(x))
        projected = left.T @ y
        alpha = alphas[0] if errors is None else alphas[int(np.argmin(errors(y, projected)))]
        matrix = right.T @ ((singular / (singular**2 + alpha))[:, None] * projected)
        return LinearMap(matrix, source_mean, target_mean, {"alpha": alpha})

    return fit


def procrustes_from(source: Floats, _documents: Documents | None = None) -> Prepared:
    """The rotation with one scale that brings centred rows closest (Schoenemann 1966; Gower 1975).

    What no row shows is not turned but left out; see `_Rotation`. Between spaces of different width the rotation is of
    the narrower one into the wider one.

    Args:
        source: `[rows, d_source]`.
    """
    x, source_mean = _centred(source)
    shown = known_directions(x, _size(source))

    def fit(target: Floats) -> LinearMap:
        y, target_mean = _centred(target, rows=len(x))
        found = _rotation(x @ shown, y, shown, known_directions(y, _size(target)))
        scale = found.overlap / float(((x @ found.matrix) ** 2).sum()) if found.rank else 0.0
        return LinearMap(scale * found.matrix, source_mean, target_mean, {"scale": scale, "rank": found.rank})

    return fit


def plain_procrustes_from(source: Floats, _documents: Documents | None = None) -> Prepared:
    """The rotation that brings rows closest as they stand: neither centred nor scaled.

    What is not centred spends its best direction on the common mean, which every row has; for comparison only. What no
    row shows is left out here, too.

    Args:
        source: `[rows, d_source]`.
    """
    x = source.astype(np.float64)
    shown = known_directions(x, _size(x))

    def fit(target: Floats) -> LinearMap:
        _centred(target, rows=len(x))
        y = target.astype(np.float64)
        found = _rotation(x @ shown, y, shown, known_directions(y, _size(y)))
        settings = {"scale": 1.0, "rank": found.rank}
        return LinearMap(found.matrix, np.zeros(x.shape[1]), np.zeros(y.shape[1]), settings)

    return fit


def random_from(source: Floats, _documents: Documents | None = None, *, seed: int) -> Prepared:
    """A random rotation with the scale that fits best: what a map without information does.

    Args:
        source: `[rows, d_source]`.
        seed: Decides the rotation.
    """
    x, source_mean = _centred(source)

    @cache
    def rotation_into(d_target: int) -> tuple[Floats, Floats]:
        rotation = seeded_rotation(seed, x.shape[1], d_target)
        return rotation, x @ rotation

    def fit(target: Floats) -> LinearMap:
        y, target_mean = _centred(target, rows=len(x))
        rotation, turned = rotation_into(y.shape[1])
        scale = float((turned * y).sum() / (turned**2).sum())
        return LinearMap(scale * rotation, source_mean, target_mean, {"scale": scale, "seed": seed})

    return fit


def seeded_rotation(seed: int, d_source: int, d_target: int) -> Floats:
    """The random rotation of a seed, `[d_source, d_target]`."""
    return random_rotation(np.random.Generator(np.random.Philox(seed)), d_source, d_target)


def random_rotation(random: np.random.Generator, d_source: int, d_target: int) -> Floats:
    """A matrix `[d_source, d_target]` with orthonormal rows or columns, uniform among these (Mezzadri 2007)."""
    wide, narrow = max(d_source, d_target), min(d_source, d_target)
    basis, triangle = np.linalg.qr(random.standard_normal((wide, narrow)))
    basis = basis * np.sign(np.diag(triangle))
    return basis if d_source == wide else basis.T


@dataclass(frozen=True, eq=False)
class _Rotation:
    """What all rotations that bring rows closest have in common.

    With `X^T Y = U S V^T`, every `R = U V^T` minimises `|Y - X R|` among orthogonal matrices (Schoenemann 1966; Golub
    and Van Loan, Matrix Computations, 4th ed., section 6.4.1). Where rows leave out some directions, as fewer rows than
    dimensions always do, singular values are 0, and what their vectors are turned into is up to the last bit of the
    rows: any orthogonal choice is as close. `U_r V_r^T`, of the others alone, is the mean of all these solutions and
    the map of least norm that is no further; it is unique, and carries nothing of what no row shows.

    Args:
        matrix: `U_r V_r^T`, `[d_source, d_target]`; its singular values are 1, `rank` times, and 0.
        overlap: `trace(R^T X^T Y)`, the sum of the singular values.
        rank: How many directions it turns.
    """

    matrix: Floats
    overlap: float
    rank: int


def _rotation(x: Floats, y: Floats, x_basis: Floats, y_basis: Floats) -> _Rotation:
    """The rotation of rows in coordinates `x` of their known directions `x_basis` to rows `y` with their own."""
    overlaps = x.T @ (y @ y_basis)
    left, singular, right = np.linalg.svd(overlaps, full_matrices=False)
    # What two sides have in common by rounding, where one does not move with the other at all.
    kept = singular > max(overlaps.shape) * np.finfo(np.float64).eps * np.linalg.norm(x) * np.linalg.norm(y)
    matrix = (x_basis @ left[:, kept]) @ (right[kept] @ y_basis.T)
    return _Rotation(matrix, float(singular[kept].sum()), int(kept.sum()))


def _size(rows: Floats) -> float:
    return float(np.linalg.norm(rows.astype(np.float64)))


def _centred(values: Floats, *, rows: int | None = None) -> tuple[Floats, Floats]:
    if len(values) < 2:
        raise ValueError(f"{len(values)} rows; a map needs two pairs of rows")
    if rows not in (None, len(values)):
        raise ValueError(f"{rows} source rows and {len(values)} target rows; a map is fitted on pairs")
    wide = values.astype(np.float64)
    mean: Floats = wide.mean(axis=0)
    centred: Floats = wide - mean
    check_spread(float(np.linalg.norm(centred)), float(np.linalg.norm(wide)), f"{len(wide)} rows to fit a map to")
    return centred, mean
