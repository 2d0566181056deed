"""Claims in a row of a table.

Invariant: a cell of a row is a claim only if its column has a meaning and its row says what it is about; otherwise its
numbers are listed as not understood. Columns that say where (model, layer, coefficient, feature) hold no claims of
their own: a number there is either what the row is found by, or not understood. Nor is there a claim in a row with
words that nothing here explains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from steer_eval.claims.claim import Claim, Label, Selector
from steer_eval.claims.extract.around import LABELS, Around
from steer_eval.claims.extract.axes import Axis, without
from steer_eval.claims.extract.cell_places import PlacedCell, unmarked
from steer_eval.claims.extract.context import AXES, CellMention, Context, Found, cells_in, coefficients_in, layers_in
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, Extracted
from steer_eval.claims.extract.meanings import LOCATORS, OF_ITS_CONTROL, fitted, is_explained, qualifying, reduced
from steer_eval.claims.extract.numbers import Number, find_numbers, one_number, signed_value
from steer_eval.claims.extract.tested import tested_claims, tested_measure
from steer_eval.claims.printed import Printed

_ARROW = re.compile(r"\s?(?:->|=>|→|➜|⟶|⇒|&rarr;|\$?\\(?:right)?(?:to|arrow)(?![A-Za-z])\$?)\s?")
_OF_FIVE = re.compile(r"[*_`]{0,3}[0-5](?:\.[0-9]{1,3})?[*_`]{0,3}\s?/\s?5(?:\.0)?[*_`]{0,3}")
_PLAIN = re.compile(r"[+\-−–]?[0-9]{0,6}(?:\.[0-9]+)?\s?[x×]?")
_NOTHING = frozenset({"", "—", "–", "-", "n/a", "na", "none", "?"})
TRUTH = {"yes": True, "true": True, "✓": True, "✔": True, "no": False, "false": False, "✗": False, "✘": False}
"""What stands for yes and no."""
_DESCRIPTIVE = re.compile(r"(?:note|comment|remark)s?|descriptions?|what it does")
_MEASURED = re.compile(r"\b(?:ratings?|scores?|ppl|perplexity|margin|coherence|norm|accuracy|loss|ratio|anger|rage)\b")
_INTERVALS = {"feature_delta_interval": "feature_delta", "perplexity_ratio_interval": "perplexity_ratio"}
_OF_LABELS = frozenset({"random", "zero", "anchor"})
_OF_CONTROLS = frozenset({"perplexity", "perplexity_ratio", "collapsed"})
_OF_METHODS = frozenset({"texts_changed", "margin"})
"""Measures that the control of a method has as well, found by the method's name."""
SEVERAL_LAYERS = "several layers"
"""What stands for the place of a method that acts at more than one."""


def not_understood(cell: PlacedCell, title: str, reason: str = NOT_UNDERSTOOD) -> Iterator[Extracted]:
    """The numbers of a cell, none of which is a claim.

    Args:
        cell: The cell.
        title: What its column is called.
        reason: Why there is no claim.
    """
    for number in find_numbers(cell.text):
        start = cell.start + number.start
        claim = Claim(f"{cell.line}:{start + 1}", f"{title}: {number.text}", "", Selector(), number.printed)
        yield Extracted(claim, cell.line, start, start + len(number.text), reason)


