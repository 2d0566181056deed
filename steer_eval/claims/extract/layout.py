"""The parts of a Markdown text that can hold claims.

Invariant: every line of the text belongs to at most one part or table, and every character of a part can be traced to
its line and column. Front matter, HTML comments, and code that is no comment belong to none: they do not claim.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from steer_eval.claims.extract.cell_places import PlacedCell, cells_of
from steer_eval.claims.extract.html_tables import html_tables
from steer_eval.claims.extract.masks import without_comments
from steer_eval.formats.card import Table, front_matter_lines, read_tables

Kind = Literal["heading", "paragraph", "comment"]
_QUOTE = re.compile(r"\s{0,3}(?:>\s?)+")
_HEADING = re.compile(r"\s{0,3}(?P<level>#{1,6})\s+")
_FENCE = re.compile(r"\s*(?P<fence>`{3,}|~{3,})\s*(?P<info>[^`]*)$")
_ITEM = re.compile(r"\s*(?:(?:[-*+]|[0-9]{1,9}[.)])\s+)+(?:\[[ xX]\]\s+)?")
_ITEM_WORDS = 200
"""Characters of a list item that those below it stand under."""
_COMMENT = re.compile(r"#(?P<words>.*)$")
_LONE_RETURN = re.compile(r"\r(?!\n)")
_CITATIONS = frozenset({"bibtex", "biblatex", "bib"})


def fenced_blocks(lines: Sequence[str], first: int = 1) -> list[tuple[range, str]]:
    """Code blocks between fences.

    Args:
        lines: The lines of a text.
        first: Number of the line to begin at.

    Returns:
        For each block the numbers of its lines, fences included, and its language; one that is not closed runs to the
        end.
    """
    found: list[tuple[range, str]] = []
    opened: tuple[int, str, str] | None = None
    last_end = max((number for number, line in enumerate(lines, start=1) if "-->" in line), default=0)
    commented = False
    for number in range(first, len(lines) + 1):
        line = lines[number - 1]
        if opened is None and (commented or "<!--" in line):
            # A fence in an HTML comment is none.
            begun, ended = line.rfind("<!--"), line.rfind("-->")
            commented = begun > ended and number < last_end if begun >= 0 else commented and ended < 0
            continue
        match = _FENCE.match(unquoted(line))
        if match is None:
            continue
        if opened is None:
            opened = (number, match["fence"], (match["info"].split() or [""])[0].lower())
        elif match["fence"].startswith(opened[1]) and not match["info"].strip():
            found.append((range(opened[0], number + 1), opened[2]))
            opened = None
    if opened is not None:
        found.append((range(opened[0], len(lines) + 1), opened[2]))
    return found


def unquoted(line: str) -> str:
    """A line without the `>` of a quotation."""
    match = _QUOTE.match(line)
    return line[match.end() :] if match else line


@dataclass(frozen=True)
class Part:
    """A heading, a paragraph, a list item, or a comment in code.

    Args:
        kind: Which of these.
        text: Its text on one line.
        starts: Index in `text` at which each of its lines begins.
        lines: Number of each of these lines, from 1.
        columns: Column, from 0, at which the text of each line begins.
        heading: The headings and list items that it stands under, the innermost last, a line each.
        code: The code block around a comment.
    """

    kind: Kind
    text: str
    starts: tuple[int, ...]
    lines: tuple[int, ...]
    columns: tuple[int, ...]
    heading: str = ""
    code: str = ""

    def span(self, index: int, length: int) -> tuple[int, int, int]:
        """Line, first column and end column of some characters of the text, as far as they are in one line."""
        which = bisect_right(self.starts, index) - 1
        after = self.starts[which + 1] - 1 if which + 1 < len(self.starts) else len(self.text)
        start = index - self.starts[which] + self.columns[which]
        return self.lines[which], start, start + min(length, after - index)


@dataclass(frozen=True)
class PlacedTable:
    """A table with the headings that it stands under and the words just before it.

    Args:
        rows: The cells of its header, and those of each row.
        heading: The headings and list items, the innermost last, a line each.
        before: The words.
        lines: The numbers of its lines.
    """

    rows: Sequence[Sequence[PlacedCell]]
    heading: str
    before: str
    lines: Sequence[int]


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
    # To Markdown a lone carriage return ends a line; to whoever counts lines it does not.
    tables = read_tables(_LONE_RETURN.sub(" ", text))
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
        items: list[tuple[int, str]] = []  # The list items that a line stands in, with their indentation.

        def above() -> str:
            return "\n".join([*(headings[level] for level in sorted(headings)), *(words for _, words in items[:-1])])

        def leave(indent: int) -> None:
            while items and items[-1][0] >= indent:
                items.pop()

        def close() -> None:
            if gathered:
                parts.append(_part("paragraph", gathered, above()))
                gathered.clear()

        lines = self.text.split("\n")
        skipped = front_matter_lines(self.text)
        blocks = {block[0].start: block for block in fenced_blocks(lines, skipped + 1)}
        prose = _without_comments(lines, blocks, skipped)
        html = {each.lines.start: each for each in html_tables(prose) if each.lines.start > skipped}
        last_table: Table | None = None
        number = skipped + 1
        while number <= len(lines):
            line = prose[number - 1]
            bare = unquoted(line)
            if number in blocks:
                close()
                leave(len(bare) - len(bare.lstrip()))
                block, language = blocks[number]
                parts += _comments([(each, lines[each - 1]) for each in block[1:]], language, above())
                number = block.stop
                continue
            if number in self.in_table:
                close()
                leave(len(bare) - len(bare.lstrip()))
                table = self.in_table[number]
                if last_table is not table:
                    at = [table.line, *(row.line for row in table.rows)]
                    rows = [cells_of(lines[each - 1], each) for each in at]
                    tables.append(PlacedTable(rows, above(), parts[-1].text if parts else "", at))
                    last_table = table
            elif number in html:
                close()
                written = html[number]
                tables.append(PlacedTable(written.rows, above(), parts[-1].text if parts else "", written.lines))
                number = written.lines.stop
                continue
            elif match := _HEADING.match(bare):
                close()
                items.clear()
                level = len(match["level"])
                words = bare[match.end() :]
                headings = {key: value for key, value in headings.items() if key < level} | {level: words.strip()}
                parts.append(_part("heading", [(number, len(line) - len(words), words)], above()))
            elif not bare.strip():
                close()
            else:
                item = _ITEM.match(bare)
                indent = len(bare) - len(bare.lstrip())
                if item or (not gathered and indent == 0):
                    close()
                    leave(indent)
                words = bare[item.end() :] if item else bare.lstrip()
                if item:
                    items.append((indent, words[:_ITEM_WORDS]))
                gathered.append((number, len(line) - len(words), words))
            number += 1
        close()
        return Layout(tuple(parts), tuple(tables))


def _without_comments(lines: Sequence[str], blocks: Mapping[int, tuple[range, str]], skipped: int) -> list[str]:
    """The lines with HTML comments outside of code blank; one that is not closed hides nothing."""
    inside = {number for block, _ in blocks.values() for number in block}
    kept = [" " * len(line) if number in inside else line for number, line in enumerate(lines, start=1)]
    head = "\n".join(kept[:skipped])
    body = "\n".join(kept[skipped:])
    return [*head.split("\n"), *without_comments(body).split("\n")] if skipped else without_comments(body).split("\n")


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
