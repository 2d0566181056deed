"""Tables of claims: a sentence, the measure that it names, and the value; our own cards have one.

Invariant: the measure is the one that its column names, and the sentence only says what it was taken on. A sentence
with a number that is neither the value nor a place, or with a word that may change what is measured, makes no claim.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from steer_eval.claims.claim import Claim, Label, Selector
from steer_eval.claims.extract.alignments import variants_in
from steer_eval.claims.extract.around import LABELS
from steer_eval.claims.extract.cell_places import PlacedCell
from steer_eval.claims.extract.context import AXES, Context, cells_in, coefficients_in, layers_in
from steer_eval.claims.extract.extracted import SAYS_WHERE, Extracted
from steer_eval.claims.extract.layout import PlacedTable
from steer_eval.claims.extract.meanings import SHARES, fitted, qualifying, reduced
from steer_eval.claims.extract.numbers import Number, find_numbers, one_number, signed_value
from steer_eval.claims.extract.rows import TRUTH, not_understood
from steer_eval.claims.extract.subjects import features_in
from steer_eval.claims.fact import DEFINITIONS
from steer_eval.claims.printed import Printed

_HEADERS = (frozenset({"claim", "statement"}), frozenset({"measure", "metric"}), frozenset({"value", "expected"}))
NEEDS_RERUN = frozenset({"vector_cosine", "identical_generations"})
"""Measures that compare a re-run with what was published."""
_TRUE_OR_FALSE = frozenset({"collapsed"})
_NAMED = re.compile(
    r"[*`]*(?P<measure>\w+)[*`]*"
    r"(?:\sof\s`?(?P<variant>[\w+ -]{1,64}?)`?(?:\s\(`?(?P<label>steered|random|zero|anchor)`?\))?)?"
)
_LABELS: Mapping[Label, re.Pattern[str]] = {
    "zero": re.compile(r"\bcoefficient (?:zero|0)\b|\bunsteered\b|\bwithout steering\b", re.IGNORECASE),
    "random": re.compile(r"\brandom (?:direction|vector|control)s?\b", re.IGNORECASE),
    "anchor": re.compile(r"\bsystem prompt\b|\banchor\b", re.IGNORECASE),
}
_EXPLAINED: Mapping[str, frozenset[str]] = {
    "zero": frozenset({"zero"}),
    "random": frozenset({"random", "control"}),
    "anchor": frozenset({"anchor", "prompt"}),
    "steered": frozenset(),
}
_COMPARED = re.compile(r"\b(?:than|instead|except|minus|versus|vs)\b|\bnot a\b", re.IGNORECASE)
_DENIES = re.compile(r"\b(?:not|never|without|no)\b|n't\b", re.IGNORECASE)
_COUNTS = frozenset({"contrast_pair_count", "prompt_count"})


def columns_of_claims(header: Sequence[PlacedCell]) -> tuple[int, int, int] | None:
    """The columns of the sentence, the measure and the value; None where a table is of another kind."""
    titles = [cell.text.strip(" *`").lower() for cell in header]
    found = [[index for index, title in enumerate(titles) if title in names] for names in _HEADERS]
    if len(header) != len(_HEADERS) or any(len(each) != 1 for each in found):
        return None
    (sentence,), (measure,), (value,) = found
    return sentence, measure, value


def stated_claims(
    cells: Sequence[PlacedCell], columns: tuple[int, int, int], placed: PlacedTable, context: Context
) -> Iterator[Extracted]:
    """The claims of a row: its value, and the same number in the sentence.

    Args:
        cells: The cells of the row.
        columns: Where the sentence, the measure and the value stand.
        placed: The table.
        context: What the data has.
    """
    sentence, named, value = (cells[index] if index < len(cells) else PlacedCell("", 0) for index in columns)
    measure = _NAMED.fullmatch(named.text.strip())
    name, variant, label = measure.groups() if measure else (named.text.strip(" *`"), None, None)
    made = _Stated(sentence, name, value, placed, context, variant, LABELS.get(label or "")).claims()
    yield from made or (each for cell in (sentence, value) for each in not_understood(cell, _title(cell, sentence)))


def _title(cell: PlacedCell, sentence: PlacedCell) -> str:
    return "claim" if cell is sentence else "value"


@dataclass(frozen=True)
class _Stated:
    sentence: PlacedCell
    measure: str
    value: PlacedCell
    placed: PlacedTable
    context: Context
    variant: str | None = None
    label: Label | None = None

    def claims(self) -> list[Extracted] | None:
        """The claims; None where anything is left open."""
        if self.measure not in DEFINITIONS and self.measure not in NEEDS_RERUN:
            return None
        select = self._select()
        number = one_number(self.value.text)
        truth = TRUTH.get(self.value.text.strip(" *`").lower())
        if select is None:
            return None
        places = self._places()
        free = [each for each in find_numbers(self.sentence.text) if not self._is_place(each, places)]
        if self.measure in _TRUE_OR_FALSE:
            if truth is None or free or truth is (_DENIES.search(self.sentence.text) is not None):
                return None
            whole = self._claim(select, truth, self.value, 0, len(self.value.text))
            return [*self._where(places), whole]
        made = self._fitted(number) if number is not None else None
        if number is None or made is None or made[0] != self.measure:
            return None
        again = [self._in_sentence(each) for each in free]
        if not all(each is not None and each.value == made[1].value for each in again):
            # The sentence says another number than the value.
            return None
        said = [
            self._claim(select, printed, self.sentence, each.start, len(each.text), each.bound)
            for each, printed in zip(free, again, strict=True)
            if printed is not None
        ]
        beside = self._claim(select, made[1], self.value, number.start, len(number.text), number.bound)
        return [*self._where(places), *said, beside]

    def _fitted(self, number: Number) -> tuple[str, Printed] | None:
        """The measure and its value; a value stands in the measure's own unit, which is not that of a share of one."""
        if self.measure in SHARES and number.readable and not number.unit:
            return self.measure, number.printed
        return fitted(self.measure, number)

    def _in_sentence(self, number: Number) -> Printed | None:
        made = self._fitted(number)
        return made[1] if made is not None and made[0] == self.measure else None

    def _select(self) -> Selector | None:
        """What the sentence is about; None if it names two things of one kind."""
        text, context = self.sentence.text, self.context
        cells = {(cell.layer, cell.coef) for cell in cells_in(text)}
        layers = {int(match["layer"]) for match in layers_in(text)}
        coefs = {signed_value(match["coef"]) for match in coefficients_in(text)}
        features = {each.feature for each in features_in(text)}
        labels = [label for label, pattern in _LABELS.items() if pattern.search(text)]
        variants = variants_in(text, context) if self.measure in (*AXES, "heldout_r2", "applied_norm") else []
        # What a method does may be said in the words for kinds of cells, and a transfer is between two layers.
        kinds = () if self.variant else labels
        places = () if self.measure.startswith("transfer_") else layers
        named: tuple[Collection[object], ...] = (cells, places, coefs, features, kinds, variants)
        if any(len(each) > 1 for each in named) or _COMPARED.search(text):
            return None
        label: Label = self.label or (kinds[0] if kinds else "steered")
        known = _EXPLAINED[label] | (frozenset({"held-out"}) if self.measure in _COUNTS else frozenset())
        if self.measure.startswith(("sae_", "transfer_")):
            known |= {"held-out", "residual"}
        if self.variant is None and not qualifying(text) <= known:
            return None
        headings = self.placed.heading.split("\n")[::-1]
        model = context.model(text, self.placed.before, *headings)
        if model.stranger:
            return None
        judge = context.judge(text, self.placed.before, *headings) if self.measure in AXES else None
        layer, coef, feature = next(iter(layers), None), next(iter(coefs), None), next(iter(features), None)
        if self.measure == "best_cell" or (coef == 0 and label == "steered"):
            return None
        variant = self.variant or (variants[0] if variants else None)
        chosen = reduced(self.measure, Selector(model.name, label, layer, coef, judge, feature, variant))
        if self.variant is None:
            return chosen
        of_method = self.variant in context.methods
        # By a method's name go the method and its control; nothing else that is called so has a kind.
        return replace(chosen, variant=self.variant, label=label if of_method else None)

    def _places(self) -> list[tuple[int, int]]:
        """Where the sentence names layers, coefficients, features and models."""
        text = self.sentence.text
        spans = [match.span("layer") for match in layers_in(text)] + [
            match.span("coef") for match in coefficients_in(text)
        ]
        spans += [(each.start, each.end) for each in features_in(text)]
        return spans + [(each.start, each.end) for each in self.context.names.mentions(text)]

    def _is_place(self, number: Number, places: Sequence[tuple[int, int]]) -> bool:
        return any(start < number.end and number.start < end for start, end in places)

    def _where(self, places: Sequence[tuple[int, int]]) -> list[Extracted]:
        cell = self.sentence
        found = []
        for number in find_numbers(cell.text):
            if self._is_place(number, places):
                start = cell.start + number.start
                claim = Claim(f"{cell.line}:{start + 1}", f"claim: {number.text}", "", Selector(), number.printed)
                found.append(Extracted(claim, cell.line, start, start + len(number.text), SAYS_WHERE))
        return found

    def _claim(
        self, select: Selector, expected: bool | Printed, cell: PlacedCell, at: int, length: int, bound: str = ""
    ) -> Extracted:
        start = cell.start + at
        shown = expected.text if isinstance(expected, Printed) else str(expected).lower()
        claim = Claim(f"{cell.line}:{start + 1}", f"{self.measure}: {shown}", self.measure, select, expected)
        inferred = self.context.names.how(select.model) if select.model else ""
        return Extracted(claim, cell.line, start, start + length, bound=bound, inferred=inferred)
