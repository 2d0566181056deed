"""`steer-eval compare`, from a study to its table, and from its claims to verdicts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from compared import FEATURES, METHODS, PROMPTS, planned, write_ingredients
from some_saes import random_sae
from tiny_models import HIDDEN
from tiny_study import Folders, invoke, reproduced

from steer_eval.cells import Cell
from steer_eval.cli.main import cli
from steer_eval.formats import schema
from steer_eval.formats.sae import TopKSae
from steer_eval.formats.saelens import write_saelens
from steer_eval.formats.strict_json import read_jsonl, write_jsonl
from steer_eval.formats.vector import read_vector
from steer_eval.results_files import comparison_file, load_results, read_comparison
from steer_eval.study import load_study

FILE = comparison_file("tiny")
CLAIMED = {"rotation", "patch", "features"}


def with_claims(folders: Folders) -> None:
    """Let the study claim what its comparison found, beside what it claims of its sweep."""
    path = folders.model / "study.yaml"
    what = yaml.safe_load(path.read_text())
    study = load_study(path)
    rows = load_results(study, model_repo=folders.model, data_repo=folders.data).comparisons["tiny"].rows
    by_method = {(row.cell.variant, row.cell.label): row for row in rows}

    def claim(identity: str, measure: str, expected: Any, **select: Any) -> dict[str, Any]:
        return {"id": identity, "claim": identity, "measure": measure, "select": select, "expected": expected}

    what["claims"] += [
        *(
            claim(f"ratio-{name}", "perplexity_ratio", f"{by_method[name, 'steered'].ppl_ratio:.4f}", variant=name)
            for name in sorted(CLAIMED)
        ),
        claim(
            "control",
            "perplexity_ratio",
            f"{by_method['stack', 'random'].ppl_ratio:.4f}",
            variant="stack",
            label="random",
        ),
        claim("identity", "texts_equal_to_unsteered", str(PROMPTS), variant="patch-identity"),
        claim("again", "identical_generations", str(PROMPTS), variant="patch"),
    ]
    path.write_text(yaml.safe_dump(what, sort_keys=False))


@pytest.fixture(scope="module")
def compared(produced: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The tiny study with its comparison, measured by the command, and claims about it."""
    folders = produced.copy(tmp_path_factory.mktemp("compared") / "repos")
    path = folders.model / "study.yaml"
    path.write_text(yaml.safe_dump(planned(yaml.safe_load(path.read_text())), sort_keys=False))
    write_ingredients(folders.model, read_vector(folders.model / "vectors/tiny_L1_caa.safetensors"))
    answer = invoke("compare", str(folders.model), "--run", str(folders.model.parent / "run"))
    assert answer.exit_code == 0
    with_claims(folders)
    assert invoke("card", str(folders.model)).exit_code == 0
    return folders


@pytest.fixture
def private(compared: Folders, tmp_path: Path) -> Folders:
    return compared.copy(tmp_path / "repos")


def test_the_rows_satisfy_their_schema_and_come_back(compared: Folders) -> None:
    rows = [row.value for row in read_jsonl(compared.data / FILE, schema="comparison_row")]
    assert list(dict.fromkeys(row["variant"] for row in rows)) == list(METHODS)
    back = read_comparison(compared.data, "tiny")
    assert back.rows[0].cell == Cell("tiny", "zero", None, 0.0, "unsteered")
    manifest = json.loads((compared.data / "manifest.json").read_text())
    assert [entry["kind"] for entry in manifest["files"] if entry["path"] == FILE] == ["comparison"]


def test_the_table_has_every_method_beside_its_control(private: Folders) -> None:
    answer = invoke("compare", str(private.model), "--run", str(private.model.parent / "run"))
    assert answer.exit_code == 0
    for method in METHODS:
        assert method in answer.stdout
    document = json.loads(
        invoke("compare", str(private.model), "--run", str(private.model.parent / "run"), "--json").stdout
    )
    [comparison] = document["comparisons"]
    assert (comparison["model"], comparison["file"]) == ("tiny", FILE)
    lines = {line["method"]: line for line in comparison["methods"]}
    assert list(lines) == list(METHODS)
    assert lines["patch-identity"]["texts_changed"] == 0
    assert lines["patch-identity"]["control"] is None
    assert lines["addition"]["control"]["ppl_ratio"] != lines["addition"]["ppl_ratio"]


def test_a_comparison_that_is_there_is_measured_again_from_its_journal_alone(private: Folders) -> None:
    run, before = private.model.parent / "run", (private.data / FILE).read_bytes()
    journal = (run / "journal.jsonl").read_bytes()
    (private.data / FILE).unlink()
    assert invoke("compare", str(private.model), "--run", str(run)).exit_code == 0
    assert (private.data / FILE).read_bytes() == before
    assert (run / "journal.jsonl").read_bytes() == journal


