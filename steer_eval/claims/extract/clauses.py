"""Sentences and clauses.

Invariant: words bind to a number only inside its sentence, and first inside its clause. A sentence that ends too early
only loses bindings and never makes one.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_SENTENCE_END = re.compile(
    r"[.!?][*_)\"']{0,3}\s+(?:(?=[*_]{0,3}[A-Z\"'(\[])|(?P<doubtful>(?=[*_]{0,3}(?:`|[~≈<>×]?[+\-−–]?[0-9]))))"
)
# Before a number or a name in code, a point may be that of an abbreviation.
_ABBREVIATION = re.compile(
    r"(?:\b(?:[a-z]|vs|ca|cf|al|no|nr|eq|pp|fig|sec|tab|coef|coeff|resp|approx)|^\s*[0-9]+)\.$", re.IGNORECASE
)
_SEPARATOR = re.compile(
    r"[;,—]\s|\s--\s|\.\s|\s(?:and|but|while|whereas|vs\.?|versus|or|than|against|compared)\s", re.IGNORECASE
)


@dataclass(frozen=True)
class Stretch:
    """A piece of a text: where it begins, and where it ends."""

    start: int
    end: int


def sentences(text: str) -> list[Stretch]:
    """The sentences of a text, in order; together they are the text."""
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text) if not _is_abbreviated(match))]
    return [Stretch(start, end) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _is_abbreviated(end: re.Match[str]) -> bool:
    """Whether what looks like the end of a sentence is the point of an abbreviation."""
    point = end.start() + 1
    return end["doubtful"] is not None and _ABBREVIATION.search(end.string[max(0, point - 12) : point]) is not None


class Clauses:
    """The clauses of a sentence: each says something of its own, so that each has a number that is no name.

    Args:
        text: The sentence.
        numbers: Where numbers stand that may be results, in order.
        whole: Stretches that no clause ends in, such as `L=14, c=+1`, in order.
    """

    def __init__(self, text: str, numbers: Sequence[int], whole: Sequence[Stretch]) -> None:
        self._starts, self._ends = [0], []
        begins = [stretch.start for stretch in whole]
        for cut in _SEPARATOR.finditer(text):
            within = bisect_right(begins, cut.start()) - 1
            inside = within >= 0 and cut.start() < whole[within].end
            said = bisect_left(numbers, cut.start()) > bisect_left(numbers, self._starts[-1])
            if said and not inside and bisect_left(numbers, cut.end()) < len(numbers):
                self._ends.append(cut.start())
                self._starts.append(cut.end())
        self._ends.append(len(text))

    def around(self, index: int) -> Stretch:
        """The clause that a character stands in."""
        which = bisect_right(self._starts, index) - 1
        return Stretch(self._starts[which], max(self._ends[which], self._starts[which]))
