"""Claims in tables.

Invariant: a cell of a table is a claim only if its column has a meaning and its row says what it is about; otherwise
its numbers are listed as not understood. Columns that say where (model, layer, coefficient, feature) hold no claims of
their own: a number there is either what the row is found by, or not understood. Nor is there a claim in a
row with words that nothing here explains, or below a heading or caption with words that may change what is measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from steer_eval.claims.claim import Claim, Label, Selector
from steer_eval.claims.extract.cell_places import PlacedCell, cells_of, unmarked
from steer_eval.claims.extract.context import CellMention, Context, Found, cells_in, coefficients_in, layers_in
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, Extracted
from steer_eval.claims.extract.file_rows import file_claims
from steer_eval.claims.extract.layout import PlacedTable
from steer_eval.claims.extract.meanings import (
    LOCATORS,
    compares,
    fitted,
    is_explained,
    meaning,
    measure_of_grid,
    qualifying,
    reduced,
)
from steer_eval.claims.extract.numbers import Number, find_numbers, one_number, signed_value
from steer_eval.claims.printed import Printed

_ARROW = re.compile(r"\s?(?:->|→|➜|⟶)\s?")
_SLASH = re.compile(r"\s?[\\/]\s?")
_PLAIN = re.compile(r"[+\-−–]?[0-9]{0,6}(?:\.[0-9]+)?\s?[x×]?")
_NOTHING = frozenset({"", "—", "–", "-", "n/a", "na", "none", "?"})
_TRUTH = {"yes": True, "true": True, "✓": True, "✔": True, "no": False, "false": False, "✗": False, "✘": False}
_LABELS: dict[str, Label] = {
    "steered": "steered",
    "zero": "zero",
    "unsteered": "zero",
    "random": "random",
    "anchor": "anchor",
}
_DESCRIPTIVE = re.compile(r"(?:note|comment|remark)s?|descriptions?")
_RANDOM = re.compile(r"\brandom[ -](?:direction|vector|control)s?\b", re.IGNORECASE)
_BOTH = re.compile(r"\b(?:vs|versus|against|than|and|or|not|no|without|steered|unlike|instead|except)\b", re.IGNORECASE)
_OF_RANDOM = frozenset({"random", "control", "seed"})
_OF_LABELS = frozenset({"random", "zero", "anchor"})
_OF_CONTROLS = frozenset({"perplexity", "perplexity_ratio", "collapsed"})


def table_claims(placed: PlacedTable, context: Context) -> Iterator[Extracted]:
    """The claims of a table.

    Args:
        placed: The table and where it stands.
        context: What the data has.
    """
    columns = [meaning(header) for header in placed.table.header]
    titles = [header.strip(" *`") for header in placed.table.header]
    around = _Around.of(placed, context)
    header = cells_of(placed.lines[placed.table.line])
    pivot = _pivot(header, columns, placed)
    for index, cell in enumerate(header):
        if index not in pivot:
            yield from _not_understood(cell, placed.table.line, "header")
    for row in placed.table.rows:
        cells = cells_of(placed.lines[row.line])
        if "path" in columns and columns.index("path") < len(cells) and cells[columns.index("path")].text:
            rows = columns.index("row_count") if "row_count" in columns else None
            yield from file_claims(cells, columns.index("path"), rows, row.line)
        else:
            yield from _Row(cells, columns, titles, row.line, around, pivot, context).claims()


def _not_understood(cell: PlacedCell, line: int, title: str, reason: str = NOT_UNDERSTOOD) -> Iterator[Extracted]:
    for number in find_numbers(cell.text):
        start = cell.start + number.start
        claim = Claim(f"{line}:{start + 1}", f"{title}: {number.text}", "", Selector(), number.printed)
        yield Extracted(claim, line, start, start + len(number.text), reason)


@dataclass(frozen=True)
class _Around:
    """What the words around a table say of all its rows.

    Args:
        model: The model.
        judge: The judge.
        label: The kind of cells, unless the rows say it.
        qualifying: Words that may change what is measured, and that `label` doesn't explain.
    """

    model: Found
    judge: str | None
    label: Label
    qualifying: frozenset[str]

    @classmethod
    def of(cls, placed: PlacedTable, context: Context) -> _Around:
        header = " | ".join(placed.table.header)
        headings = placed.heading.split("\n")[::-1]
        model = context.model(header, *headings[:1], placed.before, *headings[1:])
        nearer = context.model(placed.before)
        if nearer.name and model.name and nearer.name != model.name:
            # The heading and the words before the table disagree.
            model = Found()
        near = f"{headings[0]}\n{placed.before}"
        words, label = qualifying(near), "steered"
        if words <= _OF_RANDOM and _RANDOM.search(near) and not _BOTH.search(near) and not compares(near):
            words, label = set(), "random"
        judge = context.judge(header, placed.before, *headings)
        return cls(model, judge, _LABELS[label], frozenset(words))


@dataclass(frozen=True)
class _Axis:
    """A column that stands for one layer or one coefficient, as in a grid."""

    measure: str
    layer: int | None = None
    coef: float | None = None

    def at(self, row: Selector, label: Label) -> Selector:
        """The cell in which this column meets a row; empty where the row gives no point."""
        layer = row.layer if self.layer is None else self.layer
        coef = row.coef if self.coef is None else self.coef
        if layer is None or coef is None:
            return replace(row, layer=None, coef=None)
        return replace(row, layer=layer, coef=coef, label=label, variant=None)


def _pivot(header: Sequence[PlacedCell], columns: Sequence[str | None], placed: PlacedTable) -> dict[int, _Axis]:
    r"""Columns that are points of a grid: `| Layer | c=1 | c=2 |` under words that name one measure.

    Where the corner names both directions (`| Layer \ c | 1 | 2 |`), the other headers may be bare numbers.
    """
    found: dict[int, tuple[int | None, float | None]] = {}
    across = _across(placed.table.header[0]) if placed.table.header else None
    for index, cell in enumerate(header[: len(columns)]):
        bare = one_number(cell.text)
        if index and across and bare is not None and bare.readable and not bare.unit:
            value = bare.printed.value
            found[index] = (int(value), None) if across == "layer" else (None, value)
            continue
        layers, coefs, count = layers_in(cell.text), coefficients_in(cell.text), len(find_numbers(cell.text))
        rest = _without(cell.text, [*layers, *coefs])
        if columns[index] is None and count == 1 and len(layers) + len(coefs) == 1 and is_explained(rest):
            found[index] = (
                int(layers[0]["layer"]) if layers else None,
                signed_value(coefs[0]["coef"]) if coefs else None,
            )
    rows = {"layer", "coef"} & {column for column in columns if column}
    over = "coef" if rows == {"layer"} else "layer" if rows == {"coef"} else ""
    measure = measure_of_grid(placed.before, placed.heading.split("\n")[::-1])
    mixed = any((coef is None) == (over == "coef") for _, coef in found.values())
    if len(found) < 2 or not over or measure is None or mixed:
        return {}
    return {index: _Axis(measure, layer, coef) for index, (layer, coef) in found.items()}


def _across(corner: str) -> str | None:
    """What the columns of a grid are, if its corner names both directions."""
    parts = [meaning(part) for part in _SLASH.split(corner.strip(" *`"))]
    return parts[1] if len(parts) == 2 and set(parts) == {"layer", "coef"} else None


def _without(text: str, found: Sequence[re.Match[str]]) -> str:
    """A text without what was found in it."""
    return "".join(
        " " if any(each.start() <= at < each.end() for each in found) else text[at] for at in range(len(text))
    )


@dataclass
class _Row:
    cells: list[PlacedCell]
    columns: list[str | None]
    titles: list[str]
    line: int
    around: _Around
    pivot: dict[int, _Axis]
    context: Context

    def cell(self, name: str) -> str:
        """The text of the first column with a meaning; empty without one."""
        index = self.columns.index(name) if name in self.columns else len(self.cells)
        return self.cells[index].text if index < len(self.cells) else ""

    def claims(self) -> Iterator[Extracted]:
        model = self._model()
        cell = self._cell()
        select = self._select(model, cell)
        unclear = model.stranger or ("" if self._is_explained() else NOT_UNDERSTOOD)
        for index, placed in enumerate(self.cells):
            name = self.columns[index] if index < len(self.columns) else None
            title = self.titles[index] if index < len(self.titles) else "no column"
            if unclear and name not in LOCATORS:
                yield from _not_understood(placed, self.line, title, unclear)
            elif unclear:
                yield from self._locator(placed, name or "", title, cell)
            elif name == "cell" and cell is not None and "best" in title.lower():
                yield from self._best(placed, select)
            elif name in LOCATORS:
                yield from self._locator(placed, name or "", title, cell)
            elif index in self.pivot:
                axis = self.pivot[index]
                yield from self._value(placed, axis.measure, title, axis.at(select, select.label or self.around.label))
            else:
                yield from self._value(placed, name, title, select)

    def _model(self) -> Found:
        named = self.cell("model")
        if not named.strip(" *`"):
            return self.around.model
        mentioned = self.context.names.mentioned(named)
        model = self.context.names.resolve(named) or (mentioned[0] if len(mentioned) == 1 else None)
        return Found(model) if model else Found(stranger=f"no model of the data is called {named.strip(' *`')}")

    def _is_explained(self) -> bool:
        """Whether every word of the row and around the table is one that its claims take into account."""
        named, around = self.cell("variant").strip(" *`").lower(), self.around.qualifying
        if named and self.around.label not in ("steered", _LABELS.get(named)):
            return False
        if named:
            # What is said of controls is about the rows that are called so; of one kind only, not about the others.
            spoken = around & _OF_LABELS
            if len(spoken) != 1 or next(iter(spoken)) in named:
                around = around - _OF_LABELS - {"control", "baseline"}
        judged_by = self.cell("judge")
        if around or qualifying(judged_by):
            return False
        seen = set()
        for index, placed in enumerate(self.cells):
            name = self.columns[index] if index < len(self.columns) else None
            if name is None and index not in self.pivot and self._qualifies(index, placed):
                return False
            if name in LOCATORS and placed.text.strip(" *`").lower() not in _NOTHING:
                if name in seen or not self._is_plain(name or "", placed.text):
                    return False
                seen.add(name)
        return True

    def _qualifies(self, index: int, cell: PlacedCell) -> bool:
        """Whether a cell of a column that is not known may say that its row is another measurement."""
        title = self.titles[index].lower() if index < len(self.titles) else ""
        bare = unmarked(cell).text.strip(" *`_")
        if _DESCRIPTIVE.fullmatch(title) or bare.lower() in _NOTHING:
            return False
        return bool(qualifying(title)) or (one_number(bare) is None and re.search(r"[^\W\d_]", bare) is not None)

    def _is_plain(self, name: str, text: str) -> bool:
        """Whether nothing is left of a cell that says where, once what is understood of it is taken away."""
        if name == "model":
            model = self._model().name
            base = self.context.names.base_models.get(model or "", "")
            return model is None or is_explained(text, f"{model.replace('_', ' ')} {base}")
        if name == "cell":
            cells = cells_in(text)
            return len(cells) == 1 and is_explained(text[: cells[0].start] + " " + text[cells[0].end :])
        if name in ("layer", "coef"):
            found = layers_in(text) if name == "layer" else coefficients_in(text)
            return not found or is_explained(_without(text, found))
        return True

    def _cell(self) -> CellMention | None:
        cells = cells_in(self.cell("cell"))
        return cells[0] if len(cells) == 1 else None

    def _select(self, model: Found, cell: CellMention | None) -> Selector:
        layer, coef = (cell.layer, cell.coef) if cell else (self._layer(), self._coef())
        feature = one_number(self.cell("feature"))
        named = self.cell("variant").strip(" *`")
        label: Label | None = None
        variant: str | None = None
        if layer is not None and coef is not None and (not named or named.lower() in _LABELS):
            label = _LABELS[named.lower()] if named else self.around.label
        else:
            variant = self.context.variant(named)
        judged_by = self.cell("judge")
        judge = self.context.judge_named(judged_by) if judged_by.strip(" *`") else self.around.judge
        select = Selector(model.name, label, layer, coef, judge, None, variant)
        if feature is not None and feature.readable and not feature.unit and feature.printed.value >= 0:
            select = replace(select, feature=int(feature.printed.value))
        return select

    def _layer(self) -> int | None:
        named = layers_in(self.cell("layer"))
        number = one_number(self.cell("layer"))
        if len(named) == 1 and len(find_numbers(self.cell("layer"))) <= 1:
            return int(named[0]["layer"])
        whole = number is not None and number.readable and not number.unit and re.fullmatch("[0-9]{1,4}", number.text)
        return int(number.printed.value) if number is not None and whole else None

    def _coef(self) -> float | None:
        number = one_number(self.cell("coef"))
        if number is not None:
            return number.printed.value if number.readable and _PLAIN.fullmatch(number.text) else None
        named = coefficients_in(self.cell("coef"))
        alone = len(named) == 1 and len(find_numbers(self.cell("coef"))) == 1
        return signed_value(named[0]["coef"]) if alone else None

    def _locator(self, cell: PlacedCell, name: str, title: str, mention: CellMention | None) -> Iterator[Extracted]:
        """Numbers of a cell that says where, but for those that the row is found by."""
        found = find_numbers(cell.text)
        used = name in ("model", "variant") or (name == "cell" and mention is not None and len(found) == 2)
        if not used and not (name in ("layer", "coef", "feature") and len(found) == 1):
            yield from _not_understood(cell, self.line, title)

    def _value(self, cell: PlacedCell, name: str | None, title: str, select: Selector) -> Iterator[Extracted]:
        bare = cell.text.strip(" *`_").lower()
        if bare in _NOTHING and bare not in _TRUTH:
            return
        if name == "collapsed" and bare in _TRUTH:
            if self._is_about(name, select):
                chosen = reduced(name, select)
                claim = self._claim(name, chosen, _TRUTH[bare], title, cell.start)
                yield self._found(claim, cell.start, len(cell.text), chosen)
            return
        cell = unmarked(cell)
        label = select.label or ("steered" if select.variant else self.around.label)
        if label != "steered" and name and name not in (*_OF_CONTROLS, "base_perplexity"):
            # What the measure is taken on would lose the kind of cell: the norm of the layer is not that of a control.
            yield from _not_understood(cell, self.line, title)
            return
        parts = _ARROW.split(cell.text)
        if name == "perplexity" and len(parts) == 2 and self._is_about(name, select):
            yield from self._arrow(cell, parts, select)
            return
        number = one_number(cell.text)
        made = fitted(name, number) if name and number is not None and self._is_about(name, select) else None
        if number is None or made is None:
            yield from _not_understood(cell, self.line, title)
            return
        yield self._numeric(*made, number, cell.start, title, select)

    def _arrow(self, cell: PlacedCell, parts: Sequence[str], select: Selector) -> Iterator[Extracted]:
        """`18.94 → 21.31` in a column of perplexities: unsteered, then steered."""
        offsets = (0, len(cell.text) - len(parts[1]))
        for part, offset, measure in zip(parts, offsets, ("base_perplexity", "perplexity"), strict=True):
            number = one_number(part)
            made = fitted(measure, number) if number is not None else None
            if number is None or made is None:
                yield from _not_understood(PlacedCell(part, cell.start + offset), self.line, measure)
            else:
                yield self._numeric(*made, number, cell.start + offset, measure.replace("_", " "), select)

    def _numeric(
        self, measure: str, printed: Printed, number: Number, start: int, title: str, select: Selector
    ) -> Extracted:
        if measure == "vector_norm" and select.variant is not None:
            measure = "applied_norm"
        chosen = reduced(measure, select)
        begin = start + number.start
        claim = self._claim(measure, chosen, printed, title, begin)
        return self._found(claim, begin, len(number.text), chosen, number.bound)

    def _found(self, claim: Claim, start: int, length: int, select: Selector, bound: str = "") -> Extracted:
        inferred = self.context.names.how(select.model) if select.model else ""
        return Extracted(claim, self.line, start, start + length, bound=bound, inferred=inferred)

    def _is_about(self, name: str, select: Selector) -> bool:
        """Whether a row says enough about what its numbers are measured on."""
        if name.startswith("feature_"):
            return select.feature is not None
        if name.startswith("vector_"):
            return select.layer is not None or (name == "vector_norm" and select.variant is not None)
        if name == "base_perplexity" and select.model is not None:
            return True
        return select.variant is not None or (select.layer is not None and select.coef is not None)

    def _best(self, cell: PlacedCell, select: Selector) -> Iterator[Extracted]:
        subject = str(replace(select, label=None, layer=None, coef=None)) or "the study"
        words = f"the best cell of {subject} is {cell.text.strip('*` ')}"
        select = replace(select, label=None, variant=None, feature=None)
        claim = Claim(f"{self.line}:{cell.start + 1}", words, "best_cell", select, True)
        yield self._found(claim, cell.start, len(cell.text), select)

    def _claim(self, measure: str, select: Selector, expected: bool | Printed, title: str, start: int) -> Claim:
        shown = expected.text if isinstance(expected, Printed) else str(expected).lower()
        # That a cell is steered goes without saying.
        subject = str(replace(select, label=None) if select.label == "steered" else select) or "the study"
        return Claim(f"{self.line}:{start + 1}", f"{title} of {subject} is {shown}", measure, select, expected)