def test_elsewhere_it_stands_with_what_it_was_measured_on(private: Folders, tmp_path: Path) -> None:
    run, out = private.model.parent / "run", tmp_path / "out"
    out.mkdir()
    before = sorted(path.name for path in private.data.iterdir())
    assert invoke("compare", str(private.model), "--run", str(run), "--out", str(out)).exit_code == 0
    assert (out / FILE).read_bytes() == (private.data / FILE).read_bytes()
    assert json.loads((out / "environment.json").read_text())["models"].keys() == {"tiny"}
    assert sorted(path.name for path in private.data.iterdir()) == before


def test_margins_are_shown_of_the_texts_that_were_judged_and_of_no_others(private: Folders) -> None:
    run = private.model.parent / "run"
    rows = [row.value for row in read_jsonl(private.data / FILE, schema="comparison_row")]
    scores = {"mature_anger": 1.5, "juvenile_rage": 1.0, "coherence": 2.0, "margin": 0.5}
    judged = [{key: row[key] for key in ("variant", "label", "layer", "coef")} | scores for row in rows[1:3]]
    write_jsonl(private.data / "judge_wit_tiny_comparison.jsonl", judged)
    rows[2]["generations"][0]["gen"] += " indeed"
    write_jsonl(private.data / FILE, rows)
    answer = invoke("compare", str(private.model), "--run", str(run), "--json")
    lines = {line["method"]: line for line in json.loads(answer.stdout)["comparisons"][0]["methods"]}

    assert rows[1]["variant"] == rows[2]["variant"] == "addition"
    assert lines["addition"]["margins"] == {"wit": 0.5}
    assert lines["addition"]["control"]["margins"] == {}
    assert lines["rotation"]["margins"] == {}
    assert "margin wit" in invoke("compare", str(private.model), "--run", str(run)).stdout


def refused(*arguments: str) -> tuple[str, str]:
    from click.testing import CliRunner

    from steer_eval.errors import SteerEvalError

    error = CliRunner().invoke(cli, ["compare", *arguments]).exception
    assert isinstance(error, SteerEvalError)
    return error.message, error.fix


def test_a_study_without_a_comparison_is_told_where_to_plan_one(folders: Folders) -> None:
    message, fix = refused(str(folders.model))
    assert "plans no comparison" in message
    assert "comparisons:" in fix


def test_a_model_that_the_study_has_not_is_refused_with_those_it_has(compared: Folders) -> None:
    message, fix = refused(str(compared.model), "--model", "large")
    assert "no model large" in message
    assert fix == "its models are tiny"


def test_a_model_that_is_not_compared_is_refused(folders: Folders) -> None:
    assert "plans no comparison of methods on tiny" in refused(str(folders.model), "--model", "tiny")[0]


def test_a_sweep_of_another_machine_is_not_mixed_with(private: Folders, tmp_path: Path) -> None:
    path = private.data / "environment.json"
    path.write_text(path.read_text().replace('"machine_class": "', '"machine_class": "another '))
    message, fix = refused(str(private.model), "--run", str(tmp_path / "run"))
    assert "machine_class another" in message
    assert "--out" in fix


def test_more_prompts_than_there_are_are_refused_and_not_quietly_fewer(private: Folders, tmp_path: Path) -> None:
    path = private.model / "study.yaml"
    what = yaml.safe_load(path.read_text())
    what["comparisons"][0]["prompts"] = 99
    path.write_text(yaml.safe_dump(what, sort_keys=False))

    message, fix = refused(str(private.model), "--run", str(tmp_path / "run"))
    assert message == "study.yaml: comparisons.0.prompts: 99 prompts are planned, and eval_prompts.jsonl has 5"
    assert fix


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("saes/tiny/layers.1/activity.safetensors", "sae train"),
        ("saes/tiny_L1_features.json", "sae features"),
        ("vectors/transferred/tiny-L2_to_tiny-L1-ridge.safetensors", "transfer apply"),
    ],
)
def test_a_file_that_a_method_lacks_is_told_with_the_command_that_makes_it(
    private: Folders, tmp_path: Path, file: str, command: str
) -> None:
    (private.model / file).unlink()
    message, fix = refused(str(private.model), "--run", str(tmp_path / "run"))
    assert file in message
    assert command in fix
    assert not (tmp_path / "run" / "journal.jsonl").exists()


