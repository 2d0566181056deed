"""Claims in tables.

Invariant: a cell of a table is a claim only if its column has a meaning and its row says what it is about; otherwise
its numbers are listed as not understood. Cells that say where (model, layer, coefficient, feature) are no claims of
their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.context import AXES, CELL, COEFFICIENT, LAYER, Context, signed
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, Extracted
from steer_eval.claims.extract.layout import PlacedTable
from steer_eval.claims.extract.numbers import Number, find_numbers, one_number
from steer_eval.claims.printed import Printed
from steer_eval.formats.card import TableRow, code_spans
from steer_eval.rules.card_files import expanded

_MEANINGS: dict[str, tuple[str, ...]] = {
    "model": ("model", "size", "base model", "network"),
    "cell": ("cell", "best cell", "best", "best setting", "setting", "configuration", "config"),
    "layer": ("layer", "l", "block"),
    "coef": ("coef", "coefficient", "c", "alpha", "α", "strength", "scale", "multiplier"),
    "judge": ("judge",),
    "variant": ("method", "variant", "label", "condition", "transfer method"),
    "feature": ("feature", "feature id", "feature_id", "id", "latent"),
    "perplexity": ("ppl", "perplexity"),
    "perplexity_ratio": ("ppl ratio", "ppl_ratio", "perplexity ratio", "ratio", "ppl x", "rel ppl", "relative ppl"),
    "base_perplexity": ("base ppl", "base_ppl", "baseline ppl", "unsteered ppl", "base perplexity"),
    "vector_norm": ("norm", "vector norm", "‖v‖", "||v||", "l2 norm", "l2"),
    "vector_width": ("d_model", "hidden size", "hidden_size", "width", "dim"),
    "feature_delta": ("delta", "δ", "Δ", "activation delta", "change"),
    "feature_base_mean": ("base mean", "base_mean", "base", "unsteered mean", "mean (base)"),
    "feature_steered_mean": ("steered mean", "steered_mean", "steered", "mean (steered)"),
    "feature_steered_frequency": ("steered freq", "steered_freq", "steered frequency", "freq (steered)"),
    "feature_base_frequency": ("base freq", "base_freq", "base frequency", "freq (base)"),
    "feature_ratio": ("fold change", "fold", "steered/base"),
    "collapsed": ("collapsed", "collapse"),
    "path": ("path", "file", "files", "artifact", "artifacts"),
    "file_size": ("size", "file size"),
    "row_count": ("rows", "row count", "lines", "n", "count"),
    **AXES,
}
_LOCATORS = frozenset({"model", "cell", "layer", "coef", "judge", "variant", "feature", "path"})
_ARROW = re.compile(r"\s*(?:->|→|➜|⟶)\s*")
_NOTHING = frozenset({"", "—", "–", "-", "n/a", "na", "none", "?"})
_TRUTH = {"yes": True, "true": True, "✓": True, "no": False, "false": False, "✗": False}
_SETTING = re.compile(r"\b(?P<key>d_sae|k)\s*=\s*$")
_TOP = re.compile(r"\b[Tt]op-$")
_ROWS = re.compile(r"\s(?:[\w-]+ )?(?:rows|pairs|prompts|cells|scenarios|lines|records)\b", re.IGNORECASE)


def meaning(header: str) -> str | None:
    """What a column is about, from its header; None if that is not known."""
    words = re.sub(r"[*`_]{2}|[*`]", "", header).strip().lower()
    for candidate in (words, re.sub(r"\s*[\[(].*[\])]", "", words).strip(), words.replace("_", " ")):
        for name, spellings in _MEANINGS.items():
            if candidate in {spelling.lower() for spelling in spellings}:
                return name
    return None


def table_claims(placed: PlacedTable, text: str, context: Context) -> Iterator[Extracted]:
    """The claims of a table.

    Args:
        placed: The table and where it stands.
        text: The whole text, for the columns of cells.
        context: What the data has.
    """
    columns = [meaning(header) for header in placed.table.header]
    around = f"{placed.heading}\n{placed.before}\n{' '.join(placed.table.header)}"
    lines = text.split("\n")
    for row in placed.table.rows:
        reader = _Row(row, columns, around, lines[row.line - 1] if row.line else "", context)
        yield from reader.claims(placed.table.header)


@dataclass
class _Row:
    row: TableRow
    columns: list[str | None]
    around: str
    line: str
    context: Context

    def cell(self, name: str) -> str:
        """The text of the first column with a meaning; empty without one."""
        return next((cell for column, cell in zip(self.columns, self.row.cells, strict=False) if column == name), "")

    def claims(self, header: tuple[str, ...]) -> Iterator[Extracted]:
        if "path" in self.columns and self.cell("path"):
            yield from self._of_files()
            return
        select, inferred = self._select()
        position = 0
        for index, cell in enumerate(self.row.cells):
            start = self._find(cell, position)
            position = start + len(cell)
            name = self.columns[index] if index < len(self.columns) else None
            title = header[index].strip(" *`") if index < len(header) else ""
            if name == "cell" and "best" in title.lower():
                yield from self._best(cell, start, select, inferred)
            if name in _LOCATORS:
                continue
            yield from self._cell(cell, start, name, title, select, inferred)

    def _find(self, cell: str, position: int) -> int:
        """Column at which a cell's text begins in its line."""
        return max(self.line.find(cell, position), 0) if cell else position

    def _select(self) -> tuple[Selector, str]:
        named = self.cell("model")
        model = self.context.names.resolve(named) if named else None
        if model is None:
            model = self.context.model(named or self.around)
        place = CELL.search(self.cell("cell"))
        layer, coef = (int(place["layer"]), signed(place["coef"])) if place else (None, None)
        if layer is None and (
            number := LAYER.search(self.cell("layer")) or re.search(r"(?P<layer>[0-9]+)", self.cell("layer"))
        ):
            layer = int(number["layer"])
        if coef is None and (found := one_number(self.cell("coef")) or None):
            coef = found.printed.value
        elif coef is None and (match := COEFFICIENT.search(self.cell("coef"))):
            coef = signed(match["coef"])
        feature = one_number(self.cell("feature"))
        variant = self.cell("variant").strip(" *`") or None
        judge = self.context.judge(self.cell("judge"), self.around)
        inferred = self.context.names.how(model) if model else ""
        select = Selector(model, None, layer, coef, judge, None, variant)
        if feature is not None:
            select = replace(select, feature=int(feature.printed.value))
        return select, inferred

    def _cell(
        self, cell: str, start: int, name: str | None, title: str, select: Selector, inferred: str
    ) -> Iterator[Extracted]:
        if cell.strip(" *`").lower() in _NOTHING:
            return
        if name == "collapsed" and cell.strip(" *`").lower() in _TRUTH:
            claim = self._claim("collapsed", select, _TRUTH[cell.strip(" *`").lower()], title, start)
            yield Extracted(claim, self.row.line, start, start + len(cell), inferred=inferred)
            return
        if name == "perplexity" and len(parts := _ARROW.split(cell)) == 2:
            yield from self._arrow(cell, parts, start, select, inferred)
            return
        number = one_number(cell)
        if name is None or number is None or not self._is_about(name, select):
            for each in find_numbers(cell):
                yield self._not_understood(each, start, title)
            return
        yield self._numeric(self._measure(name, number), number, start, title, select, inferred)

    def _arrow(self, cell: str, parts: list[str], start: int, select: Selector, inferred: str) -> Iterator[Extracted]:
        """`18.94 → 21.31` in a column of perplexities: unsteered, then steered."""
        position = 0
        for part, measure in zip(parts, ("base_perplexity", "perplexity"), strict=True):
            offset = cell.find(part, position)
            position = offset + len(part)
            number = one_number(part)
            if number is not None:
                yield self._numeric(measure, number, start + offset, measure, select, inferred)

    def _numeric(
        self, measure: str, number: Number, start: int, title: str, select: Selector, inferred: str
    ) -> Extracted:
        # A feature's numbers are taken with the coefficient of its table, whatever the row is about.
        chosen = self._reduced(measure, select)
        begin = start + number.start
        claim = self._claim(measure, chosen, number.printed, title, begin)
        return Extracted(claim, self.row.line, begin, begin + len(number.text), bound=number.bound, inferred=inferred)

    def _reduced(self, measure: str, select: Selector) -> Selector:
        """The parts of a selector that a measure has."""
        if measure in AXES:
            return select
        if measure.startswith("feature_"):
            return Selector(select.model, layer=select.layer, feature=select.feature)
        if measure.startswith("vector_"):
            return Selector(select.model, layer=select.layer)
        return Selector(select.model, None, select.layer, select.coef, variant=select.variant)

    def _measure(self, name: str, number: Number) -> str:
        if name == "perplexity" and number.unit == "x":
            return "perplexity_ratio"
        return name

    def _is_about(self, name: str, select: Selector) -> bool:
        """Whether a row says enough about what its numbers are measured on."""
        if name.startswith("feature_"):
            return select.feature is not None
        if name.startswith("vector_"):
            return select.layer is not None
        return select.variant is not None or (select.layer is not None and select.coef is not None)

    def _best(self, cell: str, start: int, select: Selector, inferred: str) -> Iterator[Extracted]:
        if select.layer is None or select.coef is None:
            return
        subject = str(replace(select, layer=None, coef=None)) or "the study"
        identity, words = f"{self.row.line}:{start + 1}", f"the best cell of {subject} is {cell.strip()}"
        claim = Claim(identity, words, "best_cell", select, True)
        yield Extracted(claim, self.row.line, start, start + len(cell), inferred=inferred)

    def _claim(self, measure: str, select: Selector, expected: bool | Printed, title: str, start: int) -> Claim:
        shown = expected.text if isinstance(expected, Printed) else str(expected).lower()
        subject = str(select) or "the study"
        return Claim(f"{self.row.line}:{start + 1}", f"{title} of {subject} is {shown}", measure, select, expected)

    def _not_understood(self, number: Number, start: int, title: str) -> Extracted:
        begin = start + number.start
        claim = Claim(f"{self.row.line}:{begin + 1}", f"{title}: {number.text}", "", Selector(), number.printed)
        return Extracted(claim, self.row.line, begin, begin + len(number.text), NOT_UNDERSTOOD)

    def _of_files(self) -> Iterator[Extracted]:
        """A row about files: sizes, counts and settings of each of them."""
        paths = [path for span in code_spans(self.cell("path")) for path in expanded(span)]
        position = 0
        for index, cell in enumerate(self.row.cells):
            start = self._find(cell, position)
            position = start + len(cell)
            name = self.columns[index] if index < len(self.columns) else None
            if name == "path":
                continue
            for number in find_numbers(cell):
                measure = self._file_measure(cell, number)
                begin = start + number.start
                if measure is None or not paths:
                    yield self._not_understood(number, start, "")
                    continue
                pattern = paths[0] if len(paths) == 1 else self.cell("path").strip(" `")
                select = Selector(file="|".join(paths))
                words = f"{measure.replace('_', ' ')} of {pattern} is {number.text}"
                claim = Claim(f"{self.row.line}:{begin + 1}", words, measure, select, number.printed)
                yield Extracted(claim, self.row.line, begin, begin + len(number.text), bound=number.bound)

    def _file_measure(self, cell: str, number: Number) -> str | None:
        before, after = cell[: number.start], cell[number.end :]
        if number.unit and number.unit[0] in "KMGb":
            return "file_size"
        if setting := _SETTING.search(before):
            return {"d_sae": "sae_width", "k": "sae_k"}[setting["key"]]
        if _TOP.search(before):
            return "feature_count"
        if re.search(r"\blayer\s+$", before):
            return "artifact_layer"
        return "row_count" if _ROWS.match(after) else None


def names_file(select: Selector, path: str) -> bool:
    """Whether a selector's files, paths and globs joined by `|`, include a path."""
    return any(fnmatchcase(path, pattern) for pattern in (select.file or "").split("|"))
