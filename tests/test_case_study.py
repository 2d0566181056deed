"""What docs/case-study.md marks as found is found, in the reference study itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steer_eval.audit import Audit, Evidence
from steer_eval.claims.facts import facts_of
from steer_eval.claims.names import model_names
from steer_eval.claims.verdict import judge
from steer_eval.repository import StudyRepositories, open_target
from steer_eval.results_files import load_results
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
    assert counts["texts-identical"] == 2


def test_the_audit_finds_what_the_page_says(audit: Audit) -> None:
    wrong = [place.line for place in audit.places if place.verdict.word == "contradicted"]
    ties = [(tie.where, int(tie.message.split()[0])) for tie in audit.findings if tie.rule == "best-cell-tie"]
    rankings = [(each.where, each.observed) for each in audit.findings if each.rule == "feature-ranking"]

    assert wrong == [73]
    assert ties == [("line 68", 17), ("line 70", 4)]
    assert rankings == [("line 36", pytest.approx(-0.588, abs=1e-3)), ("line 36", pytest.approx(-0.157, abs=1e-3))]
    assert {warning.rule for warning in audit.findings} == set(_named("warning"))


def test_the_numbers_of_the_card_are_as_the_page_counts_them(audit: Audit) -> None:
    words = Counter(place.verdict.word for place in audit.stated)
    absent = [
        place
        for place in audit.stated
        if place.verdict.word == "not-checkable" and "absent" in place.verdict.checks[0].reason
    ]

    assert words == {"reproduced": 31, "contradicted": 1, "not-checkable": 9}
    assert len(absent) == 9
    assert "Of the 41 numbers that its card states, 31 agree with the data, nine" in " ".join(PAGE.read_text().split())


def test_the_packaged_study_contradicts_the_claims_that_the_page_names(upstream: Path, validation: Validation) -> None:
    target = open_target(str(upstream / "model"), str(upstream / "dataset"), "qwen35-mature-anger")
    assert isinstance(target, StudyRepositories)
    facts = facts_of(validation.inventory, model_names(validation.inventory))
    results = load_results(target.study, model_repo=target.model.folder, data_repo=target.data.folder)
    wrong = {
        verdict.claim.id: verdict.checks[0].where
        for verdict in judge(target.study, replace(results, facts=facts), None)
        if verdict.word == "contradicted"
    }

    assert set(_named("claim")) <= set(wrong)
    # The rankings are found by a warning of the audit as well.
    assert set(wrong) - set(_named("claim")) == {"large-ranking", "small-ranking"}
    assert (wrong["small-features"], wrong["transfer-mature-anger-unnamed"]) == (
        "top_features[4], top_features[23]",
        "line 2",
    )


def _named(kind: str) -> list[str]:
    """What the page names in its last column behind a word."""
    return [match[1] for row in ROWS if (match := re.search(rf"{kind} `([a-z-]+)`", row[-1]))]


def test_every_row_says_how_sure_it_is_and_what_finds_it() -> None:
    assert len(ROWS) > 20
    assert {row[2] for row in ROWS} == {"certain", "definition", "form"}
    assert all(re.match(r"rule `|verdict `|warning `|claim `|nothing", row[3]) for row in ROWS)


def test_what_nothing_finds_stands_in_the_raw_data(upstream: Path) -> None:
    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (upstream / "dataset" / name).read_text(encoding="utf-8").splitlines()]

    def best(name: str) -> list[tuple[int, float]]:
        margins = {(row["layer"], row["coef"]): row["mature_anger"] - row["juvenile_rage"] for row in rows(name)}
        return [cell for cell, margin in margins.items() if margin == max(margins.values())]

    large = json.loads((upstream / "model/saes/qwen_large_L14_features.json").read_text(encoding="utf-8"))
    ratios = {row["feature_id"]: row["steered_mean"] / row["base_mean"] for row in large["top_features"]}
    assert sorted(ratios, key=lambda feature: -ratios[feature]).index(4617) == 3
    assert best("judge_deepseek_large.jsonl") == [(14, 1.0)]
    assert best("judge_qwen_large.jsonl") == [(14, 2.0)]
    small = rows("judge_qwen_small.jsonl")[13]
    assert (small["layer"], small["coef"], small["mature_anger"], small["juvenile_rage"]) == (18, 2.0, 2.5, 1.5)
    twice = rows("judge_deepseek_small.jsonl")[15], rows("judge_deepseek_transfer.jsonl")[0]
    assert (twice[0]["layer"], twice[0]["coef"], twice[1]["label"]) == (14, 1.0, "native")
    assert twice[0]["coherence"] - twice[1]["coherence"] == 0.5
    anchor, native = rows("judge_phase_i.jsonl")[9], rows("judge_transfer.jsonl")[0]
    assert (anchor["label"], native["label"]) == ("prompt_only", "native")
    assert anchor["mature_anger"] == native["mature_anger"] == 2.5
    unnamed = {row["label"]: (row["mature_anger"], row["margin"]) for row in rows("judge_transfer.jsonl")}
    assert unnamed["ridge"] == unnamed["procrustes"] == (1.5, 0.5)
    assert unnamed["random"] == (1.0, 0.0)
    assert all(len(row["mature_mad"]) > len(row["neutral"]) for row in rows("contrast_pairs.jsonl"))
    texts = [
        [text["gen"] for text in row["generations"] if text["gen"] is not None]
        for model in ("small", "large", "xlarge")
        for row in rows(f"sweep_qwen_{model}.jsonl")
    ]
    assert {len(each) for each in texts} == {0, 10}
    assert len(rows("eval_prompts.jsonl")) == 40
