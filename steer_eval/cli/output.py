"""What commands print, in one place: tables for people, JSON for programs.

Invariant: nothing here decides anything; it only shows values that were computed elsewhere. Texts of others are shown
as they are: nothing in them is taken for markup, and nothing reaches the terminal as a command.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from steer_eval.cli.printable import printable
from steer_eval.cli.verdict_table import STYLES, is_in_text, reasons_of, verdict_table
from steer_eval.findings import SEVERITIES, Finding

if TYPE_CHECKING:
    from rich.console import Console

    from steer_eval.audit import Audit, Coverage
    from steer_eval.claims.verdict import Verdict
    from steer_eval.reproduce import Report

MIN_WIDTH = 132
NO_WRAP = 1_000_000
"""Width at which a line of text stays one line, so that what is piped can be searched by line."""
_STYLES = {
    **STYLES,
    "error": "bold red",
    "warning": "yellow",
    "note": "cyan",
}


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json_text(value))


def json_text(value: Any) -> str:
    """One JSON document."""
    return encodable(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


def encodable(text: str) -> str:
    """The text with what UTF-8 can't say (from file names in other encodings) as the escapes that JSON has for it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def print_report(report: Report) -> None:
    """Print a reproduction report for people."""
    from rich.text import Text

    console = _console()
    if report.findings:
        print_findings(report.findings)
    if report.verdicts:
        _print_verdicts(console, report.verdicts)
    if report.coverage is not None:
        _print_coverage(console, report.coverage)
    if report.resumed:
        console.print(f"{report.resumed} measurements are of an earlier run in the same directory")
    if report.reached != report.requested:
        console.print(f"[yellow]reached level {report.reached}, not {report.requested}[/]")
    console.print(Text(f"cards, results, report.json and report.html: {report.run}"), soft_wrap=True)


def print_audit(audit: Audit) -> None:
    """Print the audit of a text for people."""
    console = _console()
    if audit.findings:
        print_findings(audit.findings)
    for name, base in audit.names.base_models.items():
        console.print(printable(f"{name} is {base}"), style="dim", markup=False, highlight=False)
    _print_verdicts(console, audit.verdicts)
    _print_coverage(console, audit.coverage)


def _print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """The table of verdicts, the reasons below it, and how many there are of each word."""
    from rich.text import Text

    from steer_eval.audit import says_where
    from steer_eval.claims.verdict import NO_JUDGE, NO_RERUN, WORDS

    console.print(verdict_table(verdicts))
    claims = [verdict for verdict in verdicts if not says_where(verdict)]
    for verdict in claims:
        # What holds for every claim alike is not said of each that was checked otherwise.
        known = () if verdict.word == "not-checkable" else (*NO_RERUN, NO_JUDGE)
        if reasons := reasons_of(verdict, known):
            line = Text.assemble(
                (verdict.word, _STYLES[verdict.word]), printable(f" {_place(verdict)}: {'; '.join(reasons)}")
            )
            console.print(line, soft_wrap=True)
    counts = Counter(verdict.word for verdict in claims)
    summary = ", ".join(f"{counts[word]} {word}" for word in WORDS if word in counts)
    console.print(f"{len(claims)} claims: {summary}" if claims else "no claims")
    again = [check for verdict in claims for check in verdict.checks if check.evidence == "re-run"]
    why = Counter(check.reason for check in again if check.verdict == "not-checkable")
    if why and set(why) != {NO_RERUN[0]}:
        listed = "; ".join(f"{count} not-checkable: {reason}" for reason, count in why.most_common())
        console.print(f"of {len(again)} that a re-run can check, {listed}", soft_wrap=True, highlight=False)


def _place(verdict: Verdict) -> str:
    """What a claim is called below the table."""
    return f"line {verdict.line}, {verdict.claim.words}" if is_in_text(verdict) else verdict.claim.id


def _print_coverage(console: Console, coverage: Coverage) -> None:
    share = f" ({100 * coverage.understood / coverage.numbers:.0f} %)" if coverage.numbers else ""
    beside = f"; {coverage.places} more only say where something is" if coverage.places else ""
    shown = f"{coverage.understood} of {coverage.numbers} numbers of the text understood{share}{beside}"
    console.print(shown, highlight=False)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings for people, and how many there are."""
    from rich.console import Console

    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=NO_WRAP)
    # What is coloured was decided by the console.
    click.echo(findings_text(findings, console) + counted(findings), color=console.is_terminal)


def findings_text(findings: Iterable[Finding], console: Console) -> str:
    """Findings as a table under the name of each file, the worst first.

    Args:
        findings: The findings.
        console: Decides width and colours; nothing is printed on it.

    Returns:
        Whole lines, each with its line end.
    """
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    groups: dict[str, list[tuple[Finding, Text]]] = {}
    for finding in worst_first(findings):
        groups.setdefault(finding.file, []).append((finding, Text(_shown(_one_line(finding.where)))))
    longest = max((where.cell_len for group in groups.values() for _, where in group), default=0)
    with console.capture() as capture:
        for file, group in groups.items():
            console.print(Text(_shown(_one_line(file)), "bold"), soft_wrap=True)
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(width=max(map(len, SEVERITIES)))
            table.add_column(width=min(longest, max(16, min(console.width, MIN_WIDTH) // 3)), overflow="fold")
            table.add_column(overflow="fold")
            for finding, where in group:
                message, *rest = _shown(described(finding)).split("\n")
                what = Text.assemble(message, (f" [{finding.rule}]", "dim"), *(f"\n{line}" for line in rest))
                table.add_row(Text(finding.severity, _STYLES[finding.severity]), where, what)
            console.print(Padding(table, (0, 0, 0, 2), expand=False))
    return "".join(f"{line.rstrip()}\n" for line in capture.get().split("\n")[:-1])


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings by severity, otherwise in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def described(finding: Finding) -> str:
    """What is wrong, and on lines of their own what was expected, what is there and how to mend it, where known."""
    lines = [_one_line(finding.message)]
    for name, value in (("expected", finding.expected), ("observed", finding.observed)):
        if value is not None:
            lines.append(f"{name}: {short(_one_line(value))}")
    if finding.fix:
        lines.append(f"fix: {_one_line(finding.fix)}")
    return "\n".join(lines)


def counted(findings: Iterable[Finding], checked: int | None = None) -> str:
    """How many findings there are of each severity, the worst first, and of how many files."""
    counts = Counter(finding.severity for finding in findings)
    parts = [f"{counts[each]} {each}{'s' if counts[each] > 1 else ''}" for each in SEVERITIES if each in counts]
    found = ", ".join(parts) or "no findings"
    return found if checked is None else f"{found}; {checked} files checked"


def short(text: str, limit: int = 300) -> str:
    """The text, cut where it is longer than the limit."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _shown(text: str) -> str:
    """A text of others as it may be shown."""
    return encodable(printable(text))


def _one_line(value: Any) -> str:
    """A value on one line, its line ends as the escapes that stand for them."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _console() -> Console:
    from rich.console import Console

    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=MIN_WIDTH)
