"""What commands print, in one place: tables for people, JSON for programs.

Invariant: nothing here decides anything; it only shows values that were computed elsewhere. Texts of others are shown
as they are: nothing in them is taken for markup, and nothing reaches the terminal as a command.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from steer_eval.claims.verdict import Verdict
    from steer_eval.findings import Finding
    from steer_eval.reproduce import Report

MIN_WIDTH = 132
_STYLES = {
    "contradicted": "bold red",
    "drifted": "yellow",
    "inconclusive": "yellow",
    "not-checkable": "dim",
    "reproduced": "green",
    "error": "bold red",
    "warning": "yellow",
    "note": "cyan",
}


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


def print_report(report: Report) -> None:
    """Print a reproduction report for people."""
    from rich.text import Text

    from steer_eval.claims.verdict import WORDS

    console = _console()
    if report.findings:
        print_findings(report.findings)
    if report.verdicts:
        console.print(_verdict_table(report.verdicts))
        for verdict in report.verdicts:
            reasons = [check.reason for check in verdict.checks if check.reason and check.reason != "needs a re-run"]
            if reasons:
                line = Text.assemble(
                    (verdict.word, _STYLES[verdict.word]), printable(f" {verdict.claim.id}: {'; '.join(reasons)}")
                )
                console.print(line, soft_wrap=True)
        counts = Counter(verdict.word for verdict in report.verdicts)
        summary = ", ".join(f"{counts[word]} {word}" for word in WORDS if word in counts)
        console.print(f"{len(report.verdicts)} claims: {summary}")
    if report.resumed:
        console.print(f"{report.resumed} measurements are of an earlier run in the same directory")
    if report.reached != report.requested:
        console.print(f"[yellow]reached level {report.reached}, not {report.requested}[/]")
    console.print(Text(f"cards, results and report.json: {report.run}"), soft_wrap=True)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings for people, and how many there are."""
    from rich.text import Text

    console = _console()
    for finding in findings:
        place = f"{finding.file}: {finding.where}" if finding.where else finding.file
        line = Text.assemble(
            (finding.severity, _STYLES[finding.severity]),
            printable(f" {place}: {finding.message} [{finding.rule}]"),
        )
        for name, value in (("expected", finding.expected), ("observed", finding.observed)):
            if value is not None:
                line.append(printable(f"\n    {name}: {_short(value)}"))
        if finding.fix:
            line.append(printable(f"\n    fix: {finding.fix}"))
        console.print(line, soft_wrap=True)
    counts = Counter(finding.severity for finding in findings)
    console.print(", ".join(f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items()))


def _console() -> Console:
    from rich.console import Console

    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=MIN_WIDTH)


def _verdict_table(verdicts: Sequence[Verdict]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim", ratio=1)
    for title in ("expected", "observed", "tolerance"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("evidence", no_wrap=True)
    for verdict in verdicts:
        expected = verdict.claim.expected
        table.add_row(
            Text(printable(verdict.claim.words)),
            Text(str(expected).lower() if isinstance(expected, bool) else expected.text),
            "\n".join(_observed(check.observed) for check in verdict.checks),
            "\n".join(check.tolerance or "–" for check in verdict.checks),
            Text("\n").join(Text(check.verdict, _STYLES[check.verdict]) for check in verdict.checks),
            "\n".join(check.evidence for check in verdict.checks),
        )
    return table


def _observed(value: float | bool | None) -> str:
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}"


def _short(value: Any, limit: int = 300) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
