"""Whether rows differ from each other at all.

Invariant: nothing in this package is divided by a spread that is only rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import SteerEvalError

_ROUNDING = 1e-6
"""Rows are residuals in float32: what differs by less, as a share of their size, is not known to differ."""

_MORE_TEXT = "name texts that differ from each other under transfers.text in study.yaml, one document per row"


def check_spread(spread: float, size: float, what: str) -> None:
    """Refuse rows that are all alike.

    Args:
        spread: Norm of the rows less their mean.
        size: Norm of the rows as they stand.
        what: Which rows, for the message.

    Raises:
        SteerEvalError: They do not differ.
    """
    if not spread > _ROUNDING * size:
        raise SteerEvalError(
            f"{what} are all alike: there is nothing that a map or a likeness could rest on", _MORE_TEXT
        )


def check_rows(rows: NDArray[np.float64], what: str) -> None:
    """Refuse rows `[rows, d]` that are all alike.

    Raises:
        SteerEvalError: They do not differ.
    """
    check_spread(float(np.linalg.norm(rows - rows.mean(axis=0))), float(np.linalg.norm(rows)), what)
