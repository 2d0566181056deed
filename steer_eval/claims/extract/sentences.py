"""Claims in sentences.

Invariant: a number in a sentence is a claim only by one of the patterns below, which docs/claims.md lists; each pattern
says which words must stand around it. What no pattern understands is listed as not understood.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract import groups
from steer_eval.claims.extract.alignments import aligned, place_of, variants_in
from steer_eval.claims.extract.around import LABELS
from steer_eval.claims.extract.axes import without
from steer_eval.claims.extract.clauses import sentences
from steer_eval.claims.extract.context import AXES, CellMention, Context
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, SAYS_WHERE, Extracted
from steer_eval.claims.extract.layout import Part
from steer_eval.claims.extract.meanings import fitted
from steer_eval.claims.extract.numbers import Number, find_numbers
from steer_eval.claims.extract.subjects import Subjects
from steer_eval.claims.extract.wordings import NEAR, count_beside, is_no_result, is_of_another, measure_beside
from steer_eval.claims.printed import Printed

_BEST = re.compile(
    r"(?<!second )(?<!third )(?<!next )\bbest (?:steered )?(?:cell|setting|configuration|config|point)\b(?!.*\bnot\b)"
    r"(?:[^.;]|\.(?=[0-9])){0,40}$"
    r"|(?<!second )(?<!third )(?<!next )\bbest(?: is| was| at)?\W{0,4}$",
    re.IGNORECASE,
)
_SCALE = re.compile(r"\s{0,2}(?:--|–|-|to)\s{0,2}")
_RUBRIC = re.compile(r"\s{0,2}(?:rubric|scale)\b")
_FREQUENCY = re.compile(r"\s(?:of (?:all |the )?)?(?P<noun>tokens|prompts|samples|texts)\b", re.IGNORECASE)
_FIRES = re.compile(r"\b(?:fires?|active|activates?|on)\b[^.]{0,24}$", re.IGNORECASE)
_STEERED = re.compile(r"\b(?:under steering|with steering|when steered|steered)\b", re.IGNORECASE)
_UNSTEERED = re.compile(r"\b(?:without steering|unsteered|at baseline|before steering)\b", re.IGNORECASE)
_WIDTH = re.compile(r"\b(?:shape|size|width|dim(?:ension)?s?)\W{0,4}[\[(]?\s{0,2}$", re.IGNORECASE)
_RISES = re.compile(
    r"\b(?:spikes?|rises?|jumps?|grows?|increases?|goes up|activates?|activation|amplified)\b[^.;]{0,40}$",
    re.IGNORECASE,
)
_AS_ACTIVE = re.compile(
    r"\s(?:increase|rise|jump|(?:higher|stronger|larger) activation|as active|more active)\b", re.IGNORECASE
)
_OFTEN = re.compile(r"\b(?:often|frequent|frequently|faster|slower)\b", re.IGNORECASE)
_FROM = re.compile(
    r"\b(?:ppl|perplexity)\b(?!\s?ratio)[\s:=(*`]{1,3}(?:[a-z]{1,12}\s){0,2}(?:from\s)?[*`]{0,2}$", re.IGNORECASE
)
_TO = re.compile(r"[*`]{0,2}\s?(?:to|->|→|➜|⟶)\s?[*`]{0,2}")
_RANGE = re.compile(r"[*`_$]{0,3}\s?(?:--|–|—|-|−|to)\s?[*`_$]{0,3}")
_OVER = re.compile(r"[*_`]{0,3}\s?(?:/|out of)\s?[*_`]{0,3}")


def part_claims(part: Part, context: Context) -> Iterator[Extracted]:
    """The claims of a heading, paragraph, list item or comment.

    Args:
        part: The part.
        context: What the data has.
    """
    numbers = find_numbers(part.text)
    places = [number.start for number in numbers]
    feature: int | None = None
    for stretch in sentences(part.text) if numbers or groups.none_collapse(part.text) else ():
        chosen = numbers[bisect_left(places, stretch.start) : bisect_left(places, stretch.end)]
        inside = [replace(number, start=number.start - stretch.start) for number in chosen]
        where = [number.start for number in inside]
        subjects = Subjects(part, part.text[stretch.start : stretch.end], where, feature, context, stretch.start)
        yield from _Sentence(part, subjects.text, stretch.start, inside, subjects, context).claims()
        # A feature stays the subject until another is named.
        feature = subjects.features[-1].feature if subjects.features else feature


@dataclass
class _Sentence:
    part: Part
    text: str
    offset: int
    numbers: Sequence[Number]
    subjects: Subjects
    context: Context

    def claims(self) -> Iterator[Extracted]:
        patterns: tuple[Callable[[int, Number], Extracted | None], ...] = (
            self._scale,
            self._width,
            self._the_feature,
            self._cell,
            self._place,
            self._frequency,
            self._count,
            self._from_to,
            self._of_five,
            self._in_list,
            self._of_collapse,
            self._feature_place,
            self._aligned,
            self._feature_ratio,
            self._measured,
        )
        for index, number in enumerate(self.numbers):
            made = (pattern(index, number) for pattern in patterns if number.readable)
            yield next((each for each in made if each is not None), None) or self._none(number, NOT_UNDERSTOOD)
        yield from self._none_collapse()

    def _before(self, number: Number) -> str:
        return self.text[max(0, number.start - NEAR) : number.start]

    def _after(self, number: Number) -> str:
        return self.text[number.end : number.end + NEAR]

    def _claim(
        self,
        number: Number,
        measure: str,
        select: Selector,
        *,
        expected: Printed | bool | None = None,
        noun: str = "",
    ) -> Extracted:
        line, start, end = self.part.span(self.offset + number.start, len(number.text))
        inferred = self.context.names.how(select.model) if select.model else ""
        value = number.printed if expected is None else expected
        claim = Claim(f"{line}:{start + 1}", number.text, measure, select, value)
        return Extracted(claim, line, start, end, "", noun, number.bound, inferred)

    def _none(self, number: Number, reason: str) -> Extracted:
        line, start, end = self.part.span(self.offset + number.start, len(number.text))
        claim = Claim(f"{line}:{start + 1}", number.text, "", Selector(), number.printed)
        return Extracted(claim, line, start, end, reason)

    def _scale(self, index: int, number: Number) -> Extracted | None:
        """`1-5 rubric`: the judge's scores lie between these."""
        ends = (self.numbers[index : index + 2], self.numbers[index - 1 : index + 1] if index else [])
        for measure, pair in zip(("scores_from", "scores_to"), ends, strict=True):
            joined = len(pair) == 2 and _SCALE.fullmatch(self.text[pair[0].end : pair[1].start])
            if joined and _RUBRIC.match(self._after(pair[1])):
                select = Selector(judge=self.subjects.judge(number.start))
                return self._claim(number, measure, select)
        return None

    def _width(self, _index: int, number: Number) -> Extracted | None:
        """`shape: (2048,)` in a comment of code that loads a vector."""
        if not _WIDTH.search(self._before(number)):
            return None
        named = [path for path in self.context.vector_files if path in self.part.code or path in self.part.text]
        if len({self.context.vector_files[path][0] for path in named}) != 1:
            return None
        model, layer = self.context.vector_files[named[0]]
        select = Selector(model, layer=layer, file=named[0])
        return self._claim(number, "vector_width", select)

    def _the_feature(self, _index: int, number: Number) -> Extracted | None:
        """`feature 4617`, `(id 4617)`: there is such a feature in the table."""
        mention = next((each for each in self.subjects.features if each.start == number.start), None)
        if mention is None or number.unit or number.end != mention.end:
            return None
        model = self.subjects.model(number.start, mention.feature)
        if model.stranger:
            return self._none(number, model.stranger)
        select = Selector(model.name, feature=mention.feature)
        return self._claim(number, "feature_listed", select, expected=True)

    def _cell(self, _index: int, number: Number) -> Extracted | None:
        """`best cell L=14 c=+1`: the cell with the highest margin."""
        cells = self.subjects.cells
        which = bisect_right(cells, number.start, key=lambda cell: cell.start) - 1
        if which < 0 or number.start >= cells[which].end:
            return None
        cell = cells[which]
        first = not find_numbers(self.text[cell.start : number.start])
        if not first or not _BEST.search(self.text[max(0, cell.start - NEAR) : cell.start]):
            return self._none(number, SAYS_WHERE)
        model = self.subjects.model(number.start)
        if model.stranger:
            return self._none(number, model.stranger)
        select = Selector(model.name, None, cell.layer, cell.coef, self.subjects.judge(number.start))
        return self._claim(number, "best_cell", select, expected=True)

    def _place(self, _index: int, number: Number) -> Extracted | None:
        """`at layer 14`, `coefficient c=+1.0`: where something is, which is no result."""
        places = self.subjects.places
        which = bisect_right(places, (number.start, len(self.text))) - 1
        inside = which >= 0 and number.start < places[which][1]
        return self._none(number, SAYS_WHERE) if inside else None

    def _frequency(self, index: int, number: Number) -> Extracted | None:
        """`fires on 100% of prompts under steering`."""
        feature = self.subjects.feature(number.start)
        noun = _FREQUENCY.match(self._after(number))
        if number.unit != "%" or feature is None or noun is None or not _FIRES.search(self._before(number)):
            return None
        # Up to the next number: what stands there may be the other condition.
        until = self.numbers[index + 1].start if index + 1 < len(self.numbers) else len(self.text)
        clause = self._clause_until(number, until)
        steered, unsteered = bool(_STEERED.search(clause)), bool(_UNSTEERED.search(clause))
        model = self.subjects.model(number.start, feature)
        if steered == unsteered or model.stranger:
            return None
        measure = "feature_steered_frequency" if steered else "feature_base_frequency"
        select = Selector(model.name, feature=feature)
        return self._claim(number, measure, select, noun=noun["noun"].lower())

    def _clause_until(self, number: Number, until: int) -> str:
        return self.subjects.clause(number.start) if until > number.end + NEAR else self.text[number.end : until]

    def _count(self, _index: int, number: Number) -> Extracted | None:
        """`80 contrast pairs`, `40 evaluation prompts`, `35 sweep cells`, `16 of 35 cells collapse`."""
        if number.unit or number.signed or number.bound or "." in number.text:
            return None
        clause = self.subjects.clause(number.start)
        measure = count_beside(self._before(number), self._after(number), clause)
        if measure is None or is_no_result(clause, self._after(number)):
            return None
        if not measure.endswith(("cells", "cell_count")):
            return self._claim(number, measure, Selector())
        model = self.subjects.model(number.start)
        # Of one layer or coefficient there are fewer.
        if self.subjects.layers or self.subjects.coefficients or model.stranger:
            return None
        return self._claim(number, measure, Selector(model.name))

    def _from_to(self, index: int, number: Number) -> Extracted | None:
        """`perplexity rises from 18.94 to 21.31 at L=14 c=+1`: unsteered, then steered."""
        for measure, first in (("base_perplexity", index), ("perplexity", index - 1)):
            pair = self.numbers[first : first + 2] if first >= 0 else []
            joined = len(pair) == 2 and _TO.fullmatch(self.text[pair[0].end : pair[1].start])
            # Without one cell, or between two, it may go from the one to the other.
            if joined and _FROM.search(self._words_before(first)) and self.subjects.cell(pair[1].start) is not None:
                return self._of(number, measure) if len(self.subjects.cells) <= 1 else None
        return None

    def _feature_ratio(self, _index: int, number: Number) -> Extracted | None:
        """`spikes ~16x`: steered over base mean of the feature that the sentence is about."""
        feature = self.subjects.feature(number.start)
        if number.unit != "x" or feature is None or self.subjects.cells:
            return None
        rises = _RISES.search(self._before(number)) or _AS_ACTIVE.match(self._after(number))
        model = self.subjects.model(number.start, feature)
        if not rises or _OFTEN.search(self._after(number)[:24]) or model.stranger:
            return None
        select = Selector(model.name, feature=feature)
        return self._claim(number, "feature_ratio", select)

    def _feature_place(self, _index: int, number: Number) -> Extracted | None:
        """`feature 31 ranks 3rd by delta`."""
        measure, feature = place_of(number, self._before(number), self._after(number)), None
        if measure is not None:
            feature = self.subjects.feature(number.start)
        if measure is None or feature is None or is_no_result(self.subjects.clause(number.start), ""):
            return None
        model = self.subjects.model(number.start, feature)
        if model.stranger:
            return self._none(number, model.stranger)
        return self._claim(number, measure, Selector(model.name, feature=feature))

    def _aligned(self, _index: int, number: Number) -> Extracted | None:
        """`the cosine of ridge and native is 0.32`, `held-out R² 0.20`."""
        clause = self.subjects.clause(number.start)
        found = aligned(number, self._before(number), self._after(number), clause, self.context)
        if found is None:
            return None
        select = found.select
        if found.measure == "cosine" and (select.variant or "").startswith("L="):
            model = self.subjects.model(number.start)
            if model.stranger:
                return self._none(number, model.stranger)
            select = replace(select, model=model.name)
        return self._claim(number, found.measure, select, expected=found.printed)

    def _of_five(self, index: int, number: Number) -> Extracted | None:
        """The end of the scale in `coherence 4.5/5`."""
        if not index or number.text != "5" or not self._is_over(index - 1):
            return None
        score = self._measured(index - 1, self.numbers[index - 1])
        if score is None or score.claim.measure not in AXES:
            return None
        return self._claim(number, "scores_to", Selector(judge=score.claim.select.judge))

    def _is_over(self, index: int) -> bool:
        """Whether a number is set over the next one, as in `4.5/5`."""
        pair = self.numbers[index : index + 2]
        return len(pair) == 2 and _OVER.fullmatch(self.text[pair[0].end : pair[1].start]) is not None

    def _in_list(self, index: int, number: Number) -> Extracted | None:
        """`the norms at layers 13, 18 and 23 are 2.38, 5.05 and 8.04`: one number for each layer, in order."""
        found, layers = groups.list_around(self.text, self.numbers, index), self.subjects.layers
        if found is None or len(found) != len(layers) or self.subjects.coefficients:
            return None
        if is_no_result(self.text, "") or not groups.is_of_norms(self._words_before(found[0])):
            return None
        model = self.subjects.model(number.start)
        if model.stranger or is_of_another("vector_norm", self.text):
            return None
        return self._claim(number, "vector_norm", Selector(model.name, layer=int(layers[index - found[0]]["layer"])))

    def _of_collapse(self, _index: int, number: Number) -> Extracted | None:
        """`the ratio lies above 3: the cell is collapsed`; `the unsteered model (26.7 per token)`."""
        before = self._before(number)
        if not number.unit and groups.is_collapse_ratio(before, self.text):
            return self._claim(number, "collapse_ratio", Selector())
        return (
            self._of(number, "base_perplexity") if groups.is_unsteered_perplexity(before, self._after(number)) else None
        )

    def _none_collapse(self) -> Iterator[Extracted]:
        """`None of the cells collapses`: a count without a number."""
        found = groups.none_collapse(self.text)
        if found is None or self.subjects.layers or self.subjects.coefficients or is_no_result(self.text, ""):
            return
        start, end = found
        model = self.subjects.model(start)
        if not model.stranger and not is_of_another("collapsed_cells", self.text):
            none = Number(self.text[start:end], start, Printed("0", 0.0, 0.5))
            yield self._claim(none, "collapsed_cells", Selector(model.name))

    def _measured(self, index: int, number: Number) -> Extracted | None:
        """A word for a measure beside a number, with a cell, layer or feature in the sentence."""
        if index and self._is_over(index - 1):
            return None
        if self._in_range(index):
            return None
        before = self._words_before(index)
        over = self._is_over(index)
        measure = measure_beside(before, "" if over else self._after(number))
        if over and (measure not in AXES or measure == "margin" or self.numbers[index + 1].text != "5"):
            return None
        if measure is None or is_no_result(self.subjects.clause(number.start), self._after(number)):
            return None
        return self._of(number, measure)

    def _in_range(self, index: int) -> bool:
        """Whether a number is the end of a range, so that neither end is a result."""
        pairs = (self.numbers[index : index + 2], self.numbers[index - 1 : index + 1] if index else [])
        return any(len(pair) == 2 and _RANGE.fullmatch(self.text[pair[0].end : pair[1].start]) for pair in pairs)

    def _words_before(self, index: int) -> str:
        """The words before a number, back to the number before that, without what only says where.

        Of `the margin of 3B at L=5 c=+1 is`, `the margin of at is` is left.
        """
        number = self.numbers[index]
        begin = max(0, number.start - 2 * NEAR)
        for other in reversed(self.numbers[:index]):
            if other.end <= begin or not self.subjects.says_where(other.start):
                begin = max(begin, other.end)
                break
        first = bisect_left(self.subjects.asides, (begin, 0))
        near = self.subjects.asides[max(0, first - 1) : bisect_left(self.subjects.asides, (number.start, 0))]
        kept = without(self.text[begin : number.start], [(start - begin, end - begin) for start, end in near])
        return re.sub(r"\s+", " ", kept)[-NEAR:]

    def _of(self, number: Number, measure: str) -> Extracted | None:
        """The claim that a number is a measure of what the sentence is about."""
        made = fitted(measure, number)
        if made is None or is_of_another(measure, self.subjects.clause(number.start)):
            return None
        measure, printed = made
        feature = self.subjects.feature(number.start) if measure.startswith("feature_") else None
        model = self.subjects.model(number.start, feature)
        if model.stranger:
            return self._none(number, model.stranger)
        select = self._select(measure, number, model.name, feature)
        if select is None:
            return None
        return self._claim(number, measure, select, expected=printed)

    def _select(self, measure: str, number: Number, model: str | None, feature: int | None) -> Selector | None:
        """What a measure is taken on; None if the sentence does not say."""
        if measure.startswith("feature_"):
            return None if feature is None else Selector(model, feature=feature)
        if measure == "vector_norm":
            layer = self.subjects.layer(number.start)
            return None if layer is None else Selector(model, layer=layer)
        if measure == "base_perplexity":
            return None if model is None else Selector(model)
        cell: CellMention | None = self.subjects.cell(number.start)
        if cell is None:
            return self._of_variant(measure, number, model)
        judge = self.subjects.judge(number.start) if measure in AXES else None
        return Selector(model, "steered", cell.layer, cell.coef, judge)

    @cached_property
    def _variants(self) -> list[str]:
        return variants_in(self.text, self.context)

    def _of_variant(self, measure: str, number: Number, model: str | None) -> Selector | None:
        """The one variant of the clause or else the sentence, where that names no layer and no coefficient."""
        clause = variants_in(self.subjects.clause(number.start), self.context)
        named = clause or self._variants
        if self.subjects.layers or self.subjects.coefficients or len(named) != 1 or named[0].lower() in LABELS:
            return None
        if measure in AXES:
            return Selector(judge=self.subjects.judge(number.start), variant=named[0])
        return Selector(model, variant=named[0]) if measure in ("perplexity", "perplexity_ratio") else None
