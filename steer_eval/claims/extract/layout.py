"""The parts of a Markdown text that can hold claims.

Invariant: every line of the text belongs to exactly one part, and every character of a part can be traced to its line
and column. Front matter, and code that is no comment, belong to none: they configure, they do not claim.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from steer_eval.formats.card import Table, front_matter_lines, read_tables

Kind = Literal["heading", "paragraph", "comment"]
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+")
_FENCE = re.compile(r"\s*(```|~~~)\s*(?P<language>[\w+-]*)")
_ITEM = re.compile(r"\s*(?:[-*+]|[0-9]+[.)])\s+")
_COMMENT = re.compile(r"#(?P<words>.*)$")
_CITATIONS = frozenset({"bibtex", "biblatex", "bib"})


@dataclass(frozen=True)
class Part:
    """A heading, a paragraph, a list item, or a comment in code.

    Args:
        kind: Which of these.
        text: Its text on one line.
        starts: Index in `text` at which each of its lines begins.
        lines: Number of each of these lines, from 1.
        columns: Column, from 0, at which the text of each line begins.
        heading: The headings that it stands under, joined.
        code: The code block around a comment.
    """

    kind: Kind
    text: str
    starts: tuple[int, ...]
    lines: tuple[int, ...]
    columns: tuple[int, ...]
    heading: str = ""
    code: str = ""

    def place(self, index: int) -> tuple[int, int]:
        """Line and column of a character of the text."""
        which = bisect_right(self.starts, index) - 1
        return self.lines[which], index - self.starts[which] + self.columns[which]


@dataclass(frozen=True)
class PlacedTable:
    """A table with the headings that it stands under and the words just before it."""

    table: Table
    heading: str
    before: str


@dataclass(frozen=True)
class Layout:
    """The parts and the tables of a text, each in order."""

    parts: tuple[Part, ...]
    tables: tuple[PlacedTable, ...]


def lay_out(text: str) -> Layout:
    """Take a Markdown text apart.

    Args:
        text: The text, with its front matter if it has any.
    """
    tables = read_tables(text)
    in_table = {row.line: table for table in tables for row in table.rows}
    for table in tables:
        in_table.update(dict.fromkeys(range(table.line, table.line + 2), table))
    return _Reader(text, in_table).read()


@dataclass
class _Reader:
    text: str
    in_table: dict[int, Table]

    def read(self) -> Layout:
        parts: list[Part] = []
        tables: list[PlacedTable] = []
        headings: dict[int, str] = {}
        gathered: list[tuple[int, int, str]] = []
        fence: tuple[str, str] | None = None
        code: list[tuple[int, str]] = []

        def above() -> str:
            return " / ".join(headings[level] for level in sorted(headings))

        def close() -> None:
            if gathered:
                parts.append(_part("paragraph", gathered, above()))
                gathered.clear()

        lines = self.text.split("\n")
        skipped = front_matter_lines(self.text)
        for number, line in enumerate(lines, start=1):
            if number <= skipped:
                continue
            opening = _FENCE.match(line)
            if fence is not None:
                if opening and opening[1] == fence[0] and not opening["language"]:
                    parts += _comments(code, fence[1], above())
                    fence = None
                else:
                    code.append((number, line))
            elif opening:
                close()
                fence, code = (opening[1], opening["language"].lower()), []
            elif number in self.in_table:
                close()
                table = self.in_table[number]
                if not tables or tables[-1].table is not table:
                    tables.append(PlacedTable(table, above(), parts[-1].text if parts else ""))
            elif match := _HEADING.match(line):
                close()
                level = line.strip().split(" ", 1)[0].count("#")
                headings = {key: value for key, value in headings.items() if key < level}
                headings[level] = line[match.end() :].strip()
                parts.append(_part("heading", [(number, match.end(), line[match.end() :])], above()))
            elif not line.strip():
                close()
            else:
                item = _ITEM.match(line)
                if item:
                    close()
                start = item.end() if item else len(line) - len(line.lstrip())
                gathered.append((number, start, line[start:]))
        close()
        return Layout(tuple(parts), tuple(tables))


def _part(kind: Kind, gathered: list[tuple[int, int, str]], heading: str, code: str = "") -> Part:
    starts, position = [], 0
    for _, _, words in gathered:
        starts.append(position)
        position += len(words) + 1
    text = " ".join(words for _, _, words in gathered)
    lines, columns = tuple(line for line, _, _ in gathered), tuple(column for _, column, _ in gathered)
    return Part(kind, text, tuple(starts), lines, columns, heading, code)


def _comments(code: list[tuple[int, str]], language: str, heading: str) -> list[Part]:
    """Comments of a code block; what a citation says is no claim."""
    if language in _CITATIONS:
        return []
    whole = "\n".join(line for _, line in code)
    found = []
    for number, line in code:
        match = _COMMENT.search(line)
        if match:
            found.append(_part("comment", [(number, match.start("words"), match["words"])], heading, whole))
    return found
