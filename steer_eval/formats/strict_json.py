"""Strict JSON and JSON Lines.

Invariant: what is accepted is JSON as RFC 8259 has it (no NaN, no duplicate keys), bounded in size, in UTF-8; what is
written ends in a newline, keeps the key order it was given and replaces the target in one step.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from steer_eval.errors import FormatError, NotFiniteError
from steer_eval.formats.atomic import write_text
from steer_eval.formats.schema import check
from steer_eval.formats.text import read_text

MAX_FILE_BYTES = 64 * 2**20
MAX_LINE_BYTES = 16 * 2**20
MAX_ROWS = 1_000_000
MAX_BAD = 1000
MAX_DEPTH = 64
MAX_VALUES = 2_000_000
"""Values of one document or line: an empty list is two bytes of text, and fifty or more in memory."""
MAX_INTEGER = 2**63
_MAX_DIGITS = len(str(MAX_INTEGER)) + 1
# A string that has no end goes on to that of the text: what is inside is looked at once.
_OPENING = re.compile(r'"(?:[^"\\]++|\\.)*+"?|(?P<opening>[\[{,])', re.DOTALL)
# Strings first, so that the letters of one inside a string are not taken for a number.
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<constant>NaN|-?Infinity)')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Row:
    """One line of a JSON Lines file.

    Args:
        line: Line number, from 1.
        value: The parsed object.
    """

    line: int
    value: dict[str, Any]


def read_json(path: Path, *, name: str | None = None) -> Any:
    """Read one JSON document.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is missing, too large, or is no strict JSON.
    """
    name = name or str(path)
    return parse(read_text(path, name, limit=MAX_FILE_BYTES), name, "")


def scan_json(path: Path, *, name: str | None = None) -> tuple[Any, list[FormatError]]:
    """Read one JSON document, going on after up to `MAX_BAD` numbers that are none.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Returns:
        The document with None in place of every NaN and infinity, and an error for each of these with its key and line.

    Raises:
        FormatError: The file is missing, too large, or not even JSON with such numbers.
    """
    name = name or str(path)
    text = read_text(path, name, limit=MAX_FILE_BYTES)
    value = _parse(text, name, "", on_constant=_Constant)
    lines = _lines_of_constants(text, name)
    errors: list[FormatError] = []

    def cleaned(value: Any, where: str) -> Any:
        if isinstance(value, _Constant):
            place = f"line {lines[len(errors)]}: {where.lstrip('.')}"
            errors.append(_not_finite(value.text, name, place))
            return None
        if isinstance(value, dict):
            return {key: cleaned(part, f"{where}.{key}") for key, part in value.items()}
        if isinstance(value, list):
            return [cleaned(part, f"{where}[{index}]") for index, part in enumerate(value)]
        return value

    return cleaned(value, ""), errors


def _lines_of_constants(text: str, name: str) -> list[int]:
    """Line of every NaN and infinity, in one pass."""
    lines: list[int] = []
    line, position = 1, 0
    for match in _CONSTANT.finditer(text):
        if match["constant"]:
            line += text.count("\n", position, match.start())
            position = match.start()
            lines.append(line)
            if len(lines) > MAX_BAD:
                raise FormatError(name, f"line {line}", f"more than {MAX_BAD} numbers are NaN or infinite")
    return lines


def scan_jsonl(path: Path, *, schema: str, name: str | None = None) -> Iterator[Row | FormatError]:
    """Read a JSON Lines file row by row, going on after a bad row.

    Args:
        path: The file.
        schema: Name of the schema that every row satisfies.
        name: What to call the file in messages; the path by default.

    Yields:
        A `Row` for each good line and a `FormatError` for each bad one; blank lines are bad. After `MAX_BAD` bad lines,
        or `MAX_ROWS` lines, a last error says that the rest is not read.
    """
    name = name or str(path)
    try:
        text = read_text(path, name, limit=MAX_FILE_BYTES)
    except FormatError as error:
        yield error
        return
    if not text.strip():
        yield FormatError(name, "line 1", "the file has no rows", expected="one JSON object per line")
        return
    bad = 0
    for number, line in enumerate(_lines(text), start=1):
        where = f"line {number}"
        if bad == MAX_BAD or number > MAX_ROWS:
            reason = f"{MAX_BAD} lines before it are bad" if bad == MAX_BAD else f"only {MAX_ROWS} lines are read"
            yield FormatError(name, where, f"this line and what follows are not read: {reason}")
            return
        try:
            if len(line) > MAX_LINE_BYTES:
                raise FormatError(name, where, f"the line is longer than {MAX_LINE_BYTES} characters")
            value = parse(line, name, where)
            _check_row(line, value, schema, name, where)
            yield Row(number, value)
        except FormatError as error:
            bad += 1
            yield error


_GOOD: set[bytes] = set()
_MOST_GOOD = 2**16


def _check_row(line: str, value: Any, schema: str, name: str, where: str) -> None:
    """Check a row against its schema, unless the same line was found good before: a table has several readers."""
    key = hashlib.sha256(f"{schema}\n{line}".encode()).digest()
    if key in _GOOD:
        return
    check(value, schema, file=name, where=where)
    if len(_GOOD) < _MOST_GOOD:
        _GOOD.add(key)


def _lines(text: str) -> Iterator[str]:
    """The lines of a text one by one: short ones take up to fifty times their length when all stand in a list."""
    position = 0
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        yield text[position:end]
        position = end + 1


def read_jsonl(path: Path, *, schema: str, name: str | None = None) -> list[Row]:
    """Read a JSON Lines file that must be good throughout.

    Args:
        path: The file.
        schema: Name of the schema that every row satisfies.
        name: What to call the file in messages; the path by default.

    Raises:
        FormatError: The first thing that is wrong with the file.
    """
    rows = []
    for item in scan_jsonl(path, schema=schema, name=name):
        if isinstance(item, FormatError):
            raise item
        rows.append(item)
    return rows


def dumps(value: Any) -> str:
    """One value as one line of strict JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write one indented JSON document, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_jsonl(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Write JSON Lines, atomically."""
    write_text(path, "".join(f"{dumps(value)}\n" for value in values))


def parse(text: str, name: str, where: str) -> Any:
    """Parse one strict JSON value.

    Args:
        text: The JSON text.
        name: The file, for messages.
        where: The place in the file, for messages.

    Raises:
        FormatError: It is no strict JSON.
    """

    def refuse_constant(constant: str) -> NoReturn:
        raise _not_finite(constant, name, where)

    return _parse(text, name, where, on_constant=refuse_constant)


@dataclass(frozen=True)
class _Constant:
    """A number that JSON does not have, in its place in a document."""

    text: str


def _not_finite(constant: str, name: str, where: str) -> NotFiniteError:
    return NotFiniteError(
        name,
        where,
        f"{constant} is not JSON",
        expected="a finite number or null",
        observed=constant,
        fix="write null where the schema allows it, or leave the row out",
    )


def _parse(text: str, name: str, where: str, *, on_constant: Callable[[str], Any]) -> Any:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise FormatError(name, where, f"the key {twice!r} stands twice in one object", fix="keep one of them")
        return value

    def refuse_overflow(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            shown = number if len(number) <= 40 else f"{number[:20]}…{number[-19:]}"
            raise FormatError(name, where, f"{shown} is too large for a number", expected="a finite number")
        return value

    def refuse_long(number: str) -> int:
        # Python refuses thousands of digits in words of its own.
        if len(number) > _MAX_DIGITS or abs(value := int(number)) >= MAX_INTEGER:
            raise FormatError(name, where, "an integer is too large", expected="at most 63 bits")
        return value

    if text.startswith("\ufeff"):
        fix = "save it as UTF-8 without a byte order mark"
        raise FormatError(name, where or "line 1", "not JSON: the text begins with a byte order mark", fix=fix)
    if _has_too_many_values(text):
        raise FormatError(name, where, f"there are more than the {MAX_VALUES} values that are read")
    try:
        value = json.loads(
            text,
            parse_float=refuse_overflow,
            parse_int=refuse_long,
            parse_constant=on_constant,
            object_pairs_hook=refuse_duplicates,
        )
        # Values nearly as deep as the stack would be read, but not shown in a message.
        if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
            raise RecursionError
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
        return value
    except UnicodeEncodeError:
        raise FormatError(name, where, "a lone surrogate is no text", fix="write the whole character") from None
    except json.JSONDecodeError as error:
        place = where or f"line {error.lineno}"
        raise FormatError(name, place, f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise FormatError(name, where, "the value is nested too deeply") from None
    except ValueError as error:
        raise FormatError(name, where, f"not JSON: {error}") from None


def _has_too_many_values(text: str) -> bool:
    """Whether there may be more than `MAX_VALUES` values, known before any is made."""
    # Every value but the first stands behind one of these; those inside strings are left out where it matters.
    if sum(map(text.count, "[{,")) < MAX_VALUES:
        return False
    openings = (match for match in _OPENING.finditer(text) if match["opening"])
    return next(islice(openings, MAX_VALUES - 1, None), None) is not None


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        parts = (part for each in level for part in (each.values() if isinstance(each, dict) else each))
        level = [part for part in parts if isinstance(part, dict | list)]
        if not level:
            return False
    return True
