"""Whether rows differ from each other at all, and in which directions.

Invariant: nothing in this package rests on what is only rounding: no spread of that size is divided by, no direction of
that size is turned, and what is carried at that size is zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import SteerEvalError
from steer_eval.rounding import ROUNDING

_Floats = NDArray[np.float64]

MORE_TEXT = "name texts that differ from each other under transfers.text in study.yaml, one document per row"


def check_spread(spread: float, size: float, what: str) -> None:
    """Refuse rows that are all alike.

    Args:
        spread: Norm of the rows less their mean.
        size: Norm of the rows as they stand.
        what: Which rows, for the message.

    Raises:
        SteerEvalError: They do not differ.
    """
    if not spread > ROUNDING * size:
        raise SteerEvalError(
            f"{what} are all alike: there is nothing that a map or a likeness could rest on", MORE_TEXT
        )


def check_rows(rows: _Floats, what: str) -> None:
    """Refuse rows `[rows, d]` that are all alike.

    Raises:
        SteerEvalError: They do not differ.
    """
    check_spread(float(np.linalg.norm(rows - rows.mean(axis=0))), float(np.linalg.norm(rows)), what)


def known_directions(rows: _Floats, size: float) -> _Floats:
    """An orthonormal basis of the directions that rows have anything in, `[d, rank]`.

    The rank is at most the number of rows, one less where they are centred. Two rows that are the same text up to
    there, read in two batches, differ in one more direction, by rounding, which is left out.

    Args:
        rows: `[rows, d]`, centred or not.
        size: Norm of the rows as they stand, before they were centred.
    """
    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    basis: _Floats = right[singular > ROUNDING * size].T
    return basis


def through(vectors: _Floats, matrix: _Floats) -> _Floats:
    """Directions through a matrix, `[..., d_source]` to `[..., d_target]`; zero where only rounding is left.

    Args:
        vectors: `[..., d_source]`.
        matrix: `[d_source, d_target]`.
    """
    found: _Floats = vectors @ matrix
    size = np.linalg.norm(vectors, axis=-1, keepdims=True) * np.linalg.norm(matrix)
    return np.where(np.linalg.norm(found, axis=-1, keepdims=True) > ROUNDING * size, found, 0.0)


def check_vector(pairs: _Floats, end: str) -> None:
    """Refuse contrast pairs whose vector is zero but for rounding.

    Args:
        pairs: Differences of the pairs, `[pairs, d]`.
        end: Whose they are, for the message.

    Raises:
        SteerEvalError: The mean of the differences is nothing beside them.
    """
    if not np.linalg.norm(pairs.mean(axis=0)) > ROUNDING * np.linalg.norm(pairs, axis=1).mean():
        raise SteerEvalError(
            f"the contrast pairs add nothing to the {end}'s residuals: its vector is zero",
            "give the two replies of each contrast pair different texts",
        )
