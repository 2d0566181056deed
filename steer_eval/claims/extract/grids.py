"""A table as it is read: a header, and rows that each are about one thing.

Invariant: a table whose measures stand in its first column is turned, so that there is one way to read tables; every
cell keeps its place in the text, and none is lost. A table is only turned where its header says one kind of thing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from steer_eval.claims.extract.axes import measure_said, without
from steer_eval.claims.extract.cell_places import PlacedCell
from steer_eval.claims.extract.context import Context, cells_in, coefficients_in, layers_in
from steer_eval.claims.extract.layout import PlacedTable
from steer_eval.claims.extract.meanings import LOCATORS, is_explained, meaning
from steer_eval.claims.extract.subjects import features_in

_CORNERS = frozenset(
    {"", "metric", "metrics", "measure", "measures", "quantity", "statistic", "value", "values", "property", "score"}
)
"""What stands above measures and says nothing of the columns beside it."""
_TURNABLE = frozenset({"model", "cell", "layer", "coef", "variant", "feature", "judge"})


@dataclass(frozen=True)
class Grid:
    """A table as it is read.

    Args:
        header: The cells that name the columns.
        columns: What each column means; None where that is not known.
        rows: The cells of each row.
        loose: Cells that belong to no column.
    """

    header: tuple[PlacedCell, ...]
    columns: tuple[str | None, ...]
    rows: tuple[tuple[PlacedCell, ...], ...]
    loose: tuple[PlacedCell, ...] = ()


def grid_of(placed: PlacedTable, context: Context) -> Grid:
    """A table with its measures in the header, wherever they stand in the text.

    Args:
        placed: The table.
        context: What the data has.
    """
    header, *rows = placed.rows
    columns = tuple(meaning(cell.text) for cell in header)
    return _turned(header, columns, rows, context) or Grid(tuple(header), columns, tuple(map(tuple, rows)))


def _turned(
    header: Sequence[PlacedCell], columns: Sequence[str | None], rows: Sequence[Sequence[PlacedCell]], context: Context
) -> Grid | None:
    """The table on its side; None where it stands upright or can't be told."""
    names = [row[0] if row else PlacedCell("", 0) for row in rows]
    measures = [measure_said(name.text, context) for name in names]
    if len(header) < 2 or not any(each and each not in LOCATORS for each in measures):
        return None
    if any(measure_said(cell.text, context) for cell in header[1:]) or columns[0] == "path":
        return None
    subjects = _subjects(header, columns[0], context)
    if subjects is None:
        return None
    kinds, heads = subjects
    across = zip_longest(*(row[1:] for row in rows), fillvalue=PlacedCell("", 0))
    turned = [
        (*head, *column) for head, column in zip_longest(heads, across, fillvalue=(PlacedCell("", 0),) * len(kinds))
    ]
    known = columns[0] in kinds
    titles = (header[0],) if known else tuple(PlacedCell(kind, 0) for kind in kinds)
    meanings = tuple(meaning(name.text) for name in names)
    return Grid((*titles, *names), (*kinds, *meanings), tuple(turned), () if known else (header[0],))


def _subjects(
    header: Sequence[PlacedCell], corner: str | None, context: Context
) -> tuple[tuple[str, ...], list[tuple[PlacedCell, ...]]] | None:
    """What the columns beside the measures are about: of which kinds, and the cells that say it."""
    cells = header[1:]
    if corner in _TURNABLE:
        return (corner,), [(cell,) for cell in cells]
    if re.sub(r"[*`_]", "", header[0].text).strip().lower() not in _CORNERS:
        return None
    for kind, fits in _KINDS.items():
        if all(fits(cell.text, context) for cell in cells):
            return (kind,), [(_named(kind, cell),) for cell in cells]
    split = [_model_and_cell(cell, context) for cell in cells]
    whole: list[tuple[PlacedCell, ...]] = [each for each in split if each is not None]
    return (("model", "cell"), whole) if len(whole) == len(cells) else None


def _is_cell(text: str, _context: Context) -> bool:
    found = cells_in(text)
    return len(found) == 1 and is_explained(without(text, [(found[0].start, found[0].end)]))


def _is_model(text: str, context: Context) -> bool:
    found = context.names.mentions(text)
    return len(found) == 1 and is_explained(without(text, [(found[0].start, found[0].end)]))


def _is_layer(text: str, _context: Context) -> bool:
    found = layers_in(text)
    return len(found) == 1 and is_explained(without(text, [found[0].span()]))


def _is_coefficient(text: str, _context: Context) -> bool:
    found = coefficients_in(text)
    return len(found) == 1 and is_explained(without(text, [found[0].span()]))


def _is_variant(text: str, context: Context) -> bool:
    return context.variant(text) in context.variants


def _is_feature(text: str, _context: Context) -> bool:
    found = features_in(text)
    return len(found) == 1 and text[found[0].end :].strip(" *`)") == ""


_KINDS = {
    "cell": _is_cell,
    "model": _is_model,
    "layer": _is_layer,
    "coef": _is_coefficient,
    "variant": _is_variant,
    "feature": _is_feature,
}


def _named(kind: str, cell: PlacedCell) -> PlacedCell:
    """The part of a header that names the thing: of `feature 31` the number."""
    if kind != "feature":
        return cell
    found = features_in(cell.text)[0]
    return _part(cell, found.start, found.end)


def _model_and_cell(cell: PlacedCell, context: Context) -> tuple[PlacedCell, PlacedCell] | None:
    """`2B, L=14 c=+1` as a model and a cell."""
    models, cells = context.names.mentions(cell.text), cells_in(cell.text)
    if len(models) != 1 or len(cells) != 1:
        return None
    (model,), (place,) = models, cells
    if not is_explained(without(cell.text, [(model.start, model.end), (place.start, place.end)])):
        return None
    return _part(cell, model.start, model.end), _part(cell, place.start, place.end)


def _part(cell: PlacedCell, start: int, end: int) -> PlacedCell:
    return replace(cell, text=cell.text[start:end], start=cell.start + start)
