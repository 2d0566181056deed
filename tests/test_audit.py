"""Cards of other people, in shapes that people use, against two studies."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import legacy
import legacy_contents as contents
import pytest
from audited import evidence_of, words

from steer_eval.audit import Coverage, Evidence, audit_text
from steer_eval.formats import schema
from steer_eval.repository import open_target
from steer_eval.validate import validate


@pytest.fixture(scope="module")
def fox(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    place = legacy.build(tmp_path_factory.mktemp("fox"))
    return evidence_of(place.model, place.data)


def fox_card() -> str:
    """A report that states every cell, norm, variant and feature of the made-up study as it is."""
    lines = ["# Fox report", ""]
    for model, size in (("large", "3B"), ("small", "0.5B")):
        lines += [f"### {size}", "", "| Layer | c | PPL | ratio | collapsed |", "|---|---|---|---|---|"]
        lines += [
            f"| {row['layer']} | {row['coef']:+g} | {row['base_ppl']:.2f} → {row['ppl']:.2f} | "
            f"{row['ppl_ratio']:.2f}× | {'yes' if row['collapsed'] else 'no'} |"
            for row in contents.sweep(model)
        ]
        lines += ["", f"Norms of {size}:", "", "| Layer | norm |", "|---|---|"]
        lines += [f"| L={layer} | {contents.norm(contents.direction(model, layer)):.3f} |" for layer in contents.LAYERS]
        lines += [
            "",
            f"Features of {size}:",
            "",
            "| id | base mean | steered mean | delta | steered freq |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['feature_id']} | {row['base_mean']:.3f} | {row['steered_mean']:.3f} | {row['delta']:+.3f} | "
            f"{100 * row['steered_freq']:.0f}% |"
            for row in contents.features(model)["top_features"]
        ]
        lines += ["", f"Scores of {size} (owl-judged):", "", "| L | c | coherence | margin |", "|---|---|---|---|"]
        lines += [
            f"| {row['layer']} | {row['coef']:+g} | {row['coherence']} | {row['margin']:+.1f} |"
            for row in contents.judged_cells("owl", model)
        ]
        lines.append("")
    lines += ["## Transfer", "", "| Method | PPL ratio | Norm |", "|---|---|---|"]
    lines += [
        f"| {row['label'].title()} | {row['ppl_ratio']:.3f} | {row['norm']:.3f} |" for row in contents.transfer_eval()
    ]
    collapsed = sum(row["collapsed"] for row in contents.sweep("large"))
    lines += ["", f"In 3B, {collapsed} of 12 cells collapse. We wrote {contents.N_PAIRS} contrast pairs.", ""]
    return "\n".join(lines)


def test_a_report_with_every_number_right_is_reproduced(fox: Evidence) -> None:
    audit = fox.audit(fox_card(), "report.md")

    assert {place.verdict.word for place in audit.places} == {"reproduced"}
    assert len(audit.places) > 190


UPSTREAM = [
    ("In Qwen3.5-2B at L=14 c=+1 the DeepSeek-judged margin is +2.5.", "+2.5", "reproduced"),
    ("In Qwen3.5-2B at L=14 c=+1 the DeepSeek-judged margin is +2.0.", "+2.0", "contradicted"),
    ("At L=14 c=+2 of 2B the Qwen-judged margin is +2.0.", "+2.0", "reproduced"),
    ("In 2B the margin at L=14 c=+1 is +2.5.", "+2.5", "not-checkable"),
    ("In 2B, 16 of 35 cells collapse.", "16", "reproduced"),
    ("In 2B, 17 of 35 cells collapse.", "17", "contradicted"),
    ("We wrote 80 contrast pairs.", "80", "reproduced"),
    ("There are 10 evaluation prompts.", "10", "not-checkable"),
    ("The 2B perplexity rises from 18.94 to 21.31 at layer 14, c=+1.", "21.31", "reproduced"),
    ("The 2B perplexity rises from 18.94 to 22.31 at layer 14, c=+1.", "22.31", "contradicted"),
    ("The 2B vector has norm 2.29 at layer 14.", "2.29", "reproduced"),
    ("The 0.8B vector has norm 2.29 at layer 14.", "2.29", "contradicted"),
    ("The 2B vector has norm 2,29 at layer 14.", "2,29", "not-checkable"),
    ("The 9B vector has norm 2.29 at layer 14.", "2.29", "not-checkable"),
    ("Feature 4617 fires on 93% of prompts without steering.", "93%", "reproduced"),
    ("| Method | PPL ratio |\n|---|---|\n| Ridge | 1.24x |", "1.24x", "reproduced"),
    ("| Method | PPL ratio |\n|---|---|\n| **Procrustes** | 1.24x |", "1.24x", "contradicted"),
    ("| Method | judge | margin |\n|---|---|---|\n| native | DeepSeek | −2.5 |", "−2.5", "reproduced"),
    ("2B PPL ratio:\n\n| Layer \\ c | 1 | 2 |\n|---|---|---|\n| 14 | 1.13 | 1.55 |", "1.55", "reproduced"),
    ("| id | delta |\n|---|---|\n| 4617 | 1.676 |", "1.676", "reproduced"),
]


@pytest.fixture(scope="module")
def study(upstream: Path) -> Evidence:
    return evidence_of(upstream / "model", upstream / "dataset")


@pytest.mark.parametrize(("text", "number", "word"), UPSTREAM)
def test_statements_about_the_reference_study(study: Evidence, text: str, number: str, word: str) -> None:
    assert dict(words(study.audit(text, "card.md"), text))[number] == word


def test_ties_are_findings_and_not_verdicts(upstream: Path) -> None:
    validation = validate(open_target(str(upstream / "model"), str(upstream / "dataset")))
    text = (upstream / "model" / "README.md").read_text(encoding="utf-8")
    audit = audit_text(text, "README.md", validation.inventory, validation.findings)

    ties = [each for each in audit.findings if each.rule == "best-cell-tie"]
    assert [(each.where, each.message.split(" ", 1)[0]) for each in ties] == [("line 68", "17"), ("line 70", "4")]
    assert {each.rule for each in audit.findings} == {"best-cell-tie", "feature-ranking"}
    assert Counter(place.verdict.word for place in audit.places)["contradicted"] == 1
    schema.check(audit.to_json(data="d"), "audit", file="audit")


def test_what_only_says_where_counts_for_nothing(study: Evidence) -> None:
    audit = study.audit("Steer at layer 14. We ran 3 seeds. There are 6 contrast pairs.", "a.md")

    assert audit.coverage == Coverage(understood=1, numbers=2, places=1)
    assert len(audit.verdicts) == 3


def test_a_broken_identity_leaves_the_other_numbers_of_its_row(tmp_path: Path) -> None:
    place = legacy.build(tmp_path)
    file = place.data / "judge_owl_large.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    row = rows[0]
    scores = {axis: row[axis] for axis in ("mature_anger", "juvenile_rage", "coherence")}
    row["margin"] = scores["mature_anger"] - scores["juvenile_rage"] + 1
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    titles = ("Model", "Layer", "c", "Judge", *scores, "Margin")
    head = f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n"
    values = " | ".join(f"{value:.1f}" for value in (*scores.values(), row["margin"]))
    text = f"{head}| 3B | {row['layer']} | {row['coef']} | owl | {values} |\n"

    found = {
        place.verdict.claim.measure: place.verdict.word
        for place in evidence_of(place.model, place.data).audit(text, "a.md").places
    }
    assert found == {
        "mature_anger": "contradicted",
        "juvenile_rage": "contradicted",
        "coherence": "reproduced",
        "margin": "contradicted",
    }


def test_what_only_says_where_is_not_unchecked(study: Evidence) -> None:
    assert study.audit("Steer at layer 14.", "a.md").unchecked == 0
    assert study.audit("We ran 14 seeds.", "a.md").unchecked == 1


def test_results_of_the_hub(upstream: Path) -> None:
    validation = validate(open_target(str(upstream / "model"), str(upstream / "dataset")))
    text = "- dataset: {id: a/b, task_id: margin}\n  value: 2.5\n  notes: 2B, L=14 c=+1, judged by DeepSeek\n"
    audit = Evidence.of(validation.inventory, validation.findings).audit_results(text, ".eval_results/a.yaml")

    assert [(place.line, place.verdict.word) for place in audit.places] == [(2, "reproduced")]


# The model's card has two grids of five layers by seven coefficients.
@pytest.mark.parametrize(
    ("side", "reproduced"), [("smollm2-135m-mature-anger", 70), ("smollm2-135m-mature-anger-data", 2)]
)
def test_rendered_cards_of_the_packaged_study_are_not_contradicted(side: str, reproduced: int) -> None:
    artifacts = Path(__file__).parents[1] / "artifacts"
    model, data = artifacts / "smollm2-135m-mature-anger", artifacts / "smollm2-135m-mature-anger-data"
    audit = evidence_of(model, data).audit((artifacts / side / "README.md").read_text(encoding="utf-8"), "README.md")

    found = Counter(place.verdict.word for place in audit.places)
    assert not found["contradicted"]
    assert found["reproduced"] >= reproduced
