"""Sentences on several things together: norms of listed layers, none of the cells, and the ratio of collapse.

Invariant: a list binds to another only where both are as long, so that each number has one thing that it is of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steer_eval.claims.extract.numbers import Number

_JOINED = re.compile(r"[*_`]{0,3}(?:,\s?(?:and\s)?|\s?(?:and|&|/)\s?)[*_`]{0,3}")
_NORMS = re.compile(
    r"\bnorms\b(?:[\s,]{1,3}(?:of|the|at|in|for|vectors?|CAA|are|were|is|respectively|model))*[\s:=(*`]{1,4}$",
    re.IGNORECASE,
)
_ABOVE = re.compile(r"\bratio\s(?:lies\s|is\s|rises\s|goes\s)?(?:above|over|exceeds|beyond)\s[*`]{0,2}$", re.IGNORECASE)
_COLLAPSE = re.compile(r"\bcollaps", re.IGNORECASE)
_PER_TOKEN = re.compile(r"[*_`]{0,3}\sper token\b", re.IGNORECASE)
_UNSTEERED = re.compile(r"\bunsteered (?:one|model)\s\($", re.IGNORECASE)
_NONE = re.compile(
    r"\b(?P<none>none of(?:\sthe|\sits|\sall)?(?:\s[0-9]{1,4})?|no)\s(?:[\w.-]{1,24}\s)?(?:sweep |steered )?cells?"
    r"(?:\s(?:of|in)\s(?:the\s)?[\w.-]{1,24}(?:\s(?:sweep|model))?)?\s(?:\w{1,12}ly\s)?collapses?(?P<rest>.{0,24})",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\s(?:at|below|under|with|for|until|up|when|where|except|but|before|on|in|if|unless)\b", re.IGNORECASE
)


def is_of_norms(before: str) -> bool:
    """Whether the words before a list of numbers, without those that say where, name norms."""
    return _NORMS.search(before) is not None


def list_around(text: str, numbers: Sequence[Number], index: int) -> range | None:
    """The numbers, by their indices, that are listed with one: `2.4, 5.1 and 8.0`; None if it stands in no list.

    Args:
        text: The sentence.
        numbers: Its numbers.
        index: Index of the number.
    """
    first = last = index
    while first and _JOINED.fullmatch(text[numbers[first - 1].end : numbers[first].start]):
        first -= 1
    while last + 1 < len(numbers) and _JOINED.fullmatch(text[numbers[last].end : numbers[last + 1].start]):
        last += 1
    run = numbers[first : last + 1]
    plain = all(number.readable and not number.unit and not number.bound and not number.grouped for number in run)
    return range(first, last + 1) if len(run) > 1 and plain else None


def is_collapse_ratio(before: str, sentence: str) -> bool:
    """Whether a number is the ratio above which cells are called collapsed: `the ratio lies above 3`."""
    return _ABOVE.search(before) is not None and _COLLAPSE.search(sentence) is not None


def is_unsteered_perplexity(before: str, after: str) -> bool:
    """Whether a number stands in brackets behind the unsteered model: `the unsteered one (26.745 per token)`."""
    return _UNSTEERED.search(before) is not None and _PER_TOKEN.match(after) is not None


def none_collapse(sentence: str) -> tuple[int, int] | None:
    """Where a sentence says that no cell collapses; None if it does not, or says so of a part of the cells."""
    match = _NONE.search(sentence)
    if match is None or _PART.match(match["rest"]):
        return None
    return match.start("none"), match.start("none") + len(match["none"].split()[0])
