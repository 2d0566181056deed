r"""Columns whose header says more than a measure: for which layer, coefficient, model or judge it is.

Invariant: a header is understood wholly or not at all. A word that neither names a measure nor one of the data's own
models and judges, nor a layer or coefficient, leaves the column without a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from steer_eval.claims.claim import Label, Selector, pair_of
from steer_eval.claims.extract.alignments import is_cosine, variants_in
from steer_eval.claims.extract.cell_places import PlacedCell
from steer_eval.claims.extract.context import AXES, Context, coefficients_in, layers_in
from steer_eval.claims.extract.meanings import (
    LOCATORS,
    OF_ITS_CONTROL,
    is_explained,
    meaning,
    measure_of_grid,
    norms_of_models,
)
from steer_eval.claims.extract.numbers import find_numbers, one_number, signed_value

_SLASH = re.compile(r"\s?[\\/]\s?")
_LINKING = re.compile(r"^(?:of|for|by|at|in|on|with|the|steered)\b|\b(?:of|for|by|at|in|on|with|the)$", re.IGNORECASE)
_COMPARED = re.compile(
    r"cos(?:ine)?(?:[ -]sim(?:ilarity|\.)?)?[\s(`*]{1,3}(?:(?:to|with|and|vs\.?)\s)?(?:the\s)?[\w.-]+"
    r"(?:\s(?:vector|direction|one))?",
    re.IGNORECASE,
)
_LOOSE = " ,;:/|()[]{}*`_-–—·@"
_POINTS = frozenset({"perplexity", "perplexity_ratio", "collapsed", *AXES})
_OF_VECTORS = frozenset({"vector_norm", "vector_width"})


@dataclass(frozen=True)
class Axis:
    """What the header of one column says of every number in it.

    Args:
        measure: The measure; empty where the words around the table name it.
        layer: The layer.
        coef: The coefficient.
        model: The model.
        judge: The judge.
        beside: The variant whose vector the rows' vectors are compared with.
    """

    measure: str
    layer: int | None = None
    coef: float | None = None
    model: str | None = None
    judge: str | None = None
    beside: str | None = None

    @property
    def is_point(self) -> bool:
        """Whether it is for one layer or one coefficient."""
        return self.layer is not None or self.coef is not None

    def at(self, row: Selector, label: Label, stated: str | None) -> Selector | None:
        """What a number in this column is measured on, or None where column and row do not go together.

        Args:
            row: What the row says.
            label: The kind of cells.
            stated: The model that the row itself states.
        """
        if self.beside is not None:
            other = row.variant
            return None if other in (None, self.beside) else replace(row, variant=pair_of(str(other), self.beside))
        said = ((self.layer, row.layer), (self.coef, row.coef), (self.model, stated))
        if any(None not in pair and pair[0] != pair[1] for pair in said):
            return None
        select = replace(row, model=self.model or row.model, judge=self.judge or row.judge)
        if not self.is_point:
            return select
        layer = row.layer if self.layer is None else self.layer
        coef = row.coef if self.coef is None else self.coef
        if self.measure in _OF_VECTORS:
            return None if layer is None or self.coef is not None else replace(select, layer=layer)
        if layer is None or coef is None or row.variant is not None:
            return None
        return replace(select, layer=layer, coef=coef, label=label)


def axes_of(
    header: Sequence[PlacedCell], columns: Sequence[str | None], before: str, heading: str, context: Context
) -> dict[int, Axis]:
    r"""The columns of a table whose headers say what they are for, by index.

    `| Layer | 0.8B norm | 2B norm |`, `| Cell | margin (deepseek) |`, and grids such as `| Layer | c=1 | c=2 |` under
    words that name one measure. Where the corner of a grid names both directions (`| Layer \ c | 1 | 2 |`), the other
    headers may be bare numbers.

    Args:
        header: The cells of the header.
        columns: What they mean by themselves.
        before: The words before the table.
        heading: The headings that it stands under, the innermost last.
        context: What the data has.
    """
    across = _across(header[0].text) if header else None
    judges = frozenset(each.judge for cell in header for each in context.judges_in(cell.text))
    found: dict[int, Axis] = {}
    for index, cell in enumerate(header[: len(columns)]):
        axis = _bare(cell.text, across) if index else None
        if axis is None and columns[index] is None:
            axis = _said(cell.text, context, judges)
        if axis is not None:
            found[index] = axis
    return _measured(found, columns, before, heading)


def measure_said(text: str, context: Context) -> str | None:
    """The measure or kind of thing that a header names, with whatever it says beside it; None if there is none."""
    axis = _said(text, context, frozenset())
    return meaning(text) or (axis.measure or None if axis else None)


def _measured(found: dict[int, Axis], columns: Sequence[str | None], before: str, heading: str) -> dict[int, Axis]:
    """Axes with a measure: their own, or the one that the words around the table name for all of them."""
    own = {index: axis for index, axis in found.items() if axis.measure}
    grid = {index: axis for index, axis in found.items() if not axis.measure}
    rows = {"layer", "coef"} & {column for column in columns if column}
    over = {axis.layer is None for axis in grid.values()}
    points = all(axis.is_point for axis in grid.values())
    # A grid has the one direction in its rows and the other in its columns.
    crossed = (
        points and len(rows) == 1 and over == {rows == {"layer"}} and not any(_both(axis) for axis in grid.values())
    )
    models = bool(grid) and all(axis.model and not axis.is_point for axis in grid.values())
    if len(grid) < 2 or not (crossed or models):
        return own
    headings = heading.split("\n")[::-1]
    measure = measure_of_grid(before, headings)
    if measure is None and models and norms_of_models(before, headings):
        measure = "vector_norm"
    if measure is None:
        return own
    return own | {index: replace(axis, measure=measure) for index, axis in grid.items()}


def _both(axis: Axis) -> bool:
    return axis.layer is not None and axis.coef is not None


def _across(corner: str) -> str | None:
    """What the columns of a grid are, if its corner names both directions."""
    parts = [meaning(part) for part in _SLASH.split(corner.strip(" *`"))]
    return parts[1] if len(parts) == 2 and set(parts) == {"layer", "coef"} else None


def _bare(text: str, across: str | None) -> Axis | None:
    """A header that is a number, under a corner that says of what."""
    number = one_number(text) if across else None
    if number is None or not number.readable or number.unit:
        return None
    value = number.printed.value
    return Axis("", layer=int(value)) if across == "layer" else Axis("", coef=value)


def _said(text: str, context: Context, judges_beside: frozenset[str]) -> Axis | None:
    """What a header says, if every word of it is understood and it says more than a measure."""
    if is_cosine(text):
        return _compared(text, context)
    layers, coefs, models = layers_in(text), coefficients_in(text), context.names.mentions(text)
    judges = context.judges_in(text)
    if max(len(layers), len(coefs), len(models), len(judges)) > 1 or context.names.strangers(text):
        return None
    judge = judges[0] if judges else None
    if judge and judge.doubtful and not judges_beside - {judge.judge}:
        # Called like a model that is steered, a judge is meant only where another one is set beside it.
        return None
    spans = [match.span() for match in (*layers, *coefs)]
    spans += [(each.start, each.end) for each in models] + [(each.start, each.end) for each in judges]
    if not spans:
        return None
    rest = without(text, spans)
    measure = _measure(rest)
    if measure is None and (judge or find_numbers(rest) or not is_explained(rest)):
        return None
    if measure == "cell" and judge and not (layers or coefs or models):
        return Axis("cell", judge=judge.judge)
    if measure in LOCATORS or (judge and (measure or "").removeprefix(OF_ITS_CONTROL) not in AXES):
        return None
    if (layers or coefs) and measure is not None and measure not in _POINTS | _OF_VECTORS:
        return None
    return Axis(
        measure or "",
        int(layers[0]["layer"]) if layers else None,
        signed_value(coefs[0]["coef"]) if coefs else None,
        models[0].model if models else None,
        judge.judge if judge else None,
    )


def _compared(text: str, context: Context) -> Axis | None:
    """`Cosine to native`: with which vector those of the rows are compared."""
    variants = variants_in(text, context)
    return (
        Axis("cosine", beside=variants[0]) if len(variants) == 1 and _COMPARED.fullmatch(text.strip(_LOOSE)) else None
    )


def _measure(rest: str) -> str | None:
    """The measure that is left of a header, once words that only link are gone."""
    words, shorter = "", " ".join(rest.split())
    while shorter != words:
        words = shorter
        if measure := meaning(words):
            return measure
        shorter = _LINKING.sub("", words.strip(_LOOSE)).strip(_LOOSE)
    return None


def without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text with some stretches of it blank."""
    return "".join(
        " " if any(start <= at < end for start, end in spans) else character for at, character in enumerate(text)
    )
