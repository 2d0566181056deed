"""Cards of strangers: front matter and tables, with the lines they stand on.

Invariant: nothing in a card is executed or followed; a table that is not well formed is text. Lines count from 1 in the
file as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from steer_eval.formats import strict_yaml

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class TableRow:
    """One row of a table: its line, and its cells as Markdown."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One table: its header cells, its rows, and the line of its header."""

    header: tuple[str, ...]
    rows: tuple[TableRow, ...]
    line: int = 0

    def column(self, *names: str) -> int | None:
        """Index of the first column whose header is one of some names, case aside."""
        return next((index for index, cell in enumerate(self.header) if cell.strip(" *`").lower() in names), None)


@dataclass(frozen=True)
class Card:
    """A card.

    Args:
        metadata: The front matter; empty where there is none.
        text: The whole file.
        tables: Its tables, in order.
    """

    metadata: dict[str, Any]
    text: str
    tables: tuple[Table, ...]


def front_matter(text: str, name: str) -> dict[str, Any]:
    """The YAML between the two `---` at the top of a card.

    Args:
        text: The card.
        name: What to call it in messages.

    Raises:
        FormatError: It is no strict YAML.
    """
    match = _FRONT_MATTER.match(text)
    value = strict_yaml.parse(match["yaml"], name) if match else None
    return value if isinstance(value, dict) else {}


def front_matter_lines(text: str) -> int:
    """Number of lines that the front matter takes up, with its two fences; 0 without any."""
    match = _FRONT_MATTER.match(text)
    return text[: match.end()].count("\n") + 1 if match else 0


def read_tables(text: str) -> tuple[Table, ...]:
    """Tables of a Markdown text (GitHub flavour)."""
    from markdown_it import MarkdownIt

    match = _FRONT_MATTER.match(text)
    # Blank lines in place of the front matter keep the numbers of the lines below it.
    body = "\n" * text[: match.end()].count("\n") + text[match.end() :] if match else text
    tables: list[Table] = []
    header: tuple[str, ...] = ()
    rows: list[TableRow] = []
    cells: list[str] = []
    line = first = 0
    in_head = False
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        if token.type == "thead_open":
            in_head, rows = True, []
        elif token.type == "thead_close":
            in_head = False
        elif token.type == "tr_open":
            cells, line = [], token.map[0] + 1 if token.map else 0
        elif token.type == "inline":
            cells.append(token.content)
        elif token.type == "tr_close" and in_head:
            header, first = tuple(cells), line
        elif token.type == "tr_close":
            rows.append(TableRow(line, tuple(cells)))
        elif token.type == "table_close":
            tables.append(Table(header, tuple(rows), first))
    return tuple(tables)


def read_card(text: str, name: str) -> Card:
    """A card from its text.

    Args:
        text: The file.
        name: What to call it in messages.

    Raises:
        FormatError: Its front matter is no strict YAML.
    """
    return Card(front_matter(text, name), text, read_tables(text))


def code_spans(markdown: str) -> list[str]:
    """Contents of the code spans of a piece of Markdown."""
    return _CODE.findall(markdown)
