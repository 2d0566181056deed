"""The grid of a heat map: where axes and cells stand, and what each is drawn as.

Invariant: every cell carries its number, so that colour is never the only carrier. Whoever draws decides the paint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from steer_eval.drawing.scale import Theme
from steer_eval.drawing.svg import Attribute, document, element

Attributes = Mapping[str, Attribute]
COLLAPSED = "†"
BEST = "★"
MAX_CELLS = 2500
"""More than anybody can read."""


@dataclass(frozen=True)
class Frame:
    """Where the cells stand, in pixels."""

    left: int
    top: int
    cell_width: int
    cell_height: int

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """Upper left corner of a cell."""
        return self.left + column * self.cell_width, self.top + row * self.cell_height


@dataclass(frozen=True)
class GridCell:
    """One cell of a heat map in a page.

    Args:
        label: What stands in it.
        words: What it says to those who can't see it.
        share: Where on the colour scale it lies, from 0 to 1; None for a cell that was not measured.
        collapsed: Whether it is hatched.
        best: Whether it has the frame of the best.
        href: Where it leads.
        identity: What scripts call it.
    """

    label: str
    words: str
    share: float | None = None
    collapsed: bool = False
    best: bool = False
    href: str | None = None
    identity: str | None = None


@dataclass(frozen=True)
class Grid:
    """A heat map in a page: a row for each layer, a column for each coefficient."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[GridCell]]
    theme: Theme = field(repr=False)


def ratio_share(ratio: float, largest: float) -> float:
    """Where a perplexity ratio lies on a colour scale: its logarithm, from ratio 1 to the largest."""
    return min(1.0, max(0.0, math.log(ratio) / math.log(max(largest, 1.01))))


def ratio_label(ratio: float, *, collapsed: bool) -> str:
    """A perplexity ratio as it stands in a cell."""
    number = f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}" if ratio < 1e5 else f"{ratio:.0e}"
    return number + (COLLAPSED if collapsed else "")


def axes(frame: Frame, rows: Sequence[str], columns: Sequence[str], paint: Attributes) -> Iterator[Markup]:
    """The labels above the columns and before the rows."""
    for index, label in enumerate(columns):
        x = frame.left + (index + 0.5) * frame.cell_width
        yield element("text", label, x=x, y=frame.top - 6, text_anchor="middle", **paint)
    for index, label in enumerate(rows):
        y = frame.top + (index + 0.5) * frame.cell_height + 5
        yield element("text", label, x=frame.left - 8, y=y, text_anchor="end", **paint)


def face(frame: Frame, column: int, row: int, paint: Attributes) -> Markup:
    """The coloured part of a cell."""
    x, y = frame.corner(column, row)
    return element("rect", x=x, y=y, width=frame.cell_width, height=frame.cell_height, **paint)


def label(frame: Frame, column: int, row: int, text: str, paint: Attributes) -> Markup:
    """What stands in a cell."""
    x, y = frame.corner(column, row)
    middle = x + frame.cell_width / 2, y + frame.cell_height / 2 + 5
    return element("text", text, x=middle[0], y=middle[1], text_anchor="middle", **paint)


def draw(grid: Grid) -> Markup:
    """Draw a heat map for a page, whose style sheet names the colours.

    Returns:
        An SVG element. Cells that lead somewhere are links, which a keyboard reaches.
    """
    longest = max((len(row) for row in grid.rows), default=0)
    frame = Frame(left=min(160, 16 + 8 * longest), top=24, cell_width=60, cell_height=34)
    width = frame.left + frame.cell_width * len(grid.columns) + 2
    height = frame.top + frame.cell_height * len(grid.rows) + 2
    parts = list(axes(frame, grid.rows, grid.columns, {"class_": "axis", "aria_hidden": "true"}))
    for row, cells in enumerate(grid.cells):
        parts += [_cell(frame, column, row, cell, grid.theme) for column, cell in enumerate(cells)]
    return document(
        parts,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        class_="grid",
        role="group",
        aria_label=grid.title,
        data_columns=len(grid.columns),
    )


def _cell(frame: Frame, column: int, row: int, cell: GridCell, theme: Theme) -> Markup:
    parts = [face(frame, column, row, {"class_": "face"})]
    if cell.collapsed:
        parts.append(element("path", d=_hatch(frame, column, row), class_="hatch"))
    x, y = frame.corner(column, row)
    inside = {"x": x + 3, "y": y + 3, "width": frame.cell_width - 6, "height": frame.cell_height - 6, "rx": 3}
    if cell.best:
        parts.append(element("rect", **inside, class_="best"))
    parts.append(element("rect", **inside, class_="ring"))
    parts.append(label(frame, column, row, cell.label, {"class_": "ink", "aria_hidden": "true"}))
    parts.append(element("title", cell.words))
    classes = "cell " + ("unmeasured" if cell.share is None else theme.class_of(cell.share))
    if cell.href is None:
        return element("g", *parts, class_=classes, role="img", aria_label=cell.words)
    return element("a", *parts, class_=classes, href=cell.href, aria_label=cell.words, data_cell=cell.identity)


def _hatch(frame: Frame, column: int, row: int) -> str:
    """Diagonals across a cell, seven pixels apart."""
    x, y = frame.corner(column, row)
    width, height = frame.cell_width, frame.cell_height
    strokes = []
    for offset in range(7, width + height, 7):
        start = (x + min(offset, width), y + max(0, offset - width))
        end = (x + max(0, offset - height), y + min(offset, height))
        strokes.append(f"M{start[0]} {start[1]}L{end[0]} {end[1]}")
    return "".join(strokes)
