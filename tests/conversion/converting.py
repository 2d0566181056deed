"""Ways to convert a repo, and to look at what became of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pt_files

from steer_eval.convert import convert
from steer_eval.convert_check import check_conversion
from steer_eval.convert_plan import Plan, plan_conversion

MANIFEST = "manifest.json"


def converted(repo: Path, out: Path, **options: Any) -> Plan:
    return convert(plan_conversion(repo), out, **options)


def differences(plan: Plan, out: Path) -> list[tuple[str, str]]:
    """Files and places at which a converted repo differs."""
    checked, beside = check_conversion(plan, out)
    findings = [finding for each in checked for finding in each.findings] + beside
    assert {(finding.rule, finding.severity) for finding in findings} <= {("convert-differs", "error")}
    return [(finding.file.removeprefix(f"{out.name}/"), finding.where) for finding in findings]


def with_vector(**changes: Any) -> Callable[[Path], object]:
    return lambda path: pt_files.saved(path, {**pt_files.caa(layer=6), **changes})
