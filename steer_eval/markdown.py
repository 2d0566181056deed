"""Texts of others inside Markdown.

Invariant: whatever a text holds, it stays in the place that it is put into: a heading in its line, a cell in its table,
a paragraph among paragraphs. What is Markdown inside that place stays Markdown.
"""

from __future__ import annotations

import re

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
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
