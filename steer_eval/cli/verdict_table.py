"""The table of verdicts in a terminal: each kind of evidence has columns of its own, side by side.

Invariant: a check that was not made is shown as such, and a kind of evidence that nothing was checked on has no column.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from steer_eval.claims.verdict import Check, Verdict

STYLES = {
    "contradicted": "bold red",
    "drifted": "yellow",
    "inconclusive": "yellow",
    "not-checkable": "dim",
    "reproduced": "green",
}
"""How each word of a verdict is shown."""

NOTHING = "–"


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """All verdicts, in their order.

    Args:
        verdicts: The verdicts of claims, and of numbers that only say where something is.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    checks = [check for verdict in verdicts for check in verdict.checks]
    made = {check.evidence for check in checks if check.verdict != "not-checkable"}
    # Where nothing could be checked at all, the columns are there to say so.
    kinds = [kind for kind in ("published data", "re-run") if kind in (made or {check.evidence for check in checks})]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim", ratio=1)
    table.add_column("expected", justify="right", no_wrap=True)
    for kind in kinds:
        table.add_column(kind, justify="right", no_wrap=True)
        if len(kinds) == 1:
            table.add_column("tolerance", justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
    for verdict in verdicts:
        expected = verdict.claim.expected
        shown = [
            Text(printable(in_table(verdict))),
            Text(str(expected).lower() if isinstance(expected, bool) else expected.text),
        ]
        for kind in kinds:
            check = next((check for check in verdict.checks if check.evidence == kind), None)
            shown += _cells(verdict, check, together=len(kinds) > 1)
        table.add_row(*shown)
    return table


def reasons_of(verdict: Verdict, known: Collection[str] = ()) -> list[str]:
    """What the checks of a verdict say beside their numbers, what two of them say alike once.

    Args:
        verdict: The verdict.
        known: Reasons that need not be said.
    """
    said = [check.reason for check in verdict.checks if check.reason and check.reason not in known]
    # A re-run's reason is often the published one with more behind it.
    return list(dict.fromkeys(part for reason in said for part in reason.split("; ")))


def in_table(verdict: Verdict) -> str:
    """What a claim is called in the table: its words, behind the line that they were found in."""
    return f"{verdict.line}: {verdict.claim.words}" if is_in_text(verdict) else verdict.claim.words


def is_in_text(verdict: Verdict) -> bool:
    """Whether a claim was found in a text, where its line and column are its id."""
    return verdict.claim.id.partition(":")[0].isdigit()


def _cells(verdict: Verdict, check: Check | None, *, together: bool) -> list[Text]:
    """What was observed, the tolerance (in a column of its own unless two kinds stand together), and the verdict."""
    from rich.text import Text

    from steer_eval.audit import says_where

    if check is None:
        # Some measures can only be taken on one kind of evidence.
        return [Text(NOTHING), *([] if together else [Text(NOTHING)]), Text("not measured", "dim")]
    observed, tolerance = _observed(check.observed, verdict.claim.measure), check.tolerance or NOTHING
    word = Text("no claim", "dim") if says_where(verdict) else Text(check.verdict, STYLES[check.verdict])
    if not together:
        return [Text(observed), Text(tolerance), word]
    plain = tolerance in (NOTHING, "exact", "rounding", "highest margin") or tolerance[0] in "<≤≥>"
    return [Text(observed if plain else f"{observed} {tolerance}"), word]


def _observed(value: float | bool | None, measure: str) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,.0f} B" if measure == "file_size" else f"{value:.6g}"
