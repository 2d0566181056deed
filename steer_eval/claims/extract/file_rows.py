"""Rows of tables that are about files.

Invariant: a number in such a row is about each file that the row names, and has a meaning only with a unit or a noun
beside it; all others are not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.cell_places import PlacedCell
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, Extracted
from steer_eval.claims.extract.numbers import Number, find_numbers, one_number
from steer_eval.formats.card import code_spans
from steer_eval.rules.card_files import expanded

_SETTING = re.compile(r"\b(?P<key>d_sae|d_model|d_in|k)\s?=\s?$")
_SETTINGS = {"d_sae": "sae_width", "k": "sae_k"}
_TOP = re.compile(r"\b[Tt]op[- ]$")
_LAYER = re.compile(r"\blayer\s$")
_ROWS = re.compile(r"\s(?:[\w-]{1,32} )?(?:rows|lines|records)\b", re.IGNORECASE)
_TOTAL = re.compile(r"\W{0,3}(?:in )?(?:total|together|altogether|all)\b", re.IGNORECASE)
_EACH = re.compile(r"\W{0,3}(?:each|per file|apiece)\b", re.IGNORECASE)
_NEAR = 40


def file_claims(cells: Sequence[PlacedCell], column: int, rows: int | None, line: int) -> Iterator[Extracted]:
    """The claims of a row about files.

    Args:
        cells: Its cells.
        column: Index of the cell with the paths.
        rows: Index of the cell with the number of rows, if there is one.
        line: Line of the row.
    """
    named = cells[column].text
    paths = [path for span in code_spans(named) for path in expanded(span.removeprefix("./"))]
    pattern = paths[0] if len(paths) == 1 else named.strip(" `")
    for index, cell in enumerate(cells):
        if index == column:
            continue
        # In a column of rows, `855 words` are no rows.
        counted = index == rows and one_number(cell.text) is not None
        for number in find_numbers(cell.text):
            measure = "row_count" if counted and not number.unit else _measure(cell.text, number)
            start = cell.start + number.start
            place = (line, start, start + len(number.text))
            identity = f"{line}:{start + 1}"
            if measure is None or not paths or not number.readable:
                claim = Claim(identity, f"{pattern}: {number.text}", "", Selector(), number.printed)
                yield Extracted(claim, *place, NOT_UNDERSTOOD)
                continue
            words = f"{measure.replace('_', ' ')} of {pattern} is {number.text}"
            claim = Claim(identity, words, measure, Selector(file="|".join(paths)), number.printed)
            after = cell.text[number.end : number.end + _NEAR]
            noun = ""
            if measure == "file_size":
                noun = "total" if _TOTAL.match(after) else "each" if _EACH.match(after) else ""
            yield Extracted(claim, *place, noun=noun, bound=number.bound)


def names_file(pattern: str, path: str) -> bool:
    """Whether a path or glob of a text means a file; a text may leave the folder out, or name a whole folder."""
    if pattern.endswith("/"):
        return path.startswith(pattern)
    return fnmatchcase(path, pattern) or ("/" not in pattern and fnmatchcase(path.rsplit("/", 1)[-1], pattern))


def _measure(cell: str, number: Number) -> str | None:
    before, after = cell[max(0, number.start - _NEAR) : number.start], cell[number.end : number.end + _NEAR]
    if number.unit and number.unit[0] in "kKMGb":
        return "file_size"
    if number.unit:
        return None
    if setting := _SETTING.search(before):
        return _SETTINGS.get(setting["key"])
    if _TOP.search(before) and re.match(r"\sfeatures\b", after):
        return "feature_count"
    if _LAYER.search(before):
        return "artifact_layer"
    return "row_count" if _ROWS.match(after) else None
