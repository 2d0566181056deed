"""What a number in a sentence is about.

Invariant: a subject is what the number's clause names, or else the only one that its sentence names. Where there are
two, there is none: a wrong subject would make a right number wrong.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from steer_eval.claims.extract.clauses import Clauses, Stretch
from steer_eval.claims.extract.context import CellMention, Context, Found, cells_in, coefficients_in, layers_in
from steer_eval.claims.extract.layout import Part
from steer_eval.claims.extract.numbers import signed_value

_FEATURE = re.compile(
    r"\b(?:feature|latent)\s(?:id\s?)?[#=]?\s?(?P<id>[0-9]{1,7})(?![\w.]*[0-9]|\s?[%x×])"
    r"|(?<=\s|\()(?:feature |latent )?id\s?[=:]?\s?#?(?P<alone>[0-9]{1,7})\b"
    r"|\b(?:features|latents)\s(?:ids?\s?)?#?(?P<listed>[0-9]{1,7})(?=\s?(?:,|and|or|&)\s?#?[0-9])",
    re.IGNORECASE,
)
_SPEAKS_OF_FEATURES = re.compile(r"\b(?:features?|latents?)\b", re.IGNORECASE)
_Kind = TypeVar("_Kind")
_FAR = 300
_MANY = 64


@dataclass(frozen=True)
class FeatureMention:
    """A feature that a text names, and where its id stands."""

    start: int
    end: int
    feature: int


def features_in(text: str) -> list[FeatureMention]:
    """The features that a text names, in order."""
    speaks = bool(_SPEAKS_OF_FEATURES.search(text))
    found = []
    for match in _FEATURE.finditer(text):
        group = next(name for name in ("id", "alone", "listed") if match[name])
        if group != "alone" or speaks:
            found.append(FeatureMention(match.start(group), match.end(group), int(match[group])))
    return found


class _Mentions(Generic[_Kind]):
    """Things of one kind that a sentence mentions, in order."""

    def __init__(self, found: Sequence[_Kind], what: Callable[[_Kind], object], where: Callable[[_Kind], int]) -> None:
        self.all = found
        self.what = what
        self.places = [where(each) for each in found]
        self.different = {what(each) for each in found}


@dataclass
class Subjects:
    """What the numbers of one sentence are about.

    Args:
        part: The part that the sentence is of.
        text: The sentence.
        numbers: Where its numbers stand, in order.
        before: The feature that the sentence before it was about.
        context: What the data has.
        start: Index in the part at which the sentence begins.
    """

    part: Part
    text: str
    numbers: Sequence[int]
    before: int | None
    context: Context
    start: int = 0

    @cached_property
    def cells(self) -> list[CellMention]:
        """The cells of the sentence."""
        return cells_in(self.text)

    @cached_property
    def features(self) -> list[FeatureMention]:
        """The features of the sentence."""
        return features_in(self.text)

    @cached_property
    def layers(self) -> list[re.Match[str]]:
        """The layers of the sentence."""
        return layers_in(self.text)

    @cached_property
    def coefficients(self) -> list[re.Match[str]]:
        """The coefficients of the sentence."""
        return coefficients_in(self.text)

    @cached_property
    def _cells(self) -> _Mentions[CellMention]:
        return _Mentions(self.cells, lambda cell: (cell.layer, cell.coef), lambda cell: cell.start)

    @cached_property
    def _layers(self) -> _Mentions[re.Match[str]]:
        return _Mentions(self.layers, lambda match: int(match["layer"]), lambda match: match.start())

    @cached_property
    def _coefficients(self) -> _Mentions[re.Match[str]]:
        return _Mentions(self.coefficients, lambda match: signed_value(match["coef"]), lambda match: match.start())

    @cached_property
    def _features(self) -> _Mentions[FeatureMention]:
        return _Mentions(self.features, lambda each: each.feature, lambda each: each.start)

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Where the numbers stand that say a layer, a coefficient, or both; in order."""
        layers = [match.span("layer") for match in self.layers]
        coefficients = [match.span("coef") for match in self.coefficients]
        return sorted([*layers, *coefficients, *((cell.start, cell.end) for cell in self.cells)])

    @cached_property
    def _clauses(self) -> Clauses:
        named = [*self.places, *((each.start, each.end) for each in self.features)]
        named.sort()
        starts = [start for start, _ in named]
        free = [
            place
            for place in self.numbers
            if not any(start <= place < end for start, end in named[: bisect_right(starts, place)][-3:])
        ]
        return Clauses(self.text, free, [Stretch(cell.start, cell.end) for cell in self.cells])

    def clause(self, index: int) -> str:
        """The clause around a character, as far as a reader would look."""
        stretch = self._clauses.around(index)
        return self.text[max(stretch.start, index - _FAR) : min(stretch.end, index + _FAR)]

    def cell(self, index: int) -> CellMention | None:
        """The cell that a number is about: one that is named, or else the one layer with the one coefficient."""
        if self.cells:
            return self._only(index, self._cells)
        layer, coefficient = self._only(index, self._layers), self._only(index, self._coefficients)
        if layer is None or coefficient is None:
            return None
        start, end = min(layer.start(), coefficient.start()), max(layer.end(), coefficient.end())
        named = f"{layer[0]}, {coefficient[0]}"
        return CellMention(start, end, int(layer["layer"]), signed_value(coefficient["coef"]), named)

    def layer(self, index: int) -> int | None:
        """The layer that a number is about."""
        found = self._only(index, self._layers)
        return int(found["layer"]) if found else None

    def feature(self, index: int) -> int | None:
        """The feature that a number is about; one stays the subject until another is named."""
        if not self.features:
            return self.before
        found = self._only(index, self._features)
        return found.feature if found else None

    def model(self, index: int, feature: int | None = None) -> Found:
        """The model that a number is about: of its clause, sentence, part, code or headings, or of a feature."""
        found = self.context.model(self.clause(index), *self._outer)
        owners = self.context.feature_models.get(feature, ()) if feature is not None else ()
        if found.name is None and not found.stranger and len(owners) == 1:
            return Found(owners[0])
        return found

    def judge(self, index: int) -> str | None:
        """The judge that a number is of."""
        return self.context.judge(self.clause(index), *self._outer)

    @cached_property
    def _outer(self) -> tuple[str, ...]:
        headings = self.part.heading.split("\n")[::-1]
        # What comes later is about something else as often as not.
        earlier = self.part.text[max(0, self.start - 2 * _FAR) : self.start]
        return tuple(words for words in (self.text, earlier, self.part.code, *headings) if words.strip())

    def says_where(self, index: int) -> bool:
        """Whether a character stands in a stretch that says where."""
        which = bisect_right(self.asides, (index, len(self.text))) - 1
        return which >= 0 and index < self.asides[which][1]

    @cached_property
    def asides(self) -> list[tuple[int, int]]:
        """Stretches that say where, in order: cells, layers, coefficients, models, and judges in brackets."""
        models = self.context.names.mentions(self.text)
        found = [(cell.start, cell.end) for cell in self.cells] + [(each.start, each.end) for each in models]
        found += [match.span() for match in (*self.layers, *self.coefficients)]
        for judge in self.context.judges_in(self.text):
            if self.text[judge.start - 1 : judge.start] == "(" and self.text[judge.end : judge.end + 1] == ")":
                found.append((judge.start - 1, judge.end + 1))
        # A layer inside a cell is a part of it.
        joined: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined

    def _only(self, index: int, mentions: _Mentions[_Kind]) -> _Kind | None:
        """The one thing that the clause mentions, or else the one of the sentence."""
        if len(mentions.different) <= 1:
            return mentions.all[0] if mentions.all else None
        stretch = self._clauses.around(index)
        inside = mentions.all[bisect_left(mentions.places, stretch.start) : bisect_left(mentions.places, stretch.end)]
        return inside[0] if len({mentions.what(each) for each in inside[:_MANY]}) == 1 else None
