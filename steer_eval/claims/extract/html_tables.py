"""Tables that are written in HTML, as Markdown allows them.

Invariant: a cell is exactly the characters of one line between two tags, with the tags inside it blank. A table with
merged cells, with words between its cells, or with a cell over several lines is left to be read as prose.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from steer_eval.claims.extract.cell_places import PlacedCell

_TAG = re.compile(r"<(?P<end>/)?(?P<name>table|thead|tbody|tfoot|tr|th|td)\b(?P<rest>[^<>]*)>", re.IGNORECASE)
_MERGED = re.compile(r"\b(?:col|row)span\s*=\s*[\"']?(?!1\b)", re.IGNORECASE)
_INSIDE = re.compile(r"</?[A-Za-z][^<>]*>")
_CELL = frozenset({"th", "td"})
_GROUPS = frozenset({"thead", "tbody", "tfoot"})


@dataclass(frozen=True)
class HtmlTable:
    """A table: the numbers of its lines, and its rows, of which the first is the header."""

    lines: range
    rows: tuple[tuple[PlacedCell, ...], ...]


def html_tables(lines: Sequence[str]) -> list[HtmlTable]:
    """The tables of a text that can be read.

    Args:
        lines: Its lines, with code and comments blank.
    """
    text = "\n".join(lines)
    starts = [0]
    for line in lines[:-1]:
        starts.append(starts[-1] + len(line) + 1)
    tags = list(_TAG.finditer(text))
    found: list[HtmlTable] = []
    opened: int | None = None
    for index, tag in enumerate(tags):
        if tag["name"].lower() != "table":
            continue
        if not tag["end"]:
            opened = index
        elif opened is not None:
            table = _table(text, starts, tags[opened : index + 1])
            if table is not None:
                found.append(table)
            opened = None
    return found


def _table(text: str, starts: Sequence[int], tags: Sequence[re.Match[str]]) -> HtmlTable | None:
    rows: list[list[PlacedCell]] = []
    for tag, following in pairwise(tags):
        name, inner = tag["name"].lower(), text[tag.end() : following.start()]
        if name not in _CELL or tag["end"]:
            if inner.strip():
                return None
            if name == "tr" and not tag["end"]:
                rows.append([])
            continue
        cell = _cell(inner, tag.end(), starts)
        if cell is None or _MERGED.search(tag["rest"]) or not rows:
            return None
        rows[-1].append(cell)
    filled = tuple(tuple(row) for row in rows if row)
    if len(filled) < 2:
        return None
    first, last = (bisect_right(starts, place) for place in (tags[0].start(), tags[-1].start()))
    whole = text[starts[first - 1] : tags[0].start()] + text[tags[-1].end() :].partition("\n")[0]
    # What stands on the same lines beside the table would be lost.
    return None if whole.strip() else HtmlTable(range(first, last + 1), filled)


def _cell(inner: str, begin: int, starts: Sequence[int]) -> PlacedCell | None:
    bare = _INSIDE.sub(lambda tag: " " * len(tag[0]), inner)
    words = bare.strip()
    place = begin + len(bare) - len(bare.lstrip()) if words else begin
    line = bisect_right(starts, place)
    return None if "\n" in words else PlacedCell(words, place - starts[line - 1], line)
