"""Rows of tables that are about files.

Invariant: a number in such a row is about each file that the row names, and has a meaning only with a unit or a noun
beside it; all others are not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.extract.cell_places import PlacedCell
from steer_eval.claims.extract.context import Context
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, Extracted
from steer_eval.claims.extract.meanings import fitted
from steer_eval.claims.extract.numbers import Number, find_numbers, one_number
from steer_eval.claims.printed import Printed
from steer_eval.formats.card import code_spans
from steer_eval.rules.card_files import expanded

_OF_VECTORS = frozenset({"vector_norm", "vector_width"})
_SETTING = re.compile(r"\b(?P<key>d_sae|d_model|d_in|k)\s?=\s?$")
_SETTINGS = {"d_sae": "sae_width", "k": "sae_k"}
_TOP = re.compile(r"\b[Tt]op[- ]$")
_LAYER = re.compile(r"\b(?:layer|decoder block)\s$")
_ROWS = re.compile(r"\s(?:[\w-]{1,32} )?(?:rows|lines|records)\b", re.IGNORECASE)
_TOTAL = re.compile(r"\W{0,3}(?:in )?(?:total|together|altogether|all)\b", re.IGNORECASE)
_EACH = re.compile(r"\W{0,3}(?:each|per file|apiece)\b", re.IGNORECASE)
_NEAR = 40


def file_claims(
    cells: Sequence[PlacedCell], column: int, columns: Sequence[str | None], context: Context
) -> Iterator[Extracted]:
    """The claims of a row about files.

    Args:
        cells: Its cells.
        column: Index of the cell with the paths.
        columns: What each column means; None where that is not known.
        context: What the data has.
    """
    named, line = cells[column].text, cells[column].line
    paths = [path for span in code_spans(named) for path in expanded(span.removeprefix("./"))]
    pattern = paths[0] if len(paths) == 1 else named.strip(" `")
    for index, cell in enumerate(cells):
        if index == column:
            continue
        meant = columns[index] if index < len(columns) else None
        alone = one_number(cell.text) is not None
        if meant in _OF_VECTORS and alone and len(paths) == 1 and paths[0] in context.vector_files:
            yield _of_vector(cell, meant or "", paths[0], context)
            continue
        # In a column of rows, `855 words` are no rows.
        counted = meant == "row_count" and alone
        for number in find_numbers(cell.text):
            measure = "row_count" if counted and not number.unit else _measure(cell.text, number)
            start = cell.start + number.start
            place = (line, start, start + len(number.text))
            identity = f"{line}:{start + 1}"
            printed = _size(number) if measure == "file_size" else number.printed
            if measure is None or not paths or not number.readable or printed is None:
                claim = Claim(identity, f"{pattern}: {number.text}", "", Selector(), number.printed)
                yield Extracted(claim, *place, NOT_UNDERSTOOD)
                continue
            claim = Claim(identity, f"{pattern}: {number.text}", measure, Selector(file="|".join(paths)), printed)
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


def _of_vector(cell: PlacedCell, measure: str, path: str, context: Context) -> Extracted:
    """A norm or a width in a row about the file of one vector."""
    [number] = find_numbers(cell.text)
    model, layer = context.vector_files[path]
    made = fitted(measure, number)
    start = cell.start + number.start
    select = Selector(model, layer=layer) if made else Selector()
    name, printed = made or ("", number.printed)
    claim = Claim(f"{cell.line}:{start + 1}", f"{path}: {number.text}", name, select, printed)
    reason = "" if made else NOT_UNDERSTOOD
    return Extracted(claim, cell.line, start, start + len(number.text), reason, bound=number.bound)


def _size(number: Number) -> Printed | None:
    """A size in the signs that sizes are compared by, whatever words or signs say about it; None for a lower bound."""
    digits = re.sub(r"^[^0-9.]+", "", number.text)
    if number.bound == ">" or number.signed:
        return None
    sign = "<" if number.bound else "~" if number.approximate else ""
    return replace(number.printed, text=f"{sign}{digits}")


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
