"""Findings as GitHub shows them: workflow commands beside the lines of a change, and a table in the job's summary.

Invariant: each finding is exactly one line of output, and nothing in a text of others ends its command, begins another
or is taken for Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from steer_eval.cli.output import counted, described, short, worst_first
from steer_eval.cli.place import line_number
from steer_eval.cli.printable import printable
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import Finding, Severity
from steer_eval.markdown import line as one_line

_COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}
_MARKDOWN = re.compile(r"([\\`*_\[\]~$#!])")
SUMMARY_BYTES = 512 * 1024
"""GitHub drops a step's whole summary above 1 MiB."""


def workflow_commands(findings: Iterable[Finding]) -> list[str]:
    """One workflow command per finding, the worst first, because GitHub shows only the first few.

    Args:
        findings: The findings; their files are relative to the root of the checkout.
    """
    return [
        command(
            _COMMANDS[finding.severity],
            f"{finding.where}: {described(finding)}" if finding.where else described(finding),
            file=finding.file,
            line=line_number(finding.where),
            title=f"steer-eval {finding.rule}",
        )
        for finding in worst_first(findings)
    ]


def error_annotation(error: SteerEvalError) -> str:
    """The workflow command for a target that can't be checked at all."""
    message = f"{error.message}\nfix: {error.fix}" if error.fix else error.message
    if not isinstance(error, FormatError):
        return command("error", message, title="steer-eval")
    return command("error", message, file=error.file, line=line_number(error.where), title="steer-eval")


def summary(findings: Sequence[Finding], *, target: str, checked: int) -> str:
    """The findings as a Markdown section for a job's summary, as many as fit.

    Args:
        findings: The findings.
        target: What was checked, as the user named it.
        checked: How many files were looked at.
    """
    lines = [f"### steer-eval validate: {cell(target)}", "", counted(findings, checked), ""]
    if findings:
        lines += ["| severity | place | what is wrong | rule |", "|---|---|---|---|"]
    size = sum(len(line.encode("utf-8", "backslashreplace")) + 1 for line in lines)
    for number, finding in enumerate(worst_first(findings)):
        place = f"{finding.file}: {finding.where}" if finding.where else finding.file
        cells = (finding.severity, place, described(finding), finding.rule)
        row = f"| {' | '.join(cell(each) for each in cells)} |"
        size += len(row.encode("utf-8", "backslashreplace")) + 1
        if size > SUMMARY_BYTES:
            lines += ["", f"and {len(findings) - number} more"]
            break
        lines.append(row)
    return "\n".join(lines) + "\n\n"


def command(name: str, message: str, **properties: str | int | None) -> str:
    """A workflow command; properties that are None are left out."""
    given = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items() if value is not None)
    return f"::{name} {given}::{_data(message)}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def cell(text: str) -> str:
    """A text as itself in one cell of a table, whatever Markdown or HTML is in it."""
    escaped = _MARKDOWN.sub(r"\\\1", one_line(printable(short(text, 1000))))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
