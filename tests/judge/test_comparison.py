"""Methods of a comparison are judged as the sweep's cells are, and never mixed with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from judge.cases import RUBRIC, judge_on, judged_on, subjects
from judge.stub_server import Answer, Body, good, is_probe, scores, serving
from tiny_study import Folders, invoke, judge

from steer_eval.cells import Cell
from steer_eval.claims.claim import Selector
from steer_eval.claims.facts import facts_of
from steer_eval.claims.names import model_names
from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.inventory import Inventory, Root, take_inventory
from steer_eval.judge.agreement import compare
from steer_eval.judge.drift import generation_drift
from steer_eval.judge.judging import Judged, judge_report
from steer_eval.judge.panel import panel_of
from steer_eval.judge.rows import CellScore
from steer_eval.judge.score_files import check_place, write_judged, write_panel
from steer_eval.judge.selection import best_cells
from steer_eval.judge.subjects import Subject
from steer_eval.judge.tables import agreements, judge_tables
from steer_eval.rules.judges import judge_findings
from steer_eval.rules.sweep_files import sweep_files
from steer_eval.table_configs import study_tables

METHODS = (("addition", "steered"), ("addition", "random"), ("rotation", "steered"), ("unsteered", "zero"))
"""What the comparison of these tests has: two methods, one of them with its control, and the unsteered model."""


def methods(model: str = "m") -> list[Subject]:
    """The same number of cells, of a comparison."""
    made = subjects(len(METHODS), model=model)
    return [
        replace(subject, cell=Cell(model, label, 3, 2.0, variant))  # type: ignore[arg-type]
        for subject, (variant, label) in zip(made, METHODS, strict=True)
    ]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def compared(folders: Folders) -> list[dict[str, Any]]:
    """Put a comparison into the tiny study, its texts taken from the sweep; returns its rows."""
    study = folders.model / "study.yaml"
    planned = {"comparisons": [{"model": "tiny", "layer": 1, "coefficient": 1.0}]}
    study.write_text(yaml.safe_dump({**yaml.safe_load(study.read_text()), **planned}, sort_keys=False))
    with_text = [row for row in rows(folders.data / "sweep_tiny.jsonl") if row["generations"]]
    edits = {"edits": [{"kind": "add", "layer": 1, "coefficient": 1.0, "positions": "all", "norm": 1.0}]}
    made = [
        {**row, "layer": 1, "coef": 1.0, "variant": variant, "label": label, **edits}
        for row, (variant, label) in zip(with_text, METHODS, strict=False)
    ]
    made.append({**made[0], "variant": "stack", "collapsed": True, "generations": []})
    (folders.data / "comparison_tiny.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return made


@pytest.fixture(scope="module")
def once_judged(produced: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The tiny study with a comparison, and the scores of both tables in its dataset repo."""
    folders = produced.copy(tmp_path_factory.mktemp("judged") / "repos")
    compared(folders)
    code, _ = judge(str(folders.model), "--judge", "probe", "--out", str(folders.data))
    assert code == 0
    return folders


@pytest.fixture
def scored(once_judged: Folders, tmp_path: Path) -> Folders:
    """A private copy to tamper with."""
    return once_judged.copy(tmp_path / "scored")


def test_methods_and_controls_have_rows_in_a_file_of_their_own(folders: Folders, tmp_path: Path) -> None:
    _, before = judge(str(folders.model), "--judge", "probe", "--out", str(tmp_path / "before"))
    measured = compared(folders)
    code, report = judge(str(folders.model), "--judge", "probe", "--out", str(tmp_path / "out"))

    [judged] = report["judges"]
    found = rows(tmp_path / "out" / "judge_probe_tiny_comparison.jsonl")
    assert code == 0
    assert [(row["variant"], row["label"]) for row in found] == list(METHODS)
    for row in found:
        schema.check(row, "judge_comparison_row", file="row")
        assert (row["judge"], row["protocol"], row["asked"]) == ("probe", "sample", row["scored"])
    # Of the sweep nothing is said differently for it.
    for file in ("judge_probe_tiny.jsonl", "judgements_probe_tiny.jsonl"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "before" / file).read_bytes()
    assert judged["best"] == before["judges"][0]["best"]
    assert judged["cells"]["scored"] == before["judges"][0]["cells"]["scored"] + len(METHODS)
    said = rows(tmp_path / "out" / "judgements_probe_tiny_comparison.jsonl")
    assert {(row["variant"], row["label"]) for row in said} == set(METHODS)
    assert len(said) == 3 * sum(len(row["generations"]) for row in measured)
    for row in said:
        schema.check(row, "judgement", file="row")