@pytest.mark.parametrize(
    ("sae", "field"),
    [
        (random_sae(HIDDEN - 16, FEATURES, 8, layer=1), "d_in"),
        (random_sae(HIDDEN, FEATURES, 8, layer=2), "metadata.hook_name"),
        (replace(random_sae(HIDDEN, FEATURES, 8, layer=1), model="lab/other"), "metadata.model_name"),
        (replace(random_sae(HIDDEN, FEATURES, 8, layer=1), provenance={"sink_norm": "abc"}), "sink_norm"),
    ],
    ids=["width", "layer", "model", "sinks"],
)
def test_an_sae_that_does_not_fit_the_model_is_told_before_anything_is_measured(
    private: Folders, tmp_path: Path, sae: TopKSae, field: str
) -> None:
    write_saelens(private.model / "saes/tiny/layers.1", sae)
    message, fix = refused(str(private.model), "--run", str(tmp_path / "run"))
    assert "saes/tiny/layers.1/cfg.json" in message
    assert field in message
    assert fix
    assert not (tmp_path / "run" / "journal.jsonl").exists()


def test_claims_about_methods_are_reproduced(compared: Folders, tmp_path: Path) -> None:
    code, report = reproduced(compared, tmp_path / "run")
    verdicts = {verdict["id"]: verdict for verdict in report["verdicts"]}
    assert {verdict["verdict"] for verdict in verdicts.values()} == {"reproduced"}
    for name in (*(f"ratio-{name}" for name in CLAIMED), "control", "identity"):
        assert [check["evidence"] for check in verdicts[name]["checks"]] == ["published data", "re-run"]
        assert {check["file"] for check in verdicts[name]["checks"]} == {FILE}
    assert code == 0
    # Only what is claimed was measured again, and the unsteered model beside it.
    again = read_comparison(tmp_path / "run", "tiny").rows
    wanted = {(name, "steered") for name in (*CLAIMED, "patch-identity")} | {("stack", "random"), ("unsteered", "zero")}
    assert {(row.cell.variant, row.cell.label) for row in again} == wanted


def test_the_whole_study_again_gives_the_published_file(compared: Folders, tmp_path: Path) -> None:
    code, _ = reproduced(compared, tmp_path / "run", "--cells", "all")
    assert code == 0
    assert (tmp_path / "run" / FILE).read_bytes() == (compared.data / FILE).read_bytes()


def test_a_changed_number_of_a_method_is_found(private: Folders, tmp_path: Path) -> None:
    rows = [row.value for row in read_jsonl(private.data / FILE, schema="comparison_row")]
    [changed] = [row for row in rows if (row["variant"], row["label"]) == ("rotation", "steered")]
    changed["ppl_ratio"] *= 1.1
    write_jsonl(private.data / FILE, rows)
    code, report = reproduced(private, tmp_path / "run", "--level", "recompute")
    contradicted = [verdict["id"] for verdict in report["verdicts"] if verdict["verdict"] == "contradicted"]
    assert contradicted == ["ratio-rotation"]
    assert code == 1


def test_a_text_that_differs_is_generated_again_serially(private: Folders, tmp_path: Path) -> None:
    rows = [row.value for row in read_jsonl(private.data / FILE, schema="comparison_row")]
    [changed] = [row for row in rows if (row["variant"], row["label"]) == ("patch", "steered")]
    changed["generations"][0]["gen"] += " indeed"
    write_jsonl(private.data / FILE, rows)
    _, report = reproduced(private, tmp_path / "run")
    [verdict] = [verdict for verdict in report["verdicts"] if verdict["id"] == "again"]
    assert verdict["verdict"] == "contradicted"
    again = read_comparison(tmp_path / "run", "tiny").find(Cell("tiny", "steered", 1, 0.0, "patch"))
    assert again is not None
    assert [text.path for text in again.generations] == ["serial", None, None]


def test_without_the_sae_the_other_claims_are_still_checked(private: Folders, tmp_path: Path) -> None:
    shutil.rmtree(private.model / "saes")
    _, report = reproduced(private, tmp_path / "run")
    words = {verdict["id"]: verdict["verdict"] for verdict in report["verdicts"]}
    [features] = [verdict for verdict in report["verdicts"] if verdict["id"] == "ratio-features"]
    assert [check["verdict"] for check in features["checks"]] == ["reproduced", "not-checkable"]
    assert words["ratio-patch"] == words["identity"] == "reproduced"
    schema.check(report, "report", file="report")
    [finding] = [finding for finding in report["findings"] if finding["rule"] == "method-not-run"]
    assert (finding["severity"], finding["where"]) == ("error", "features")
    assert "sae train" in finding["fix"]
