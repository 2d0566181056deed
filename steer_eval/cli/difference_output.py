"""Differences for people.

Invariant: every change of the difference is shown or counted; long values are cut and say so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import click

from steer_eval.cli.output import encodable, short
from steer_eval.cli.printable import printable
from steer_eval.difference.changes import (
    ABSENT,
    ArtifactChange,
    ClaimChange,
    Difference,
    FieldChange,
    NumberChange,
    Pair,
    RowChange,
    TensorChange,
    Word,
)

SHOWN = 12
"""Changes of one kind in one file that are shown; the JSON has them all."""
VALUE = 60
"""Characters of a value that are shown."""
_SIGNS: dict[Word, str] = {"added": "+", "removed": "-", "changed": "~"}
_COLOURS: dict[Word, str] = {"added": "green", "removed": "red", "changed": "yellow"}


def print_difference(difference: Difference) -> None:
    """Print a difference for people.

    Args:
        difference: What to print.
    """
    for name, lines in (
        ("Artifacts", _artifacts(difference.artifacts)),
        ("Numbers of the cards", _numbers(difference.numbers)),
        ("Claims", _claims(difference.claims)),
    ):
        listed = list(lines)
        if listed:
            click.secho(name, bold=True)
            for line in listed:
                click.echo(line)
    if difference.same:
        click.echo(f"no differences in {difference.unchanged} files")
    else:
        counts = Counter(change.paths.word for change in difference.artifacts)
        said = ", ".join(f"{counts[word]} {word}" for word in _SIGNS if counts[word]) or "none changed"
        click.echo(
            f"artifacts: {said}, {difference.unchanged} the same; numbers of cards that differ: "
            f"{len(difference.numbers)}; claims that differ: {len(difference.claims)}"
        )


def _line(depth: int, word: Word, text: str) -> str:
    return "  " * depth + click.style(_SIGNS[word], _COLOURS[word]) + " " + encodable(printable(text))


def _artifacts(changes: Iterable[ArtifactChange]) -> Iterator[str]:
    for change in changes:
        moved = f" (was {change.paths.old})" if change.paths.word == "changed" and not change.paths.same else ""
        yield _line(1, change.paths.word, f"{change.repo}: {change.path}{moved}, {_sizes(change.sizes)}")
        yield from (_line(2, each.shapes.word, _tensor(each)) for each in change.tensors)
        yield from _some((_line(2, each.lines.word, _row(each)) for each in change.rows), len(change.rows))
        yield from _some((_line(2, each.values.word, _field(each)) for each in change.fields), len(change.fields))
        yield from (f"    ! {encodable(printable(each))}" for each in change.troubles)
        if change.paths.word == "changed" and not (change.tensors or change.rows or change.fields or change.troubles):
            yield "    other bytes" + ("" if change.kind in _OPAQUE else ", the same content")


_OPAQUE = frozenset({"card", "figure", "other", "perplexity_corpus", "jsonl", "torch", "transfer", "manifest"})
"""Kinds whose content is not taken apart."""


def _some(lines: Iterable[str], count: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number == SHOWN:
            yield f"    … {count - SHOWN} more, see --json"
            return
        yield line


def _sizes(sizes: Pair) -> str:
    if sizes.word != "changed":
        return f"{sizes.new if sizes.old is ABSENT else sizes.old} bytes"
    return f"{sizes.old} bytes" if sizes.same else f"{sizes.old} → {sizes.new} bytes"


def _tensor(change: TensorChange) -> str:
    if not change.shapes.same:
        return f"{change.name}: shape {_arrow(change.shapes)}"
    measured = f"largest difference {change.max_difference:.3g}"
    if change.cosine is not None and change.norm_ratio is not None:
        measured = f"cosine {change.cosine:.6f}, norm × {change.norm_ratio:.6g}, {measured}"
    return f"{change.name}: {measured}"


def _row(change: RowChange) -> str:
    key = ", ".join(f"{name} {_value(value)}" for name, value in change.key.items()) or "row"
    number = change.lines.old if change.lines.new is ABSENT else change.lines.new
    fields = "; ".join(_field(each) for each in change.fields[:4])
    more = f"; {len(change.fields) - 4} more fields" if len(change.fields) > 4 else ""
    return f"{key} (line {number}){': ' if fields else ''}{fields}{more}"


def _field(change: FieldChange) -> str:
    return f"{change.field} {_arrow(change.values)}"


def _numbers(changes: tuple[NumberChange, ...]) -> Iterator[str]:
    changed = [each for each in changes if each.numbers.word == "changed"]
    lines = (
        _line(1, "changed", f"{each.repo} card, line {each.lines.new}: {_arrow(each.numbers, _text)} in {each.text!r}")
        for each in changed
    )
    yield from _some(lines, len(changed))
    others = Counter((each.repo, each.numbers.word) for each in changes if each.numbers.word != "changed")
    for (repo, word), count in others.items():
        yield _line(1, word, f"{repo} card: {count} numbers {word} with their lines")


def _claims(changes: tuple[ClaimChange, ...]) -> Iterator[str]:
    for change in changes:
        word = change.words.word
        about = change.words.old if change.words.new is ABSENT else change.words.new
        yield _line(1, word, f"{change.claim}: {about}")
        if word == "changed":
            for name, values in (("expected", change.expected), ("verdict", change.verdict), ("data", change.observed)):
                if not values.same:
                    yield _line(2, "changed", f"{name} {_arrow(values, _text)}")
        else:
            verdict = change.verdict.old if word == "removed" else change.verdict.new
            yield f"      {verdict}"


def _arrow(values: Pair, shown: Any = None) -> str:
    show = shown or _value
    if values.old is ABSENT:
        return f"added: {show(values.new)}"
    if values.new is ABSENT:
        return f"removed: {show(values.old)}"
    return f"{show(values.old)} → {show(values.new)}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return short(json.dumps(value, ensure_ascii=False), VALUE)


def _text(value: Any) -> str:
    return short(value, VALUE) if isinstance(value, str) else _value(value)
