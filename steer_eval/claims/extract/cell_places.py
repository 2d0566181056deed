"""Where the cells of a table stand in the lines of the text.

Invariant: the text of a cell is exactly the characters of its line between two columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

_PREFIX = re.compile(r"(?:\s{0,8}>)*\s*(?:(?:[-*+]|[0-9]{1,9}[.)])\s+(?=\|))?")
_BAR = re.compile(r"\\.|\|")
_MARKS = re.compile(r"(?<=[0-9x×%*_`])\s?[†‡§¶?]+(?=[\s*_`]*$)")


@dataclass(frozen=True)
class PlacedCell:
    """A cell as it is written, the column that it begins at, and its line."""

    text: str
    start: int
    line: int = 0


def cells_of(line: str, number: int = 0) -> list[PlacedCell]:
    """The cells of a line of a table, split as GitHub's Markdown does: at every bar without a backslash before it.

    Args:
        line: The line, with whatever quotes or indents it.
        number: Its number in the text.
    """
    match = _PREFIX.match(line)
    begin = match.end() if match else 0
    bars = [bar.start() for bar in _BAR.finditer(line, begin) if bar[0] == "|"]
    edges = [begin - 1, *bars, len(line)]
    cells = [_trimmed(line, left + 1, right, number) for left, right in pairwise(edges)]
    if cells and not cells[0].text:
        cells = cells[1:]
    if cells and not cells[-1].text:
        cells = cells[:-1]
    return cells


def unmarked(cell: PlacedCell) -> PlacedCell:
    """A cell without the marks of footnotes that stand behind its number, as in `3.60†`."""
    return replace(cell, text=_MARKS.sub("", cell.text))


def _trimmed(line: str, start: int, end: int, number: int) -> PlacedCell:
    words = line[start:end]
    return PlacedCell(words.strip(), start + len(words) - len(words.lstrip()), number)
