"""Lines of a text that name files: by their paths, with braces and stars, or by templates in code.

Invariant: texts are only read. A name in a text stands for every file that a shell would make of it, and a place that
code would fill in stands for anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

MAX_NAMES = 256
"""Most names that the braces of one mention may stand for; one with more is taken for a template."""

_MENTION = re.compile(r"[\w./*?{},+-]{1,400}\.(?:pt|pth|bin)\b")
_BRACES = re.compile(r"\{([^{}]*)\}")


class Mention(NamedTuple):
    """Files that a line names.

    Args:
        line: Line number, from 1.
        words: How the text names them.
        paths: The files, sorted.
    """

    line: int
    words: str
    paths: tuple[str, ...]


def mentions(text: str, paths: Collection[str]) -> Iterator[Mention]:
    """Find the lines of a text that name some files.

    Args:
        text: The text.
        paths: The files, relative to the repo; a text may name the last part alone.

    Yields:
        A mention for each line and way of naming, in the order of the text.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        for words in dict.fromkeys(_MENTION.findall(line)):
            patterns = _patterns(words.removeprefix("./"))
            named = tuple(sorted(path for path in paths if any(_names(pattern, path) for pattern in patterns)))
            if named:
                yield Mention(number, words, named)


def _names(pattern: str, path: str) -> bool:
    # A URL or a folder of the author's own may stand before the path inside the repo.
    return fnmatchcase(path, pattern) or fnmatchcase(path.rsplit("/", 1)[-1], pattern) or pattern.endswith(f"/{path}")


def _patterns(words: str) -> list[str]:
    """A name as patterns without braces: `{6,10}` is each of its parts in turn, `{layer}` is anything."""
    patterns = [words]
    while braces := _BRACES.search(patterns[0]):
        parts = len(braces[1].split(",")) if "," in braces[1] else 1
        if len(patterns) * parts > MAX_NAMES:
            return [_BRACES.sub("*", words)]
        # All patterns come from the same words, so each has as many braces, with as many parts.
        patterns = [
            pattern[: match.start()] + part + pattern[match.end() :]
            for pattern in patterns
            if (match := _BRACES.search(pattern))
            for part in (match[1].split(",") if parts > 1 else ["*"])
        ]
    return patterns