@dataclass(frozen=True)
class Row:
    """A row of a table, with what its columns and its surroundings say.

    Args:
        cells: Its cells.
        columns: What each column means; None where that is not known.
        titles: What the header calls each column.
        around: What the words around the table say.
        axes: Columns that are for one layer, coefficient, model or judge.
        context: What the data has.
    """

    cells: Sequence[PlacedCell]
    columns: Sequence[str | None]
    titles: Sequence[str]
    around: Around
    axes: Mapping[int, Axis]
    context: Context

    def cell(self, name: str) -> str:
        """The text of the first column with a meaning; empty without one."""
        index = self.columns.index(name) if name in self.columns else len(self.cells)
        return self.cells[index].text if index < len(self.cells) else ""

    def claims(self) -> Iterator[Extracted]:
        """The claims of the row, and its numbers that are none."""
        model = self._model()
        cell = self._cell()
        select = self._select(model, cell)
        unclear = model.stranger or ("" if self._is_explained() else NOT_UNDERSTOOD)
        if not unclear and self.around.file.absent:
            unclear = f"the file is absent: {self.around.file.absent}"
        for index, placed in enumerate(self.cells):
            name = self.columns[index] if index < len(self.columns) else None
            title = self.titles[index] if index < len(self.titles) else "no column"
            tested = tested_measure(title, placed.text)
            if tested and self.around.file.diagnostics and not self.around.qualifying:
                # Which transfer it is of, the file says.
                of_file = Selector(variant=select.variant, file=self.around.file.diagnostics)
                yield from tested_claims(placed, tested, of_file)
            elif unclear and name not in LOCATORS:
                yield from not_understood(placed, title, unclear)
            elif unclear:
                yield from self._locator(placed, name or "", title, cell)
            elif name == "cell" and cell is not None and "best" in title.lower():
                axis = self.axes.get(index)
                yield from self._best(placed, replace(select, judge=axis.judge) if axis else select)
            elif name in LOCATORS:
                yield from self._locator(placed, name or "", title, cell)
            elif name == "where":
                yield from self._where(placed, title, select)
            elif index in self.axes:
                yield from self._on_axis(placed, self.axes[index], title, select)
            else:
                yield from self._value(placed, name, title, select)

    def _on_axis(self, cell: PlacedCell, axis: Axis, title: str, select: Selector) -> Iterator[Extracted]:
        stated = select.model if self.cell("model").strip(" *`") else None
        chosen = axis.at(select, select.label or self.around.label, stated)
        if chosen is None:
            yield from not_understood(cell, title)
        else:
            yield from self._value(cell, axis.measure, axis.measure.replace("_", " "), chosen)

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
        if named and self.around.label not in ("steered", LABELS.get(named)):
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
            if name is None and index not in self.axes and self._qualifies(index, placed):
                return False
            if name == "where" and not self._is_place(placed.text):
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
        if _DESCRIPTIVE.fullmatch(title) or bare.lower() in _NOTHING or tested_measure(title, bare):
            return False
        if _MEASURED.search(title) and one_number(bare) is not None:
            # A measurement of its own says nothing of those beside it.
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
            return not found or is_explained(without(text, [each.span() for each in found]))
        return True

    def _is_place(self, text: str) -> bool:
        """Whether a cell says where a method of a comparison acts, and nothing else."""
        if self.context.variant(self.cell("variant").strip(" *`")) not in self.context.methods:
            return False
        bare = text.strip(" *`").lower()
        spans = [each.span() for each in (*layers_in(text), *coefficients_in(text))]
        return bare in (*_NOTHING, SEVERAL_LAYERS) or (bool(spans) and is_explained(without(text, spans)))

    def _where(self, cell: PlacedCell, title: str, select: Selector) -> Iterator[Extracted]:
        """Where a method of a comparison acts: `L=18 c=+2`, or the layer alone."""
        layers, coefficients = layers_in(cell.text), coefficients_in(cell.text)
        measures = {match.end("layer"): "applied_layer" for match in layers}
        measures |= {match.end("coef"): "applied_coefficient" for match in coefficients}
        found = {number.start + len(number.text): number for number in find_numbers(cell.text)}
        if len(layers) > 1 or len(coefficients) > 1 or set(found) != set(measures):
            yield from not_understood(cell, title)
            return
        of_method = Selector(select.model, "steered", variant=select.variant)
        for end, number in found.items():
            start = cell.start + number.start
            yield self._claim(measures[end], of_method, number.printed, title, cell, start, len(number.text))

    def _cell(self) -> CellMention | None:
        cells = cells_in(self.cell("cell"))
        return cells[0] if len(cells) == 1 else None

    def _select(self, model: Found, cell: CellMention | None) -> Selector:
        layer, coef = (cell.layer, cell.coef) if cell else (self._layer(), self._coef())
        feature = one_number(self.cell("feature"))
        named = self.cell("variant").strip(" *`")
        label: Label | None = None
        variant: str | None = None
        if layer is not None and coef is not None and (not named or named.lower() in LABELS):
            label = LABELS[named.lower()] if named else self.around.label
        else:
            variant = self.context.variant(named)
        judged_by = self.cell("judge")
        judge = self.context.judge_named(judged_by) if judged_by.strip(" *`") else self.around.judge
        if variant in self.context.methods:
            # A method stands beside its control, which has the same name.
            label = "steered"
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
            yield from not_understood(cell, title)

    def _value(self, cell: PlacedCell, name: str | None, title: str, select: Selector) -> Iterator[Extracted]:
        bare = cell.text.strip(" *`_").lower()
        if bare in _NOTHING and bare not in TRUTH:
            return
        cell = unmarked(cell)
        label = select.label or ("steered" if select.variant else self.around.label)
        select = self._in_file(name or "", select)
        about = name is not None and self._is_about(name, select)
        if name and name.startswith(OF_ITS_CONTROL):
            name, label, select = name.removeprefix(OF_ITS_CONTROL), "random", replace(select, label="random")
        if name in _INTERVALS and about:
            yield from self._interval(cell, _INTERVALS[name], title, select)
            return
        if name == "collapsed" and bare in TRUTH:
            if about:
                chosen = self._of_method(reduced(name, select), select)
                yield self._claim(name, chosen, TRUTH[bare], title, cell, cell.start, len(cell.text))
            return
        kept = (*_OF_CONTROLS, *(_OF_METHODS if select.variant in self.context.methods else ()), "base_perplexity")
        if label != "steered" and name and name not in kept:
            # What the measure is taken on would lose the kind of cell: the norm of the layer is not that of a control.
            yield from not_understood(cell, title)
            return
        parts = _ARROW.split(cell.text)
        if name == "perplexity" and len(parts) == 2 and about:
            yield from self._arrow(cell, parts, select)
            return
        if name in AXES and name != "margin" and about and _OF_FIVE.fullmatch(cell.text):
            yield from self._of_five(cell, name, title, select)
            return
        number = one_number(cell.text)
        made = fitted(name, number) if name and number is not None and about else None
        if number is None or made is None:
            yield from not_understood(cell, title)
            return
        yield self._numeric(*made, number, cell, title, select)

    def _in_file(self, name: str, select: Selector) -> Selector:
        """What a row is about, with what the name of the file says that the heading names."""
        file = self.around.file
        if select.variant is not None and file.holds(name):
            return replace(select, file=file.labelled, judge=file.judge)
        if name.startswith("transfer_") and file.diagnostics is not None:
            return replace(select, file=file.diagnostics)
        if select.layer is None and file.layer is not None and name.startswith(("vector_", "feature_")):
            return replace(select, layer=file.layer)
        return select

    def _arrow(self, cell: PlacedCell, parts: Sequence[str], select: Selector) -> Iterator[Extracted]:
        """`18.94 → 21.31` in a column of perplexities: unsteered, then steered."""
        offsets = (0, len(cell.text) - len(parts[1]))
        for words, offset, measure in zip(parts, offsets, ("base_perplexity", "perplexity"), strict=True):
            part = replace(cell, text=words, start=cell.start + offset)
            number = one_number(words)
            made = fitted(measure, number) if number is not None else None
            if number is None or made is None:
                yield from not_understood(part, measure)
            else:
                yield self._numeric(*made, number, part, measure.replace("_", " "), select)

    def _interval(self, cell: PlacedCell, measure: str, title: str, select: Selector) -> Iterator[Extracted]:
        """`+0.12 to +0.34`: both ends of an interval."""
        numbers = find_numbers(cell.text)
        if len(numbers) != 2 or one_number(cell.text) is None or not all(each.readable for each in numbers):
            yield from not_understood(cell, title)
            return
        for number, end in zip(numbers, ("low", "high"), strict=True):
            yield self._numeric(f"{measure}_{end}", number.printed, number, cell, title, select)

    def _of_method(self, chosen: Selector, select: Selector) -> Selector:
        """A method's selector: which of the two that go by its name is meant, the method or its control."""
        return replace(chosen, label=select.label) if chosen.variant in self.context.methods else chosen

    def _of_five(self, cell: PlacedCell, name: str, title: str, select: Selector) -> Iterator[Extracted]:
        """`3.5/5` in a column of scores: the score, and the end of the scale."""
        score, end = find_numbers(cell.text)
        yield self._numeric(name, score.printed, score, cell, title, select)
        scale, start = Selector(judge=select.judge), cell.start + end.start
        yield self._claim("scores_to", scale, end.printed, "the highest score", cell, start, len(end.text))

    def _numeric(
        self, measure: str, printed: Printed, number: Number, cell: PlacedCell, title: str, select: Selector
    ) -> Extracted:
        if measure == "vector_norm" and select.variant is not None:
            measure = "applied_norm"
        chosen = self._of_method(reduced(measure, select), select)
        if chosen.variant is not None and select.file is not None:
            chosen = replace(chosen, file=select.file)
        start = cell.start + number.start
        return self._claim(measure, chosen, printed, title, cell, start, len(number.text), number.bound)

    def _claim(
        self,
        measure: str,
        select: Selector,
        expected: bool | Printed,
        title: str,
        cell: PlacedCell,
        start: int,
        length: int,
        bound: str = "",
    ) -> Extracted:
        shown = expected.text if isinstance(expected, Printed) else str(expected).lower()
        claim = Claim(f"{cell.line}:{start + 1}", f"{title}: {shown}", measure, select, expected)
        inferred = self.context.names.how(select.model) if select.model else ""
        return Extracted(claim, cell.line, start, start + length, bound=bound, inferred=inferred)

    def _is_about(self, name: str, select: Selector) -> bool:
        """Whether a row says enough about what its numbers are measured on."""
        if name.startswith("feature_"):
            return select.feature is not None
        if name.startswith("sae_"):
            return select.layer is not None
        if name.startswith("vector_"):
            return select.layer is not None or (name == "vector_norm" and select.variant is not None)
        if name == "base_perplexity" and select.model is not None:
            return True
        return select.variant is not None or (select.layer is not None and select.coef is not None)

    def _best(self, cell: PlacedCell, select: Selector) -> Iterator[Extracted]:
        select = replace(select, label=None, variant=None, feature=None)
        claim = Claim(f"{cell.line}:{cell.start + 1}", f"best cell: {cell.text}", "best_cell", select, True)
        inferred = self.context.names.how(select.model) if select.model else ""
        yield Extracted(claim, cell.line, cell.start, cell.start + len(cell.text), inferred=inferred)
