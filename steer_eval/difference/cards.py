"""Which numbers of a card changed.

Invariant: every number of both texts is either the same in both, or in exactly one change. Lines are set side by side
by their words, so that a number is compared with the one in its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest

from steer_eval.claims.extract.numbers import find_numbers
from steer_eval.difference.changes import ABSENT, NumberChange, Pair

_SENTENCE = re.compile(r"[^\W\d_]{2}\s+[^\W\d_]{2}")
MAX_LINES = 20_000
"""Longer texts are set side by side by equal lines alone, in one pass."""


@dataclass(frozen=True)
class _Line:
    """A line with its numbers taken out."""

    number: int
    text: str
    words: str
    numbers: tuple[str, ...]


def number_changes(repo: str, old: str, new: str) -> Iterator[NumberChange]:
    """Numbers of a card that changed, in the order of the new text, removed lines where they stood.

    Args:
        repo: Whose card it is.
        old: The old text.
        new: The new one.
    """
    before, after = _lines(old), _lines(new)
    for ours, theirs in _side_by_side(before, after):
        text = (theirs or ours or _Line(0, "", "", ())).text
        lines = Pair(ours.number if ours else ABSENT, theirs.number if theirs else ABSENT)
        for pair in zip_longest(ours.numbers if ours else (), theirs.numbers if theirs else (), fillvalue=ABSENT):
            numbers = Pair(*pair)
            if not numbers.same:
                yield NumberChange(repo, lines, numbers, text.strip())


def _lines(text: str) -> list[_Line]:
    return [_line(number, line) for number, line in enumerate(text.splitlines(), start=1)]


def _line(number: int, text: str) -> _Line:
    found = find_numbers(text)
    # Rows of a table are found by the number in their first cell, unless that cell is a sentence with numbers.
    end_of_cell = text.find("|", 1)
    named = end_of_cell if text.startswith("|") and not _SENTENCE.search(text[:end_of_cell]) else 0
    words, end = [], 0
    for each in found:
        words.append(text[end : each.start])
        words.append(each.text if each.end <= named else "#")
        end = each.end
    words.append(text[end:])
    return _Line(number, text, "".join("".join(words).split()), tuple(each.text for each in found))


def _side_by_side(old: Sequence[_Line], new: Sequence[_Line]) -> Iterator[tuple[_Line | None, _Line | None]]:
    """Lines with the same words as pairs, and the others alone."""
    if max(len(old), len(new)) > MAX_LINES:
        yield from _by_occurrence(old, new)
        return
    matcher = SequenceMatcher(None, [line.words for line in old], [line.words for line in new])
    for word, start, end, new_start, new_end in matcher.get_opcodes():
        if word == "equal":
            yield from zip(old[start:end], new[new_start:new_end], strict=True)
        else:
            # Within a stretch that was written anew, a line that moved is still the same line.
            yield from _by_occurrence(old[start:end], new[new_start:new_end])


def _by_occurrence(old: Sequence[_Line], new: Sequence[_Line]) -> Iterator[tuple[_Line | None, _Line | None]]:
    before, after = _counted(old), _counted(new)
    yield from ((before.get(key), after.get(key)) for key in dict.fromkeys([*before, *after]))


def _counted(lines: Sequence[_Line]) -> dict[tuple[str, int], _Line]:
    counts: Counter[str] = Counter()
    found = {}
    for line in lines:
        found[line.words, counts[line.words]] = line
        counts[line.words] += 1
    return found
