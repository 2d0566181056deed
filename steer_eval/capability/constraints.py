"""Checks that a program can make of a reply: what the instructions of our own task ask for.

Invariant: a check looks at the text alone and is deterministic; none of them judges what the text means. An empty reply
passes none, because one that says nothing would keep every prohibition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_BULLET = re.compile(r"\s*[-*•]\s+\S")
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)]*(?=\s|$)")
_FENCE = re.compile(r"\A```[a-z]*\n(.*?)\n?```\Z", re.DOTALL)


def passes(check: Mapping[str, Any], reply: str) -> bool:
    """Whether a reply keeps to one constraint.

    Args:
        check: `kind` and `value`, as in a row of `tasks/instructions.jsonl`.
        reply: What the model said.

    Raises:
        KeyError: There is no such kind.
    """
    text = reply.strip()
    return bool(text) and KINDS[check["kind"]](text, check["value"])


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _has(text: str, wanted: str) -> int:
    """How often a word or phrase stands in a text, as whole words, in any case."""
    return len(re.findall(rf"(?<!\w){re.escape(wanted.casefold())}(?!\w)", text.casefold()))


def _sentences(text: str) -> int:
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    # What follows the last end is a sentence too, although it lacks one.
    return len(ends) + bool(_WORD.search(text[ends[-1] if ends else 0 :]))


def _numbered(text: str, count: int) -> bool:
    numbers = [int(match[1]) for line in _lines(text) if (match := re.match(r"(\d+)[.)]\s+\S", line))]
    return numbers == list(range(1, count + 1))


def _is_object(text: str, keys: list[str]) -> bool:
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and sorted(value) == sorted(keys)


def _is_one_of(text: str, answers: list[str]) -> bool:
    return text.strip(" .!\"'*").casefold() in {answer.casefold() for answer in answers}


KINDS: Mapping[str, Callable[[str, Any], bool]] = {
    "max_words": lambda text, count: len(_words(text)) <= count,
    "min_words": lambda text, count: len(_words(text)) >= count,
    "exact_words": lambda text, count: len(_words(text)) == count,
    "sentences": lambda text, count: _sentences(text) == count,
    "lines": lambda text, count: len(_lines(text)) == count,
    "bullets": lambda text, count: sum(bool(_BULLET.match(line)) for line in text.splitlines()) == count,
    "numbered": _numbered,
    "contains": lambda text, wanted: all(_has(text, each) for each in wanted),
    "excludes": lambda text, banned: not any(_has(text, each) for each in banned),
    "at_least": lambda text, wanted: all(_has(text, each) >= count for each, count in wanted.items()),
    "starts_with": lambda text, start: text.startswith(start),
    "ends_with": lambda text, end: text.endswith(end),
    "without": lambda text, characters: not set(characters.casefold()) & set(text.casefold()),
    "with": lambda text, characters: set(characters.casefold()) <= set(text.casefold()),
    "uppercase": lambda text, _wanted: text.upper() == text and text.lower() != text,
    "lowercase": lambda text, _wanted: text.lower() == text and text.upper() != text,
    "quoted": lambda text, _wanted: len(text) > 2 and text[0] in '"“' and text[-1] in '"”',
    "json_keys": _is_object,
    "one_of": _is_one_of,
}
"""By kind: whether a text, which is not empty, keeps to the value of a check."""
