"""What docs/case-study.md marks as found is found, in the reference study itself."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from steer_eval.audit import Audit, Evidence
from steer_eval.repository import open_target
from steer_eval.validate import Validation, validate

PAGE = Path(__file__).parents[1] / "docs" / "case-study.md"
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| what ")
]
FOUND_BY_RULE = [(row, match[1]) for row in ROWS if (match := re.search(r"rule `([a-z-]+)`", row[-1]))]


@pytest.fixture(scope="module")
def validation(upstream: Path) -> Validation:
    return validate(open_target(str(upstream / "model"), str(upstream / "dataset")))


@pytest.fixture(scope="module")
def audit(upstream: Path, validation: Validation) -> Audit:
    text = (upstream / "model" / "README.md").read_text(encoding="utf-8")
    return Evidence.of(validation.inventory, validation.findings).audit(text, "README.md")


@pytest.mark.parametrize(("row", "rule"), FOUND_BY_RULE, ids=[rule for _, rule in FOUND_BY_RULE])
def test_a_rule_finds_it_in_the_file_that_the_page_names(
    validation: Validation, row: tuple[str, ...], rule: str
) -> None:
    found = [finding for finding in validation.findings if finding.rule == rule]
    named = re.findall(r"`([\w*/]+\.\w+)`", row[1])

    assert found
    for name in named:
        stem = name.rsplit("/", 1)[-1].split("*")[0]
        assert any(finding.file.rsplit("/", 1)[-1].startswith(stem) for finding in found), (name, found)


def test_the_counts_of_the_page(validation: Validation) -> None:
    counts = Counter(finding.rule for finding in validation.findings)

    assert counts["not-finite"] == 2
    assert counts["judge-label"] == 7
    assert counts["card-file-absent"] == 3
    assert counts["collapse-unmarked"] == 3


def test_the_audit_finds_what_the_page_says(audit: Audit) -> None:
    wrong = [place.line for place in audit.places if place.verdict.word == "contradicted"]
    ties = [(tie.rule, tie.where, int(tie.message.split()[0])) for tie in audit.findings]

    assert wrong == [73]
    assert ties == [("best-cell-tie", "line 68", 17), ("best-cell-tie", "line 70", 4)]


def test_every_row_says_how_sure_it_is_and_what_finds_it() -> None:
    assert len(ROWS) > 20
    assert {row[2] for row in ROWS} == {"certain", "definition", "form"}
    assert all(re.match(r"rule `|verdict `|warning `|nothing", row[3]) for row in ROWS)
