"""Sentences and clauses.

Invariant: words bind to a number only inside its sentence, and first inside its clause. A sentence that ends too early
only loses bindings and never makes one.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
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
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text))]
    return [Stretch(start, end) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


class Clauses:
    """The clauses of a sentence.

    Args:
        text: The sentence.
        whole: Stretches that no clause ends in, such as `L=14, c=+1`.
    """

    def __init__(self, text: str, whole: list[Stretch]) -> None:
        cuts = (
            [
                match
                for match in _SEPARATOR.finditer(text)
                if not any(stretch.start <= match.start() < stretch.end for stretch in whole)
            ]
            if len(whole) < _MANY
            else []
        )
        self._starts = [0, *(cut.end() for cut in cuts)]
        self._ends = [*(cut.start() for cut in cuts), len(text)]

    def around(self, index: int) -> Stretch:
        """The clause that a character stands in."""
        which = bisect_right(self._starts, index) - 1
        return Stretch(self._starts[which], max(self._ends[which], self._starts[which]))


_MANY = 64
"""So many cells are a list, which has no clauses."""
