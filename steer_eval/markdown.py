"""Texts of others inside Markdown.

Invariant: whatever a text holds, it stays in the place that it is put into: a heading in its line, a cell in its table,
a paragraph among paragraphs. What is Markdown inside that place stays Markdown.
"""

from __future__ import annotations

import re

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_MARKUP = re.compile(r"([\\`*_\[\]<>|])")
# Control characters, and those that turn the direction of what follows.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PLAIN = re.compile(r"[\w.+= -]+")
_FENCE = re.compile(r"`{3,}|~{3,}")
_PIPE = re.compile(r"(\\*)\|")


def line(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def table_cell(text: str) -> str:
    """A text as a cell of a table: on one line, its pipes escaped, and the backslashes that would undo that."""
    return _PIPE.sub(lambda match: f"{2 * match[1]}\\|", line(text))


def paragraphs(text: str) -> str:
    """A text as paragraphs of one line each, so that only the start of a paragraph can be a heading or a list."""
    return "\n\n".join(line(part) for part in _BLANK_LINE.split(text) if part.strip())


def inert(text: str) -> str:
    """A text on one line that is nothing but text: no markup, tag or link, and no control character."""
    return _MARKUP.sub(r"\\\1", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line(text)))


def plain(text: str) -> str:
    """A text on one line of a block of code, where there is no markup: without control characters and fences."""
    return _FENCE.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line(text)))


def name(text: str) -> str:
    """A name as it is where it is plain, and inert where it is not."""
    return text if _PLAIN.fullmatch(text) else inert(text)
