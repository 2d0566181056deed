"""How well ridge regression does on documents that were left out, for many penalties, without fitting again.

Invariant: what is returned is the sum of squared errors that fitting to all other documents would give on each
document, with the intercept fitted too; it follows from one decomposition of the source rows.

A ridge fit smooths linearly, `y^ = H y`, so the residuals `e` of all rows give those of a document `d` that is left out
as `(I - H_dd)^-1 e_d`, with `H_dd` the block of its rows. Rows of one document resemble each other; left out one by
one, each would be told of by the others, and too small a penalty look best (Roberts et al. 2017, Cross-validation
strategies for data with temporal, spatial, hierarchical, or phylogenetic structure, Ecography 40).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SMALLEST = 1e-12
"""What a block's eigenvalues are lifted to: a row that a fit meets exactly has none left."""

Errors = Callable[[Floats, Floats], list[float]]
"""From centred target rows `[rows, d]` and `left.T @` these, `[rank, d]`: an error for each penalty."""


def left_out_errors(left: Floats, unexplained: Sequence[Floats], documents: NDArray[np.int64]) -> Errors:
    """Errors on left-out documents, by penalty.

    With `p = left.T @ y`, a penalty leaves `outside + left @ (kept * p)`, where `outside` is what the source rows don't
    span. The sum of its squares with the blocks of leaving out is a quadratic form, so that the target enters by
    `p @ p.T`, `outside @ p.T` and the blocks of `outside @ outside.T`, and no penalty needs a product of its own; one
    form per penalty, `[rank, rank]`, stays in memory, and another, `[rows, rank]`, where there are more rows than
    dimensions. Elsewhere nothing is outside.

    Args:
        left: Left singular vectors of the centred source rows, `[rows, rank]`.
        unexplained: For each penalty the share of each direction that shrinking leaves, `[rank]`.
        documents: Document of each row, int64 `[rows]`.

    Raises:
        ValueError: There are fewer than two documents.
    """
    blocks = [np.flatnonzero(documents == name) for name in np.unique(documents)]
    if len(blocks) < 2:
        raise ValueError("one document; a penalty is chosen on documents that are left out")
    rows, rank = left.shape
    tall = rows > rank
    forms: list[Floats] = []
    outer: list[tuple[Floats, Floats]] = []
    for kept in unexplained:
        by_block = [_weight(left[block], 1 - kept, rows) for block in blocks]
        weighted = np.empty_like(left)
        for block, weight in zip(blocks, by_block, strict=True):
            weighted[block] = weight @ left[block]
        forms.append(np.outer(kept, kept) * (left.T @ weighted))
        if tall:
            outer.append((weighted * kept, np.concatenate([weight.ravel() for weight in by_block])))

    def errors(y: Floats, projected: Floats) -> list[float]:
        inner = projected @ projected.T
        found = [float(np.vdot(form, inner)) for form in forms]
        if not tall:
            return found
        outside = y - left @ projected
        mixed: Floats = outside @ projected.T
        squares = np.concatenate([(outside[block] @ outside[block].T).ravel() for block in blocks])
        return [
            error + 2 * float(np.vdot(cross, mixed)) + float(weight @ squares)
            for error, (cross, weight) in zip(found, outer, strict=True)
        ]

    return errors


def _weight(left: Floats, shrinking: Floats, rows: int) -> Floats:
    """`(I - H_dd)^-2` of one document, `[its rows, its rows]`."""
    within = np.eye(len(left)) - (left * shrinking) @ left.T - 1 / rows
    values, vectors = np.linalg.eigh(within)
    weight: Floats = (vectors / np.maximum(values, _SMALLEST) ** 2) @ vectors.T
    return weight
