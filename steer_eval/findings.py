"""Findings: what a check of files has to say.

Invariant: a finding names the rule, the file, the place in it, what was expected and what is there, and how to mend
it. Findings are plain values; whoever prints them decides the form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from steer_eval.errors import FormatError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found (`schemas/finding.schema.json`)."""

    rule: str
    severity: Severity
    file: str
    where: str
    message: str
    expected: Any = None
    observed: Any = None
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {**asdict(self), "expected": _plain(self.expected), "observed": _plain(self.observed)}

    @classmethod
    def from_error(cls, rule: str, error: FormatError) -> Finding:
        """The error-severity finding that a `FormatError` amounts to."""
        return cls(
            rule,
            "error",
            error.file,
            error.where,
            error.reason,
            _plain(error.expected),
            _plain(error.observed),
            error.fix,
        )


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The worst severity among the findings, or None without any."""
    present = {finding.severity for finding in findings}
    return next((severity for severity in SEVERITIES if severity in present), None)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
