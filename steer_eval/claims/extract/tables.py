"""Claims in tables.

Invariant: every number of a table is a claim, says what its row is about, or is listed as not understood. Below a
heading or caption with words that may change what is measured there is no claim.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_eval.claims.extract.around import Around
from steer_eval.claims.extract.axes import axes_of
from steer_eval.claims.extract.context import Context
from steer_eval.claims.extract.contrasted import contrast_claims, contrast_of
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.extract.file_rows import file_claims
from steer_eval.claims.extract.grids import grid_of
from steer_eval.claims.extract.layout import PlacedTable
from steer_eval.claims.extract.meanings import LOCATORS
from steer_eval.claims.extract.rows import Row, not_understood
from steer_eval.claims.extract.stated import columns_of_claims, stated_claims


def table_claims(placed: PlacedTable, context: Context) -> Iterator[Extracted]:
    """The claims of a table.

    Args:
        placed: The table and where it stands.
        context: What the data has.
    """
    grid = grid_of(placed, context)
    if (of_claims := columns_of_claims(grid.header)) is not None:
        for cells in grid.rows:
            yield from stated_claims(cells, of_claims, placed, context)
        return
    if (contrast := contrast_of(grid.header)) is not None:
        yield from contrast_claims(contrast, grid, placed, context)
        return
    around = Around.of(placed, [cell.text for cell in (*grid.loose, *grid.header)], context)
    axes = axes_of(grid.header, grid.columns, placed.before, placed.heading, context)
    # `Best cell (deepseek)` says where, by one judge.
    said = {index: axis.measure for index, axis in axes.items() if axis.measure in LOCATORS}
    columns = [said.get(index, column) for index, column in enumerate(grid.columns)]
    for index, cell in enumerate(grid.header):
        if index not in axes:
            yield from not_understood(cell, "header")
    for cell in grid.loose:
        yield from not_understood(cell, "header")
    titles = [cell.text.strip(" *`") for cell in grid.header]
    path = grid.columns.index("path") if "path" in grid.columns else None
    for cells in grid.rows:
        if path is not None and path < len(cells) and cells[path].text:
            yield from file_claims(cells, path, columns, context)
        else:
            yield from Row(cells, columns, titles, around, axes, context).claims()
