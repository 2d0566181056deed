"""What a page shows is what stands in the repos and the run, each thing once and at its place."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from studies import ANCHOR_RATIO, COEFFICIENTS, LAYERS, PROMPTS, RATIOS, OnDisk, build, claim, write_lines
from tiny_study import Folders, reproduced

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.report_cells import UNNAMED_JUDGE, Naming, Sweep
from steer_eval.report_data import Page, load_page, load_run
from steer_eval.repository import open_repository
from steer_eval.reproduce import REPORT, reproduce

CLAIMS = [
    claim("perplexity_ratio", "2.40", identity="right", layer=3, coef=2.0),
    claim("perplexity_ratio", "9.99", identity="wrong", layer=3, coef=2.0),
    claim("vector_cosine", "1.000", identity="open", layer=3),
]
MARGINS = {(1, 1.0): 1.5, (1, 2.0): 2.5, (3, 2.0): 2.5, (3, 4.0): 4.0}


def score(layer: int, coef: float, margin: float, **more: object) -> dict[str, object]:
    juvenile = 1.0 if margin >= 0 else 5.0
    axes = {"mature_anger": juvenile + margin, "juvenile_rage": juvenile, "coherence": 4.0}
    return {"layer": layer, "coef": coef, **axes, "margin": margin, **more}


@pytest.fixture
def place(tmp_path: Path) -> OnDisk:
    made = build(tmp_path, claims=CLAIMS)
    write_lines(
        made.data / "judge_strict_tiny.jsonl", [score(*at, margin, notes="n") for at, margin in MARGINS.items()]
    )
    return made


def sweep_of(page: Page) -> Sweep:
    [sweep] = page.sweeps
    return sweep


def test_a_study_has_its_verdicts_the_worst_first(place: OnDisk) -> None:
    page = load_page(str(place.model))

    assert [(verdict.id, verdict.verdict) for verdict in page.verdicts] == [
        ("wrong", "contradicted"),
        ("open", "not-checkable"),
        ("right", "reproduced"),
    ]
    wrong = page.verdicts[0]
    assert (wrong.measure, wrong.expected, wrong.file) == ("perplexity_ratio", "9.99", "study.yaml")
    assert [check.evidence for check in wrong.checks] == ["published data", "re-run"]
    assert wrong.checks[0].observed == pytest.approx(2.4)
    assert page.title == "A persona"


def test_every_row_is_a_cell_with_what_stands_in_it(place: OnDisk) -> None:
    sweep = sweep_of(load_page(str(place.model)))
    grid = sweep.grid("steered")

    assert {at: cell.ratio for at, cell in grid.items()} == pytest.approx(RATIOS)
    assert list(sweep.grid("random")) == [(layer, coef) for layer in LAYERS for coef in COEFFICIENTS]
    assert [cell.line for cell in sweep.cells] == list(range(1, 2 + 2 * len(RATIOS) + 1))
    zero, anchor = sweep.cells[:2]
    assert (zero.label, zero.name, zero.ratio) == ("zero", "unsteered", 1.0)
    assert (anchor.label, anchor.ratio, anchor.system_prompt) == ("anchor", pytest.approx(ANCHOR_RATIO), "Be firm.")
    assert [text.prompt for text in zero.texts] == list(PROMPTS)
    collapsed = grid[3, 4.0]
    assert (collapsed.collapsed, collapsed.texts) == (True, ())
    assert grid[3, 2.0].interval[0] < 2.4 < grid[3, 2.0].interval[1]
    assert (sweep.base_model, sweep.file) == ("lab/tiny-base", "sweep_tiny.jsonl")


def test_all_cells_of_the_largest_margin_tie_but_not_those_without_text(place: OnDisk) -> None:
    sweep = sweep_of(load_page(str(place.model)))
    scores = {at: cell.scores for at, cell in sweep.grid("steered").items() if cell.scores}

    assert sweep.judges == ("strict",)
    assert {at: each[0].margin for at, each in scores.items()} == MARGINS
    assert {at for at, each in scores.items() if each[0].best} == {(1, 2.0), (3, 2.0)}
    assert {at for at, each in scores.items() if each[0].imputed} == {(3, 4.0)}
    assert scores[1, 1.0][0].axes == {"mature_anger": 2.5, "juvenile_rage": 1.0, "coherence": 4.0}
    assert scores[1, 1.0][0].notes == "n"


def test_a_margin_that_is_not_recorded_follows_from_the_axes(place: OnDisk) -> None:
    rows = [score(1, 1.0, -2.0)]
    del rows[0]["margin"]
    write_lines(place.data / "judge_tiny.jsonl", rows)
    sweep = sweep_of(load_page(str(place.model)))

    assert sweep.judges == ("strict", UNNAMED_JUDGE)
    assert [score.margin for score in sweep.grid("steered")[1, 1.0].scores] == [1.5, -2.0]


def test_what_stands_twice_has_two_anchors_and_the_first_is_drawn(place: OnDisk) -> None:
    path = place.data / "sweep_tiny.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    again = {**json.loads(lines[2]), "ppl_ratio": 77.0}
    path.write_text("\n".join([*lines, json.dumps(again)]) + "\n", encoding="utf-8")
    page = load_page(str(place.model))
    sweep = sweep_of(page)
    anchors = [cell.identity for cell in page.cells]

    assert len(anchors) == len(set(anchors)) == len(lines) + 1
    assert sweep.cells[-1].ratio == 77.0
    assert sweep.grid("steered")[1, -1.0].ratio == pytest.approx(RATIOS[1, -1.0])
    assert "sweep-duplicate" in {finding.rule for finding in page.findings}


def test_a_bad_row_is_a_finding_and_hides_no_other(place: OnDisk) -> None:
    place.edit_line("sweep_tiny.jsonl", 3, lambda row: row.update(ppl="much"))
    page = load_page(str(place.model))

    assert len(sweep_of(page).cells) == 2 + 2 * len(RATIOS) - 1
    assert page.findings[0].severity == "error"
    assert any(finding.where.startswith("line 3") for finding in page.findings)


@pytest.mark.parametrize("words", ["<script>", "a b\u2028c", "", "ü" * 200, "compare", "A/B", "../x"])
def test_anchors_are_safe_and_unique(words: str) -> None:
    naming = Naming()
    anchors = [naming.anchor(words) for _ in range(3)]

    assert len({anchor.lower() for anchor in anchors} | {"compare", "top"}) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9._+-]{1,90}", anchor) for anchor in anchors)


def test_a_repo_without_a_study_is_read_by_its_file_names(upstream: Path) -> None:
    page = load_page(str(upstream / "model"), str(upstream / "dataset"))
    sweeps = {sweep.model: sweep for sweep in page.sweeps}

    assert {model: len(sweep.cells) for model, sweep in sweeps.items()} == {
        "qwen_large": 35,
        "qwen_small": 35,
        "qwen_xlarge": 9,
    }
    assert [(part.title, len(part.cells)) for part in page.labelled] == [
        ("transfer_eval", 4),
        ("anchor_eval", 4),
        ("multi_layer_eval", 4),
        ("patch_eval", 2),
        ("sae_steer_eval", 3),
    ]
    assert {features.table.model: len(features.table.rows) for features in page.features} == {
        "Qwen/Qwen3.5-2B": 30,
        "Qwen/Qwen3.5-0.8B": 30,
    }
    best = Counter(
        (model, score.judge)
        for model, sweep in sweeps.items()
        for cell in sweep.cells
        for score in cell.scores
        if score.best
    )
    assert best["qwen_xlarge", "deepseek"] == 4
    assert best["qwen_large", "deepseek"] == 1
    assert best["qwen_small", "deepseek"] == 17
    native = page.labelled[0].cells[0]
    assert {score.judge: score.margin for score in native.scores} == {"deepseek": -2.5, UNNAMED_JUDGE: -1.0}
    assert page.verdicts[0].verdict == "contradicted"
    assert page.collapse_ratio == 3.0


def test_a_card_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A card\n\nThe best margin is 3.5.\n", encoding="utf-8")
    page = load_page(str(tmp_path))

    assert page.sweeps == ()
    assert page.title == "A card"
    assert [fact.term for fact in page.facts] == ["model repo", "level", "numbers of the card", "page made by"]


def test_a_run_says_what_its_report_says(place: OnDisk, tmp_path: Path) -> None:
    run = tmp_path / "run"
    report = reproduce(place.repositories(), level="recompute", cells="claimed", run=run)
    page = load_page(str(run))
    facts = {fact.term: fact.values for fact in page.facts}

    assert {verdict.id: verdict.verdict for verdict in page.verdicts} == {
        verdict.claim.id: verdict.word for verdict in report.verdicts
    }
    assert set(page.findings) == set(report.findings)
    assert facts["model repo"] == (report.repo,)
    assert facts["level"] == ("recompute: claims from the published data",)
    assert facts["published data measured on"][0] == "x86_64 AVX2 cpu float32 torch-2.13"
    assert len(sweep_of(page).cells) == 2 + 2 * len(RATIOS)
    assert sweep_of(page).title == "tiny"


def test_the_published_repos_beside_a_run_that_measured_nothing_are_shown_once(place: OnDisk, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reproduce(place.repositories(), level="recompute", cells="claimed", run=run)
    page = load_run(run, [open_repository(str(place.model), "model"), open_repository(str(place.data), "dataset")])

    assert sweep_of(page).judges == ("strict",), "the run has no copy of the scores"


def test_a_run_moved_elsewhere_gives_the_same_page(place: OnDisk, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reproduce(place.repositories(), level="recompute", cells="claimed", run=run)
    shutil.copytree(run, tmp_path / "elsewhere" / "moved")

    assert load_page(str(run)) == load_page(str(tmp_path / "elsewhere" / "moved"))
    assert str(tmp_path / "run") not in json.dumps(load_page(str(run)).to_json())


def test_a_rerun_stands_beside_what_was_published(folders: Folders, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, report = reproduced(folders, run, "--level", "rerun")
    assert code == 0, report
    alone, beside = load_page(str(run)), load_page(str(run), str(folders.data))

    assert [sweep.title for sweep in alone.sweeps] == ["tiny"]
    assert [sweep.title for sweep in beside.sweeps] == ["tiny, re-run", "tiny, published data"]
    again, published = beside.sweeps
    assert len(again.cells) < len(published.cells), "only what claims rest on was measured again"
    cells = {cell.name: cell for cell in published.cells}
    assert all(cell.texts == cells[cell.name].texts for cell in again.cells if cell.texts)
    assert {cell.identity for cell in again.cells}.isdisjoint(cell.identity for cell in published.cells)
    facts = {fact.term: fact.values for fact in alone.facts}
    assert facts["same machine class"] == ("yes",)
    assert facts["re-run on"] == facts["published data measured on"]
    checks = [check for verdict in alone.verdicts for check in verdict.checks]
    assert {check.evidence for check in checks if check.observed is not None} == {"published data", "re-run"}


def test_a_run_that_was_tampered_with_is_refused_or_says_so(place: OnDisk, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reproduce(place.repositories(), level="recompute", cells="claimed", run=run)
    known = len(load_page(str(run)).findings)
    sweep = run / "sweep_tiny.jsonl"
    sweep.write_text(sweep.read_text(encoding="utf-8") + "{}\n", encoding="utf-8")
    assert len(load_page(str(run)).findings) > known

    document = json.loads((run / REPORT).read_text(encoding="utf-8"))
    document["verdicts"][0]["verdict"] = "splendid"
    (run / REPORT).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(FormatError, match=r"report\.json"):
        load_page(str(run))


def test_a_target_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SteerEvalError, match="no folder"):
        load_page(str(tmp_path / "absent"))


def test_what_is_printed_is_json(place: OnDisk) -> None:
    value = json.loads(json.dumps(load_page(str(place.model)).to_json(), allow_nan=False))

    assert value["schema"] == "steer-eval/report-page/1"
    assert value["sweeps"][0]["cells"][0]["texts"][0]["prompt"] == PROMPTS[0]
    assert value["findings"] == [finding.to_json() for finding in load_page(str(place.model)).findings]
