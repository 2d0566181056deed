"""Claims in sentences.

Invariant: a number in a sentence is a claim only by one of the patterns below, which docs/claims.md lists; each pattern
says which words must stand around it. What no pattern understands is listed as not understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.context import AXES, CELL, COEFFICIENT, LAYER, Context, signed
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, Extracted
from steer_eval.claims.extract.layout import Part
from steer_eval.claims.extract.numbers import Number, find_numbers
from steer_eval.claims.printed import Printed

_FEATURE = re.compile(
    r"\b(?:features?|latents?)\b[^.;]{0,24}?\b(?:id\s*=?\s*|#)?(?P<id>[0-9]{1,7})\b|\bid\s*=?\s*(?P<alone>[0-9]{1,7})\b"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_BEST = re.compile(r"\bbest\b", re.IGNORECASE)
_SCALE = re.compile(r"\s*(?:--|–|-|to)\s*$")

_WORDS: tuple[tuple[str, str], ...] = (
    ("base_perplexity", r"(?:base(?:line)?|unsteered) (?:ppl|perplexity)"),
    ("perplexity_ratio", r"(?:ppl|perplexity)[ _-]ratio|relative (?:ppl|perplexity)"),
    ("perplexity", r"ppl|perplexity"),
    ("feature_base_mean", r"(?:base|unsteered) mean|mean (?:activation )?without steering"),
    ("feature_steered_mean", r"steered mean|mean (?:activation )?(?:with|under) steering"),
    ("feature_delta", r"delta|Δ"),
    ("vector_norm", r"(?:vector )?norm"),
    *((axis, "|".join(re.escape(word) for word in words)) for axis, words in AXES.items()),
)
_BEFORE = tuple(
    (
        name,
        re.compile(
            rf"\b(?:{words})\b\W{{0,3}}(?:\w+\s)?(?:is|was|of|=|:|at|to|reaches|drops to|rises to)?\W{{0,4}}$",
            re.IGNORECASE,
        ),
    )
    for name, words in _WORDS
)
_AFTER = tuple((name, re.compile(rf"\W{{0,3}}(?:of\s)?(?:{words})\b", re.IGNORECASE)) for name, words in _WORDS)
_COUNTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("contrast_pair_count", re.compile(r"\s(?:contrast(?:ive)? |hand-written |scenario )?pairs\b", re.IGNORECASE)),
    ("prompt_count", re.compile(r"\s(?:held-out |evaluation |eval |test )prompts\b", re.IGNORECASE)),
    ("collapsed_cells", re.compile(r"\s(?:cells )?(?:collapsed?|cells collapse)\b", re.IGNORECASE)),
    ("cell_count", re.compile(r"\s(?:sweep |steered )?cells\b", re.IGNORECASE)),
)
_FREQUENCY = re.compile(r"\s(?:of (?:all |the )?)?(?P<noun>tokens|prompts|samples|texts)\b", re.IGNORECASE)
_UNSTEERED = re.compile(r"\b(?:without steering|unsteered|at baseline|base)\b", re.IGNORECASE)
_WIDTH = re.compile(r"\b(?:shape|size|width|dim(?:ension)?s?)\W{0,4}[\[(]?\s*$", re.IGNORECASE)


def part_claims(part: Part, context: Context) -> Iterator[Extracted]:
    """The claims of a heading, paragraph, list item or comment.

    Args:
        part: The part.
        context: What the data has.
    """
    numbers = find_numbers(part.text)
    if not numbers:
        return
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(part.text)), len(part.text) + 1]
    feature: int | None = None
    for begin, end in pairwise(starts):
        sentence = part.text[begin:end]
        inside = [replace(number, start=number.start - begin) for number in numbers if begin <= number.start < end]
        # A feature stays the subject until another is named.
        found = _FEATURE.search(sentence)
        if found:
            feature = int(found["id"] or found["alone"])
        reader = _Sentence(part, sentence, begin, tuple(inside), feature, context)
        yield from reader.claims()


@dataclass
class _Sentence:
    part: Part
    text: str
    offset: int
    numbers: tuple[Number, ...]
    feature: int | None
    context: Context

    def claims(self) -> Iterator[Extracted]:
        for index, number in enumerate(self.numbers):
            patterns: tuple[Callable[[int, Number], Extracted | None], ...] = (
                self._scale,
                self._width,
                self._the_feature,
                self._cell,
                self._frequency,
                self._count,
                self._feature_ratio,
                self._measured,
                self._place,
            )
            found = next((each for pattern in patterns if (each := pattern(index, number)) is not None), None)
            yield found or self._none(number, NOT_UNDERSTOOD)

    def _before(self, number: Number) -> str:
        return self.text[: number.start]

    def _after(self, number: Number) -> str:
        return self.text[number.end :]

    def _model(self) -> str | None:
        """The model of the sentence, of its paragraph, or of the heading; in this order."""
        for words in (self.text, self.part.text, self.part.code, self.part.heading):
            model = self.context.model(words) if words else None
            if model is not None:
                return model
        if self.feature is not None:
            models = self.context.feature_models.get(self.feature, ())
            return models[0] if len(models) == 1 else None
        return None

    def _claim(
        self,
        number: Number,
        measure: str,
        select: Selector,
        words: str,
        *,
        expected: Printed | bool | None = None,
        noun: str = "",
    ) -> Extracted:
        line, start = self.part.place(self.offset + number.start)
        inferred = self.context.names.how(select.model) if select.model else ""
        value = number.printed if expected is None else expected
        claim = Claim(f"{line}:{start + 1}", words, measure, select, value)
        return Extracted(claim, line, start, start + len(number.text), "", noun, number.bound, inferred)

    def _none(self, number: Number, reason: str) -> Extracted:
        line, start = self.part.place(self.offset + number.start)
        around = self.text[max(0, number.start - 40) : number.end + 40].strip()
        claim = Claim(f"{line}:{start + 1}", around, "", Selector(), number.printed)
        return Extracted(claim, line, start, start + len(number.text), reason)

    def _scale(self, index: int, number: Number) -> Extracted | None:
        """`1-5 rubric`: the judge's scores lie between these."""
        judge = self.context.judge(self.text, self.part.heading)
        if index + 1 < len(self.numbers):
            following = self.numbers[index + 1]
            between = self.text[number.end : following.start]
            if _SCALE.fullmatch(between) and re.match(r"\s*(?:rubric|scale)\b", self._after(following)):
                return self._claim(number, "scores_from", Selector(judge=judge), f"scores start at {number.text}")
        if index and re.match(r"\s*(?:rubric|scale)\b", self._after(number)):
            between = self.text[self.numbers[index - 1].end : number.start]
            if _SCALE.fullmatch(between):
                return self._claim(number, "scores_to", Selector(judge=judge), f"scores end at {number.text}")
        return None

    def _width(self, _index: int, number: Number) -> Extracted | None:
        """`shape: (2048,)` in a comment of code that loads a vector."""
        if not _WIDTH.search(self._before(number)):
            return None
        for path, (model, layer) in self.context.vector_files.items():
            if path in self.part.code or path in self.part.text:
                select = Selector(model, layer=layer, file=path)
                return self._claim(number, "vector_width", select, f"{path} has {number.text} values")
        return None

    def _the_feature(self, _index: int, number: Number) -> Extracted | None:
        """`feature 4617`, `(id 4617)`: there is such a feature in the table."""
        if self.feature is None or number.printed.value != self.feature or number.unit:
            return None
        if not re.search(r"(?:\bid\s*=?\s*|\bfeatures?\s+#?|\blatents?\s+#?)$", self._before(number), re.IGNORECASE):
            return None
        select = Selector(self._model(), feature=self.feature)
        words = f"feature {self.feature} stands in the feature table"
        return self._claim(number, "feature_listed", select, words, expected=True)

    def _cell(self, _index: int, number: Number) -> Extracted | None:
        """`best cell L=14 c=+1`: the cell with the highest margin."""
        cell = self._cell_around(number)
        if cell is None:
            return None
        begin = cell.start("layer")
        if not _BEST.search(self.text[: cell.start()]) or self.text.find(number.text, begin) != number.start:
            return self._none(number, "it says where, and is not a result")
        select = Selector(self._model(), None, int(cell["layer"]), signed(cell["coef"]), self._judge())
        return self._claim(number, "best_cell", select, f"the best cell is {cell[0]}", expected=True)

    def _cell_around(self, number: Number) -> re.Match[str] | None:
        return next((match for match in CELL.finditer(self.text) if match.start() <= number.start < match.end()), None)

    def _judge(self) -> str | None:
        return self.context.judge(self.text, self.part.text, self.part.heading)

    def _frequency(self, _index: int, number: Number) -> Extracted | None:
        """`fires on 100% of prompts (under steering)`."""
        if number.unit != "%" or self.feature is None:
            return None
        noun = _FREQUENCY.match(self._after(number))
        if noun is None or not re.search(
            r"\b(?:fires?|active|activates?|on)\b[^.]{0,24}$", self._before(number), re.IGNORECASE
        ):
            return None
        following = self._after(number)[:48]
        measure = "feature_base_frequency" if _UNSTEERED.search(following) else "feature_steered_frequency"
        select = Selector(self._model(), feature=self.feature)
        words = f"feature {self.feature} fires on {number.text} of {noun['noun']}"
        return self._claim(number, measure, select, words, noun=noun["noun"].lower())

    def _count(self, _index: int, number: Number) -> Extracted | None:
        """`80 contrast pairs`, `40 evaluation prompts`, `35 cells`, `16 of 35 cells collapse`."""
        if number.unit or number.signed:
            return None
        after = self._after(number)
        share = re.match(r"\s(?:of|out of)\s(?:the\s|all\s)?[0-9]+(?P<rest>.*)", after)
        if share:
            after = share["rest"]
            if not re.match(r"\s(?:\w+\s)?cells\s(?:\w+\s)?collapse", after):
                return None
            return self._claim(number, "collapsed_cells", Selector(self._model()), f"{number.text} cells collapse")
        for measure, pattern in _COUNTS:
            if pattern.match(after):
                select = Selector(self._model()) if measure.endswith(("cells", "cell_count")) else Selector()
                return self._claim(number, measure, select, f"{measure.replace('_', ' ')} is {number.text}")
        return None

    def _feature_ratio(self, _index: int, number: Number) -> Extracted | None:
        """`spikes ~16x`: steered over base mean of the feature that the sentence is about."""
        if number.unit != "x" or self.feature is None or CELL.search(self.text):
            return None
        select = Selector(self._model(), feature=self.feature)
        words = f"feature {self.feature} is {number.text} as active under steering"
        return self._claim(number, "feature_ratio", select, words)

    def _measured(self, _index: int, number: Number) -> Extracted | None:
        """A word for a measure beside a number, with a cell, layer or feature in the sentence."""
        before, after = self._before(number), self._after(number)
        name = next((name for name, pattern in _BEFORE if pattern.search(before)), None)
        name = name or next((name for name, pattern in _AFTER if pattern.match(after)), None)
        if name is None:
            return None
        if name == "perplexity" and number.unit == "x":
            name = "perplexity_ratio"
        select = self._subject(name)
        if select is None:
            return None
        return self._claim(number, name, select, f"{name.replace('_', ' ')} of {select} is {number.text}")

    def _subject(self, measure: str) -> Selector | None:
        model = self._model()
        if measure.startswith("feature_"):
            return None if self.feature is None else Selector(model, feature=self.feature)
        cell, layer = CELL.search(self.text), LAYER.search(self.text)
        if measure == "vector_norm":
            return None if layer is None else Selector(model, layer=int(layer["layer"]))
        if measure == "base_perplexity":
            return None if model is None else Selector(model)
        if cell is None:
            return None
        judge = self._judge() if measure in AXES else None
        return Selector(model, None, int(cell["layer"]), signed(cell["coef"]), judge)

    def _place(self, _index: int, number: Number) -> Extracted | None:
        """`at layer 14`, `coefficient c=+1.0`: where something is, which is no result."""
        for pattern, group in ((LAYER, "layer"), (COEFFICIENT, "coef")):
            for match in pattern.finditer(self.text):
                if match.start(group) <= number.start < match.end(group):
                    return self._none(number, "it says where, and is not a result")
        return None
