"""Tables with what is measured unsteered beside what is measured steered: `| Metric | Base | Steered |`.

Invariant: what the steered column is about, one cell or one feature, is named in its header, in the caption or in the
heading, and nowhere two. Scores without steering are in no data, so that they are not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.around import Around
from steer_eval.claims.extract.axes import without
from steer_eval.claims.extract.cell_places import PlacedCell, unmarked
from steer_eval.claims.extract.context import AXES, CellMention, Context, cells_in
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.extract.grids import Grid
from steer_eval.claims.extract.layout import PlacedTable
from steer_eval.claims.extract.meanings import fitted, meaning, reduced
from steer_eval.claims.extract.numbers import one_number
from steer_eval.claims.extract.rows import not_understood
from steer_eval.claims.extract.subjects import features_in

_CORNERS = frozenset({"", "metric", "metrics", "measure", "measures", "quantity", "statistic"})
_BASE = frozenset({"base", "baseline", "unsteered", "base model", "before", "without steering", "no steering"})
_STEERED = frozenset({"steered", "after", "with steering", "steered model"})
_MEANS = frozenset({"mean", "mean activation", "activation", "mean act.", "activation mean"})
_FREQUENCIES = frozenset({"frequency", "freq", "freq.", "firing frequency", "firing rate", "share of prompts"})
_OF_PAIRS = {
    "perplexity": ("base_perplexity", "perplexity"),
    "feature_mean": ("feature_base_mean", "feature_steered_mean"),
    "feature_frequency": ("feature_base_frequency", "feature_steered_frequency"),
}


@dataclass(frozen=True)
class Contrast:
    """Where the two columns stand, and the cell that the header of the steered one names."""

    base: int
    steered: int
    cell: CellMention | None


def contrast_of(header: Sequence[PlacedCell]) -> Contrast | None:
    """The two columns; None where a table is of another kind."""
    titles = [_bare(cell.text) for cell in header]
    if len(titles) < 3 or titles[0] not in _CORNERS:
        return None
    cells = [cells_in(cell.text) for cell in header]
    plain = [
        _bare(without(cell.text, [(each.start, each.end) for each in found]))
        for cell, found in zip(header, cells, strict=True)
    ]
    bases = [index for index, title in enumerate(titles) if title in _BASE]
    steered = [index for index, title in enumerate(plain) if title in _STEERED and len(cells[index]) <= 1]
    if len(bases) != 1 or len(steered) != 1 or len(titles) != 3:
        return None
    named = cells[steered[0]]
    return Contrast(bases[0], steered[0], named[0] if named else None)


def contrast_claims(contrast: Contrast, grid: Grid, placed: PlacedTable, context: Context) -> Iterator[Extracted]:
    """The claims of a table of two columns.

    Args:
        contrast: The columns.
        grid: The table.
        placed: Where it stands.
        context: What the data has.
    """
    around = Around.of(placed, [cell.text for cell in grid.header[1:]], context)
    heading = placed.heading.split("\n")[-1]
    near = (placed.before, heading)
    cell = contrast.cell or _only([each for text in near for each in cells_in(text)])
    features = {each.feature for text in near for each in features_in(text)}
    feature = features.pop() if len(features) == 1 else None
    model = around.model
    owners = context.feature_models.get(feature, ()) if feature is not None else ()
    name = model.name or (owners[0] if len(owners) == 1 and not model.stranger else None)
    clear = not model.stranger and around.qualifying <= {"baseline"} and around.label == "steered"
    select = Selector(name, judge=around.judge, feature=feature)
    if cell is not None:
        select = replace(select, label="steered", layer=cell.layer, coef=cell.coef)
    for cells in grid.rows:
        title = _bare(cells[0].text) if cells else ""
        pair = _pair(title)
        for index, placed_cell in enumerate(cells):
            measure = {contrast.base: pair[0], contrast.steered: pair[1]}.get(index) if clear else None
            made = _claim(measure, placed_cell, select, context) if measure and index else None
            if made is not None:
                yield made
            else:
                yield from not_understood(placed_cell, title or "value")


def _pair(title: str) -> tuple[str | None, str | None]:
    """The measures of a row: without steering, and with it."""
    if title in _MEANS:
        return _OF_PAIRS["feature_mean"]
    if title in _FREQUENCIES:
        return _OF_PAIRS["feature_frequency"]
    measure = meaning(title)
    if measure in AXES or measure == "perplexity_ratio":
        return None, measure
    return _OF_PAIRS.get(measure or "", (None, None))


def _claim(measure: str, placed: PlacedCell, select: Selector, context: Context) -> Extracted | None:
    cell = unmarked(placed)
    number = one_number(cell.text)
    made = fitted(measure, number) if number is not None else None
    if number is None or made is None or made[0] != measure:
        return None
    about = {
        "base_perplexity": select.model is not None,
        "feature": select.feature is not None,
    }.get("feature" if measure.startswith("feature_") else measure, select.layer is not None)
    if not about:
        return None
    if measure.startswith("feature_"):
        # The numbers of a feature are taken in the cell of its table, and that of the caption may be another.
        select = replace(select, layer=None)
    chosen = reduced(measure, select)
    start = placed.start + number.start
    claim = Claim(f"{placed.line}:{start + 1}", f"{measure}: {number.text}", measure, chosen, made[1])
    inferred = context.names.how(chosen.model) if chosen.model else ""
    return Extracted(claim, placed.line, start, start + len(number.text), bound=number.bound, inferred=inferred)


def _only(cells: Sequence[CellMention]) -> CellMention | None:
    return cells[0] if len({(cell.layer, cell.coef) for cell in cells}) == 1 else None


def _bare(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[*`()\[\],:]", " ", text)).strip().lower()
