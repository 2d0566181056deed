"""The table of a comparison: each method in a line, beside its control.

Invariant: every number is computed from the rows and from what judges published; nothing is measured here. A method
without text has no statistics of texts, and one without a control nothing to set beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steer_eval.cells import Cell
from steer_eval.comparison.cells import UNSTEERED
from steer_eval.results import SweepRow, Text

if TYPE_CHECKING:
    from steer_eval.judge.tables import JudgeTable

Margins = Mapping[Cell, Mapping[str, float]]
"""Margins of cells, by judge."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Measured:
    """What is told of one cell.

    Args:
        row: Its row.
        changed: How many of its texts differ from the unsteered ones, up to near-ties; None where it has none.
        distinct: Share of distinct words among the words of a text, the mean over its texts; None without words.
        margins: Its margins, by judge.
    """

    row: SweepRow
    changed: int | None
    distinct: float | None
    margins: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """It as a JSON object."""
        interval = self.row.interval
        return {
            "ppl_ratio": self.row.ppl_ratio,
            "ppl_ratio_interval": None if interval is None else [interval.low, interval.high],
            "collapsed": self.row.collapsed,
            "collapse_undecided": self.row.undecided,
            "texts": len(self.row.generations),
            "texts_changed": self.changed,
            "distinct_words": None if self.distinct is None else round(self.distinct, 4),
            "margins": dict(self.margins),
        }


@dataclass(frozen=True)
class Line:
    """One method and its control.

    Args:
        method: What it is called.
        steered: Its own cell.
        control: Its control; None where it has none.
    """

    method: str
    steered: Measured
    control: Measured | None

    def to_json(self) -> dict[str, Any]:
        """It as a JSON object."""
        row = self.steered.row
        return {
            "method": self.method,
            "edits": [dict(edit) for edit in row.edits or ()],
            "system_prompt": row.system_prompt,
            **self.steered.to_json(),
            "control": None if self.control is None else self.control.to_json(),
        }


def table(rows: Sequence[SweepRow], margins: Margins | None = None) -> list[Line]:
    """One line per method, in the order of the rows.

    Args:
        rows: The rows of one model's comparison.
        margins: Margins that judges gave its cells, where there are any.
    """
    unsteered = next((row for row in rows if row.cell.variant == UNSTEERED), None)

    def measured(row: SweepRow) -> Measured:
        changed = texts_changed(row, unsteered)
        return Measured(row, changed, distinct_words(row.generations), (margins or {}).get(row.cell, {}))

    controls = {row.cell.variant: row for row in rows if row.cell.label == "random"}
    lines = []
    for row in rows:
        if row.cell.variant is not None and row.cell.label != "random":
            control = controls.get(row.cell.variant)
            lines.append(Line(row.cell.variant, measured(row), None if control is None else measured(control)))
    return lines


def texts_changed(row: SweepRow, unsteered: SweepRow | None) -> int | None:
    """How many of a row's texts are not the unsteered ones, up to the first near-tie of two tokens.

    Args:
        row: The row.
        unsteered: The unsteered row, where there is one.

    Returns:
        The number, of the prompts on which both rows have a text; None where there are none.
    """
    base = {text.prompt_idx: text for text in unsteered.generations} if unsteered else {}
    compared = [(text, base[text.prompt_idx]) for text in row.generations if text.prompt_idx in base]
    return sum(not text.same_as(plain) for text, plain in compared) if compared else None


def margins_of(judges: Iterable[JudgeTable], rows: Iterable[SweepRow]) -> dict[Cell, dict[str, float]]:
    """The margins that judges gave rows of a comparison, by cell and judge; only cells that have any.

    Args:
        judges: What judges published.
        rows: The rows.
    """
    tables, found = list(judges), {}
    for row in rows:
        given = {each.judge: margin for each in tables if (margin := each.margin(row.cell)) is not None}
        if given:
            found[row.cell] = given
    return found


def distinct_words(texts: Sequence[Text]) -> float | None:
    """Share of distinct words among a text's words, the mean over texts with words; None where no text has any.

    It falls when a text repeats itself. Longer texts have smaller shares, so it is for texts of one limit.
    """
    shares = []
    for text in texts:
        words = [word.lower() for word in _WORD.findall(text.gen)]
        if words:
            shares.append(len(set(words)) / len(words))
    return sum(shares) / len(shares) if shares else None


def edits_in_words(row: SweepRow) -> str:
    """What was done, in a few words.

    Args:
        row: A row of a comparison.
    """
    parts = [_in_words(edit) for edit in row.edits or ()]
    kinds = {edit["kind"] for edit in row.edits or ()}
    if len(parts) > 1 and kinds == {"add"}:
        layers = ", ".join(str(edit["layer"]) for edit in row.edits or ())
        norm = sum(edit["norm"] for edit in row.edits or ())
        parts = [f"add at L={layers}, norm {norm:.3g} in all"]
    if row.system_prompt is not None:
        parts.insert(0, "system prompt")
    return " + ".join(parts) or "nothing"


def _in_words(edit: Mapping[str, Any]) -> str:
    at = f"L={edit['layer']}"
    match edit["kind"]:
        case "add" | "rotate":
            return f"{edit['kind']} at {at}, c={edit['coefficient']:+g}, norm {edit['norm']:.3g}"
        case "clamp":
            return f"hold {len(edit['features'])} features at {at}"
        case _:
            return f"patch the prompt at {at}"
