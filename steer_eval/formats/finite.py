"""Numbers that are numbers.

Invariant: an array that passed `check_finite` has no NaN and no infinity; a large one is looked at in pieces, so that
the check needs no second copy of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from steer_eval.errors import NotFiniteError

_PIECE = 2**22


def check_finite(values: NDArray[Any], *, name: str, where: str) -> None:
    """Check that all values of an array are finite.

    Args:
        values: A numpy array of floats.
        name: The file, for the message.
        where: The array's key in it, for the message.

    Raises:
        NotFiniteError: One is not; the message has its index.
    """
    flat = values.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        good = np.isfinite(flat[start : start + _PIECE])
        if not good.all():
            index = start + int(np.argmin(good))
            place = ", ".join(str(part) for part in np.unravel_index(index, values.shape))
            raise NotFiniteError(
                name,
                f"{where}[{place}]",
                "the value is not finite",
                expected="a number",
                observed=str(flat[index]),
                fix="compute the file again: nothing that is computed from it can be trusted",
            )
