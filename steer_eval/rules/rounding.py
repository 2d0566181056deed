"""Numbers that follow from numbers that may have been rounded.

Invariant: a published number is taken for one with all its digits if it has more than four decimals; else it stands
for everything that rounds to it, and only a difference that no rounding explains is one.
"""

from __future__ import annotations

_RELATIVE = 1e-6
_FEWEST_DECIMALS, _MOST_DECIMALS = 2, 4


def half_place(value: float) -> float:
    """How far rounding may have moved a number: half of its last decimal, or 0 if it seems not to be rounded."""
    text = repr(value)
    decimals = len(text.partition(".")[2])
    if "e" in text or decimals > _MOST_DECIMALS:
        return 0.0
    # Zeros at the end are not printed, so that 1.5 may be a rounded 1.502.
    return 0.5000001 * 10.0 ** -max(decimals, _FEWEST_DECIMALS)


def agrees_with_quotient(observed: float, numerator: float, denominator: float) -> bool:
    """Whether a positive number is the quotient of two positive ones, as far as rounding lets one see."""
    low = (numerator - half_place(numerator)) / (denominator + half_place(denominator))
    high = (numerator + half_place(numerator)) / (denominator - half_place(denominator))
    slack = half_place(observed) + _RELATIVE * observed
    return low - slack <= observed <= high + slack


def agrees_with_difference(observed: float, minuend: float, subtrahend: float) -> bool:
    """Whether a number is the difference of two others, as far as rounding lets one see.

    Args:
        observed: The number.
        minuend: What is subtracted from; noise of float32 at its size is forgiven.
        subtrahend: What is subtracted.
    """
    slack = _RELATIVE * max(1.0, abs(minuend), abs(subtrahend)) + sum(map(half_place, (observed, minuend, subtrahend)))
    return abs(observed - (minuend - subtrahend)) <= slack
