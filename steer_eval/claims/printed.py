"""Numbers as they are printed.

Invariant: the precision of a printed number is part of its value. `1.10` means anything that rounds to 1.10; `~16`
means 16 within ten per cent.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from steer_eval.errors import SteerEvalError

_FORM = re.compile(r"(?P<about>~?)(?P<number>[+-]?[0-9]+(?:\.(?P<decimals>[0-9]+))?)")
APPROXIMATE = 0.10


@dataclass(frozen=True)
class Printed:
    """A number as a card or a study prints it.

    Args:
        text: The characters as printed.
        value: The number that they name.
        rounding: Largest distance of an exact value that is still printed so; for `~` ten per cent of the value.
    """

    text: str
    value: float
    rounding: float

    @classmethod
    def parse(cls, text: str) -> Printed:
        """Read a printed number.

        Raises:
            SteerEvalError: The text is no number of that form.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise SteerEvalError(f"{text!r} is no printed number", "write it like 1.10, -2 or ~16")
        value = float(match["number"])
        if match["about"]:
            return cls(text.strip(), value, APPROXIMATE * abs(value))
        return cls(text.strip(), value, 0.5 * 10.0 ** -len(match["decimals"] or ""))

    @property
    def approximate(self) -> bool:
        """Whether it is printed with a `~`."""
        return self.text.startswith("~")

    def covers(self, observed: float) -> bool:
        """Whether an exact value may be printed like this.

        Half a unit of the last digit is inside on both sides, since tools round halves differently; the slack is for
        the binary form of decimal numbers.
        """
        return math.isfinite(observed) and abs(observed - self.value) <= self.reach(observed)

    def reach(self, observed: float) -> float:
        """Distance from the printed number within which a value is covered: the rounding, and the slack."""
        return self.rounding + 4 * math.ulp(max(abs(self.value), abs(observed)))

    def __str__(self) -> str:
        return self.text
