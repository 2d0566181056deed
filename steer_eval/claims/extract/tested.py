"""Cells with a statistic beside its null: `0.713 (0.613), p 0.005`.

Invariant: such a cell is read as a whole or not at all: the statistic that its column names, the 95th percentile of the
null in brackets, and the p-value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.cell_places import PlacedCell
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.extract.numbers import find_numbers

_NUMBER = r"[+\-−]?[0-9]{1,9}(?:\.[0-9]{1,9})?"
_CELL = re.compile(rf"{_NUMBER}\s?\({_NUMBER}\),\sp\s?=?\s?[0-9](?:\.[0-9]{{1,9}})?")
_TITLES = {
    "held-out r²": "transfer_heldout_r2",
    "held-out r2": "transfer_heldout_r2",
    "cosine to native": "transfer_cosine",
    "retrieval": "transfer_retrieval",
    "debiased cka": "transfer_cka",
    "svcca": "transfer_svcca",
}
_PARTS = ("", "_null", "_p")


def tested_measure(title: str, text: str) -> str | None:
    """The statistic of a cell, if its column names one and the cell has its null beside it.

    Args:
        title: What the column is called.
        text: The cell.
    """
    return _TITLES.get(title.strip(" *`").lower()) if _CELL.fullmatch(text.strip()) else None


def tested_claims(cell: PlacedCell, measure: str, select: Selector) -> Iterator[Extracted]:
    """The claims of such a cell.

    Args:
        cell: The cell.
        measure: Its statistic.
        select: What it was measured on.
    """
    for number, part in zip(find_numbers(cell.text), _PARTS, strict=True):
        start = cell.start + number.start
        name = f"{measure}{part}"
        claim = Claim(f"{cell.line}:{start + 1}", f"{name}: {number.text}", name, select, number.printed)
        yield Extracted(claim, cell.line, start, start + len(number.text))
