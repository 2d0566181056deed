"""Findings as SARIF 2.1.0, the format that code-scanning services read.

Invariant: one result per finding, in the order of the findings, each of a rule that the log describes. A path inside
the checkout is a relative URI; a fingerprint says which trouble it is and holds when lines above it come and go.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from steer_eval.cli.output import described
from steer_eval.cli.place import line_number
from steer_eval.cli.printable import printable
from steer_eval.findings import SEVERITIES, Finding
from steer_eval.rules.catalogue import Rule, rows_by_name

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "steerEvalFinding/v1"
ROOT = "%SRCROOT%"
_LINE = re.compile(r"\bline \d+")
_LINK = re.compile(r"\[(?=[^\[\]]*\]\()")


def sarif_log(findings: Iterable[Finding], *, version: str) -> dict[str, Any]:
    """A SARIF log with one run.

    Args:
        findings: The findings; their files are relative to the root of the checkout, or absolute.
        version: Version of this toolkit.
    """
    rules = rows_by_name()
    numbers = {name: number for number, name in enumerate(rules)}
    seen: Counter[str] = Counter()
    results = []
    for finding in findings:
        identity = _identity(finding)
        # Two troubles that differ only in their lines are told apart by their order.
        fingerprint = f"{identity}:{seen[identity]}"
        seen[identity] += 1
        results.append(
            {
                "ruleId": finding.rule,
                "ruleIndex": numbers[finding.rule],
                "level": finding.severity,
                "message": {"text": _LINK.sub(r"\\[", printable(described(finding)))},
                "locations": [_location(finding)],
                "partialFingerprints": {FINGERPRINT: fingerprint},
            }
        )
    driver = {"name": "steer-eval", "version": version, "rules": [_rule(rows) for rows in rules.values()]}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def artifact_location(file: str) -> dict[str, str]:
    """A file as a URI: below the root of the checkout, or a `file:` URI where it lies outside."""
    try:
        # The name of a file is bytes; quoting those also names files whose names are no UTF-8.
        name = os.fsencode(file)
    except UnicodeEncodeError:
        # No file has such a name, but a manifest can say it.
        name = file.encode("utf-8", "surrogatepass")
    uri = quote(name, safe="/")
    return {"uri": f"file://{uri}"} if file.startswith("/") else {"uri": uri, "uriBaseId": ROOT}


def _rule(rows: Sequence[Rule]) -> dict[str, Any]:
    worst = min(rows, key=lambda row: SEVERITIES.index(row.severity))
    plain = [row.summary.replace("`", "") for row in rows]
    return {
        "id": worst.name,
        "shortDescription": {"text": "; or ".join(plain)},
        "fullDescription": {
            "text": "; ".join(f"{row.severity}: {text}" for row, text in zip(rows, plain, strict=True))
        },
        "help": {
            "text": "Each result says what is wrong and, where it is known, what was expected and how to mend it."
        },
        "defaultConfiguration": {"level": worst.severity},
    }


def _location(finding: Finding) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": artifact_location(finding.file)}
    line = line_number(finding.where)
    if line is not None:
        physical["region"] = {"startLine": line}
    location: dict[str, Any] = {"physicalLocation": physical}
    if finding.where and finding.where != f"line {line}":
        location["logicalLocations"] = [{"fullyQualifiedName": printable(finding.where)}]
    return location


def _identity(finding: Finding) -> str:
    parts = [finding.rule, finding.file, *(_LINE.sub("line", text) for text in (finding.where, finding.message))]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