def test_the_same_texts_get_the_same_scores_in_both_tables(once_judged: Folders) -> None:
    place = once_judged.data
    measured = rows(place / "comparison_tiny.jsonl")
    sweep = rows(place / "sweep_tiny.jsonl")
    by_text = {
        json.dumps(row["generations"]): (row["layer"], row["coef"]) for row in sweep if row["label"] == "steered"
    }
    scores_of = {(row["layer"], row["coef"]): row for row in rows(place / "judge_probe_tiny.jsonl")}
    again = rows(place / "judge_probe_tiny_comparison.jsonl")

    shared = 0
    for method, row in zip(again, measured, strict=False):
        cell = by_text.get(json.dumps(row["generations"]))
        if cell is not None:
            shared += 1
            assert method["means"] == scores_of[cell]["means"]
    assert shared


def test_either_table_can_be_judged_alone(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(SteerEvalError, match="no comparison with text") as refused:
        invoke("judge", str(folders.model), "--judge", "probe", "--cells", "comparison", "--out", str(tmp_path))
    assert "steer-eval compare" in refused.value.fix
    compared(folders)
    _, both = judge(str(folders.model), "--judge", "probe", "--out", str(tmp_path / "both"))
    alone = tmp_path / "alone"
    _, methods_only = judge(str(folders.model), "--judge", "probe", "--cells", "comparison", "--out", str(alone))

    assert {path.name for path in alone.glob("judge*.jsonl")} == {
        "judge_probe_tiny_comparison.jsonl",
        "judgements_probe_tiny_comparison.jsonl",
    }
    assert methods_only["judges"][0]["best"] == {}
    _, sweep_only = judge(str(folders.model), "--judge", "probe", "--cells", "sweep", "--out", str(alone))
    for path in (tmp_path / "both").glob("judge*.jsonl"):
        assert (alone / path.name).read_bytes() == path.read_bytes()
    parts = [*sweep_only["judges"][0]["scores"], *methods_only["judges"][0]["scores"]]
    assert both["judges"][0]["scores"] == parts


def test_the_table_for_people_names_the_method(folders: Folders, tmp_path: Path) -> None:
    compared(folders)
    answer = invoke("judge", str(folders.model), "--judge", "probe", "--out", str(tmp_path))

    assert "tiny rotation steered L=1 c=+1" in answer.stdout
    assert "tiny addition random L=1 c=+1" in answer.stdout


def test_a_comparison_that_can_not_be_read_is_told(folders: Folders, tmp_path: Path) -> None:
    compared(folders)
    (folders.data / "comparison_tiny.jsonl").write_text("{}\n")
    answer = CliRunner().invoke(cli, ["judge", str(folders.model), "--judge", "probe", "--out", str(tmp_path)])

    assert answer.exit_code == 0
    assert "not judged: comparison_tiny.jsonl" in answer.stderr


def test_margins_are_there_for_cards_and_the_table_of_methods(scored: Folders) -> None:
    [table] = judge_tables(scored.data, ["tiny"])

    for row in rows(scored.data / "judge_probe_tiny_comparison.jsonl"):
        cell = Cell("tiny", row["label"], row["layer"], row["coef"], row["variant"])
        assert table.margin(cell) == row["margin"]
        found = table.row(cell)
        assert found is not None
        assert table.interval(found) == tuple(row["intervals"]["margin"])
    for row in rows(scored.data / "judge_probe_tiny.jsonl"):
        assert table.margin(Cell("tiny", "steered", row["layer"], row["coef"])) == row["margin"]
    assert table.margin(Cell("tiny", "steered", 1, 9.0, "rotation")) is None
    assert table.margin(Cell("tiny", "steered", 1, 1.0, "stack")) is None
    assert all(cell.variant is None for cell in table.scores())
    configs = {config.name: dict(config.files) for config in study_tables(scored.data, {}, ["tiny"])}
    assert configs["judge_probe"] == {"tiny": "judge_probe_tiny.jsonl"}
    assert configs["judge_probe_comparison"] == {"tiny": "judge_probe_tiny_comparison.jsonl"}


def test_scores_of_a_comparison_alone_are_no_table_of_the_sweep(scored: Folders) -> None:
    (scored.data / "judge_probe_tiny.jsonl").rename(scored.data / "judge_old_tiny.jsonl")
    old, probe = sorted(judge_tables(scored.data, ["tiny"]), key=lambda table: table.judge)

    assert (old.judge, len(old.compared)) == ("old", 0)
    assert (probe.judge, probe.rows, len(probe.compared)) == ("probe", (), len(METHODS))
    assert agreements(old, (old, probe)) == {}
    assert invoke("card", str(scored.model)).exit_code == 0
    assert "Scores of texts by `probe`" not in (scored.model / "README.md").read_text()


LEVELS = st.sampled_from(RUBRIC.levels)
TABLES = st.dictionaries(st.integers(0, 5), st.tuples(LEVELS, LEVELS, LEVELS), max_size=6)


@settings(deadline=None)
@given(TABLES, TABLES, TABLES, TABLES)
def test_agreement_is_that_of_the_sweep_whatever_was_compared(
    one: dict[int, Any], other: dict[int, Any], one_more: dict[int, Any], other_more: dict[int, Any]
) -> None:
    def table(values: dict[int, Any], variant: str | None) -> dict[Cell, dict[str, float]]:
        return {
            Cell("m", "steered", 3, float(coef), variant): dict(zip(RUBRIC.names, levels, strict=True))
            for coef, levels in values.items()
        }

    first, second = table(one, None), table(other, None)
    more = compare(first | table(one_more, "stack"), second | table(other_more, "stack"), RUBRIC)
    assert more == compare(first, second, RUBRIC)


@pytest.mark.parametrize("highest", ["sweep", "method"])
def test_a_method_is_never_the_best_cell(highest: str) -> None:
    def score(margin: float, variant: str | None) -> CellScore:
        levels = {"mature_anger": 1 + margin, "juvenile_rage": 1.0, "coherence": 3.0}
        return CellScore(Cell("m", "steered", 3, 2.0, variant), levels)

    low, high = (1.0, 3.0) if highest == "method" else (3.0, 1.0)
    best = best_cells([score(low, None), score(high, "rotation")], RUBRIC)

    assert best is not None
    assert (best.cells, best.margin) == ((Cell("m", "steered", 3, 2.0),), low)
    assert best_cells([score(high, "rotation")], RUBRIC) is None


@pytest.fixture
def panel(tmp_path: Path) -> tuple[Judged, Judged]:
    def two(body: Body, _count: int) -> Answer:
        return good(body) if is_probe(body) else Answer(scores(body, 4.0))

    what = [*subjects(), *methods()]
    with serving(good) as low, serving(two) as high:
        first = judged_on(low, tmp_path / "a", what)
        second = judged_on(high, tmp_path / "b", what)
    return first, replace(second, name="other")


def test_a_panel_has_the_methods_too(panel: tuple[Judged, Judged], tmp_path: Path) -> None:
    found = panel_of(panel)
    assert found is not None
    files = write_panel(tmp_path, found.judged, found.columns)

    assert files == ["judge_panel_m.jsonl", "judge_panel_m_comparison.jsonl"]
    written = rows(tmp_path / files[1])
    assert [(row["variant"], row["label"]) for row in written] == list(METHODS)
    assert {tuple(row["judges"]) for row in written} == {("stub", "other")}


def test_checks_on_the_judge_stand_in_the_files_of_both_tables(panel: tuple[Judged, Judged], tmp_path: Path) -> None:
    files = write_judged(tmp_path, panel[0])

    assert files == [
        "judge_stub_m.jsonl",
        "judgements_stub_m.jsonl",
        "judge_stub_m_comparison.jsonl",
        "judgements_stub_m_comparison.jsonl",
    ]
    for name in (files[1], files[3]):
        assert {"canary", "canary-bait"} <= {row["role"] for row in rows(tmp_path / name)}
    report = judge_report(panel[0], files)
    variants = [score["variant"] for score in report["scores"]]
    assert variants == [None] * 4 + [variant for variant, _ in METHODS]


def test_scores_of_methods_are_never_written_over(tmp_path: Path) -> None:
    with serving(good) as stub:
        judged = judged_on(stub, tmp_path / "log", methods(), protocol="sample")
        write_judged(tmp_path, judged)
        with judge_on(stub, tmp_path / "log") as again:
            cells = [subject.cell for subject in methods()]
            check_place(tmp_path, again, cells, "sample", RUBRIC)
            check_place(tmp_path, again, [subject.cell for subject in subjects()], "paper-cell", RUBRIC)
            with pytest.raises(SteerEvalError, match="another judge, protocol or rubric"):
                check_place(tmp_path, again, cells, "paper-cell", RUBRIC)


def test_drift_of_a_method_is_told_under_its_name(tmp_path: Path) -> None:
    published = methods()
    changed = [
        replace(subject, samples=tuple(replace(s, text=f"{s.text} Late.") for s in subject.samples))
        for subject in published[:1]
    ]
    with serving(good) as stub:
        before = judged_on(stub, tmp_path, published, protocol="sample")
        after = judged_on(stub, tmp_path, [*changed, *published[1:]], protocol="sample")
    drift = generation_drift(before, after, RUBRIC)

    assert [(each["variant"], each["label"], each["same_texts"]) for each in drift["cells"]] == [
        (variant, label, number > 0) for number, (variant, label) in enumerate(METHODS)
    ]
    assert {axis["n"] for axis in drift["axes"]} == {0}


def inventory(folders: Folders) -> Inventory:
    return take_inventory([Root(folders.data, "", "dataset")])


def rules(folders: Folders) -> list[tuple[str, str]]:
    taken = inventory(folders)
    found = judge_findings(taken, sweep_files(taken))
    return [(each.rule, each.where) for each in found if each.file.endswith("_comparison.jsonl")]


def test_scores_as_they_are_written_pass_the_rules(scored: Folders) -> None:
    assert rules(scored) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"margin": 4.0}, [("judge-margin", "line 1: margin")]),
        ({"variant": "hypnosis"}, [("judge-unmatched", "line 1"), ("judge-missing", "addition")]),
        ({"variant": "stack"}, [("judge-imputed", "line 1"), ("judge-missing", "addition")]),
        ({"label": "random"}, [("judge-duplicate", "line 2"), ("judge-missing", "addition")]),
    ],
)
def test_a_wrong_row_is_found(scored: Folders, change: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    file = scored.data / "judge_probe_tiny_comparison.jsonl"
    first, *others = rows(file)
    file.write_text("".join(json.dumps(row) + "\n" for row in ({**first, **change}, *others)))

    assert rules(scored) == expected


def test_scores_without_the_comparison_they_are_on_are_found(scored: Folders) -> None:
    (scored.data / "comparison_tiny.jsonl").unlink()

    assert rules(scored) == [("judge-unmatched", "")]


def test_facts_name_the_method_and_stay_out_of_the_sweep(folders: Folders, scored: Folders) -> None:
    judge(str(folders.model), "--judge", "probe", "--out", str(folders.data))
    taken = inventory(folders)
    cells = Selector("tiny", "steered", 1, 1.0, judge="probe")
    alone = facts_of(taken, model_names(taken)).find("margin", cells)
    taken = inventory(scored)
    facts = facts_of(taken, model_names(taken))

    assert facts.find("margin", cells) == alone
    for row in rows(scored.data / "judge_probe_tiny_comparison.jsonl"):
        [fact] = facts.find("margin", Selector("tiny", row["label"], judge="probe", variant=row["variant"]))
        assert fact.value == row["margin"]
        assert fact.file == "judge_probe_tiny_comparison.jsonl"


def test_a_claim_on_a_methods_score_is_checked(scored: Folders, tmp_path: Path) -> None:
    by_method = {
        (row["variant"], row["label"]): row["margin"] for row in rows(scored.data / "judge_probe_tiny_comparison.jsonl")
    }
    claims = [
        {
            "id": f"margin-{variant}-{label}",
            "claim": "The margin is {expected}.",
            "measure": "margin",
            "select": {"model": "tiny", "variant": variant, "label": label, "judge": "probe"},
            "expected": f"{margin if label == 'steered' else margin + 1:.1f}",
        }
        for (variant, label), margin in by_method.items()
    ]
    study = scored.model / "study.yaml"
    study.write_text(yaml.safe_dump({**yaml.safe_load(study.read_text()), "claims": claims}, sort_keys=False))
    arguments = ("--level", "recompute", "--run", str(tmp_path / "run"), "--json")
    report = json.loads(invoke("reproduce", str(scored.model), *arguments).stdout)

    found = {verdict["id"]: verdict["verdict"] for verdict in report["verdicts"]}
    assert found == {
        f"margin-{variant}-{label}": "reproduced" if label == "steered" else "contradicted"
        for variant, label in by_method
    }
