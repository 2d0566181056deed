"""The generated pages say what the code says, and links inside the docs lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from steer_eval.findings import SEVERITIES
from steer_eval.rules.catalogue import RULES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["cli.md", "measures.md", "rules.md"])
def test_generated_pages_are_up_to_date(generator: ModuleType, page: str) -> None:
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == generator.PAGES[page](), "run python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_table_has_as_many_cells_in_each_row_as_in_its_head(page: Path) -> None:
    """A bar that is not escaped ends its cell, and what follows the last one is not shown."""
    lines = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL).splitlines()
    bars = 0
    for line in lines:
        found = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not found or not bars or found == bars, f"{page.name}: {line}"
        bars = found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def findings_made() -> Iterator[tuple[str, str | None]]:
    """Rule and severity of each place in the code that makes a finding; None where the severity is computed."""
    for path in sorted((ROOT / "steer_eval").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            # One without positional parts is read back from a report, not made.
            if name == "Finding" and node.args:
                rule, severity, *_ = [part.value if isinstance(part, ast.Constant) else None for part in node.args]
                assert isinstance(rule, str), f"{path}:{node.lineno}: the rule of a finding is written where it is made"
                yield rule, severity
            elif name == "Finding.from_error":
                yield node.args[0].value, "error"


def test_the_catalogue_has_exactly_the_rules_that_the_code_makes() -> None:
    made = set(findings_made())
    catalogue = [(rule.name, rule.severity) for rule in RULES]

    assert len(set(catalogue)) == len(catalogue)
    assert {severity for _, severity in catalogue} == set(SEVERITIES)
    assert {rule for rule, _ in catalogue} == {rule for rule, _ in made}
    assert {(rule, severity) for rule, severity in made if severity is not None} <= set(catalogue)
    computed = {rule for rule, severity in made if severity is None}
    assert all(sum(rule == each for each, _ in catalogue) > 1 for rule in computed), (
        "a computed severity has several values"
    )
    assert {(rule, severity) for rule, severity in catalogue if rule not in computed} <= made


def test_each_rule_is_one_row_of_the_page() -> None:
    """A summary with a pipe or a line end would break the table."""
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z]+) \| ([^|]+) \|$", page, re.MULTILINE)

    assert rows == [(rule.name, rule.severity, rule.summary) for rule in RULES]
