"""`steer-eval judge` on a study that the commands themselves produced."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from judge.stub_server import Answer, Body, good, is_probe, scores, serving
from tiny_study import Folders, invoke, judge

from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.manifest import check_manifest
from steer_eval.judge.cache import FILE
from steer_eval.judge.rubric import STUDY_AXES as AXES


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sweep(folders: Folders) -> list[dict[str, Any]]:
    return rows(folders.data / "sweep_tiny.jsonl")


@dataclass(frozen=True)
class Probed:
    """What `judge --judge probe` gave once on the tiny study."""

    out: Path
    code: int
    report: dict[str, Any]


@pytest.fixture(scope="module")
def probed(produced: Folders, tmp_path_factory: pytest.TempPathFactory) -> Probed:
    out = tmp_path_factory.mktemp("probed") / "out"
    return Probed(out, *judge(str(produced.model), "--judge", "probe", "--out", str(out)))


@pytest.fixture(scope="module")
def published_once(produced: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folders = produced.copy(tmp_path_factory.mktemp("published") / "repos")
    code, _ = judge(str(folders.model), "--judge", "probe", "--out", str(folders.data))
    assert code == 0
    return folders


@pytest.fixture
def published(published_once: Folders, tmp_path: Path) -> Folders:
    """A study with the probe's scores in its dataset repo, to tamper with."""
    return published_once.copy(tmp_path / "published")


def test_the_probe_scores_every_cell_with_text(produced: Folders, probed: Probed) -> None:
    out, code, report = probed.out, probed.code, probed.report

    with_text = [row for row in sweep(produced) if row["generations"]]
    steered = [(row["layer"], row["coef"]) for row in with_text if row["label"] == "steered"]
    assert code == 0
    assert report["judges"][0]["cells"] == {"scored": len(with_text), "unscored": 0}
    assert report["cost"]["calls"] == 0
    scored = rows(out / "judge_probe_tiny.jsonl")
    assert [(row["layer"], row["coef"]) for row in scored] == steered
    for row in scored:
        schema.check(row, "judge_row", file="judge_probe_tiny.jsonl")
        assert (row["judge"], row["protocol"], row["rubric"]) == ("probe", "sample", "mature-anger")
    assert report["judges"][0]["identity"]["cross_validation"]["folds"] == 5
    labels = {row["label"] for row in rows(out / "judgements_probe_tiny.jsonl")}
    assert labels == {"steered", "zero", "random", "anchor"}


def test_the_probe_says_the_same_each_time(produced: Folders, probed: Probed, tmp_path: Path) -> None:
    shutil.copytree(probed.out, tmp_path / "a")
    _, again = judge(str(produced.model), "--judge", "probe", "--out", str(tmp_path / "a"))
    _, anew = judge(str(produced.model), "--judge", "probe", "--out", str(tmp_path / "b"))

    assert probed.report["judges"] == again["judges"] == anew["judges"]
    for file in ("judge_probe_tiny.jsonl", "judgements_probe_tiny.jsonl"):
        first = (probed.out / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() == first


def test_scores_in_the_dataset_repo_are_published_scores(published: Folders) -> None:
    """What is written there passes `validate` and is read back as a published judge's."""
    checked = json.loads(invoke("validate", str(published.model), "--json").stdout)
    about = [f for f in checked["findings"] if "judge" in f["rule"] or "judg" in f["file"] or "manifest" in f["rule"]]
    assert about == []
    _, report = judge(str(published.model), "--judge", "recorded", "--out", str(published.data))
    assert [each["name"] for each in report["recorded"]] == ["probe"]


def test_an_endpoint_is_asked_and_then_replayed(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEER_EVAL_JUDGE_KEY", "secret-key")
    first, again = tmp_path / "first", tmp_path / "again"
    with serving(good) as stub:
        common = (str(folders.model), "--judge", "api")
        code, report = judge(*common, "--base-url", stub.url, "--model", "Stub_1", "--out", str(first))
    assert set(stub.keys) == {"Bearer secret-key"}
    monkeypatch.delenv("STEER_EVAL_JUDGE_KEY")
    replayed_code, replayed = judge(*common, "--replay", str(first), "--out", str(again))

    assert (code, replayed_code) == (0, 0)
    assert report["cost"]["calls"] == len(stub.requests)
    assert replayed["cost"]["calls"] == 0
    assert replayed["judges"] == report["judges"]
    name = "judge_stub-1_tiny.jsonl"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    assert not any("secret-key" in path.read_text() for path in first.rglob("*.json*"))


def test_an_unscored_cell_is_a_finding_and_is_left_out_of_the_scores(folders: Folders, tmp_path: Path) -> None:
    text = next(row["generations"][0]["gen"] for row in sweep(folders) if (row["label"], row["coef"]) == ("steered", 1))
    start = " ".join(text.split())[:20]

    def sometimes(body: Body, count: int) -> Answer:
        said = " ".join(body["messages"][1]["content"].split())
        return good(body) if is_probe(body) or start not in said else Answer("")

    with serving(sometimes) as stub:
        arguments = ("--judge", "api", "--base-url", stub.url, "--model", "stub", "--out", str(tmp_path))
        code, report = judge(str(folders.model), *arguments)

    [judged] = report["judges"]
    missing = [score for score in judged["scores"] if not score["scores"]]
    assert code == 1
    assert 0 < len(missing) == judged["cells"]["unscored"]
    assert all(score["unscored"] == {"empty": 3} for score in missing)
    published = {(row["layer"], row["coef"]) for row in rows(tmp_path / "judge_stub_tiny.jsonl")}
    assert not published & {(s["layer"], s["coef"]) for s in missing if s["label"] == "steered"}
    unscored = [row for row in rows(tmp_path / "judgements_stub_tiny.jsonl") if row["status"] == "unscored"]
    assert {(row["raw"], row["reason"]) for row in unscored} == {("", "empty")}


def test_published_scores_are_never_written_over(folders: Folders, probed: Probed, tmp_path: Path) -> None:
    shutil.copytree(probed.out, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "judge_probe_tiny.jsonl"
    published = [{key: row[key] for key in ("layer", "coef", *AXES)} for row in rows(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in published))

    with pytest.raises(SteerEvalError, match="another judge"):
        invoke("judge", str(folders.model), "--judge", "probe", "--out", str(tmp_path))
    assert rows(file) == published
    judge(str(folders.model), "--judge", "probe", "--name", "probe-2", "--out", str(tmp_path))
    assert (tmp_path / "judge_probe-2_tiny.jsonl").exists()


def test_judges_of_one_name_are_refused(folders: Folders, tmp_path: Path) -> None:
    with serving(good) as stub:
        arguments = ("--base-url", stub.url, "--model", "a/llama", "--model", "b/llama", "--out", str(tmp_path))
        with pytest.raises(SteerEvalError, match="two judges are called llama"):
            invoke("judge", str(folders.model), "--judge", "api", *arguments)


@pytest.mark.parametrize(
    ("limit", "message"),
    [(("--max-calls", "3"), "max-calls"), (("--max-cost", "0.001", "--price-in", "9", "--price-out", "9"), "may cost")],
)
def test_a_run_that_does_not_fit_the_limits_is_refused_before_a_call(
    folders: Folders, tmp_path: Path, limit: tuple[str, ...], message: str
) -> None:
    with serving(good) as stub:
        arguments = ("--judge", "api", "--base-url", stub.url, "--model", "m", "--out", str(tmp_path), *limit)
        with pytest.raises(SteerEvalError, match=message):
            invoke("judge", str(folders.model), *arguments)

    assert stub.requests == []


def test_several_judges_of_one_protocol_are_a_panel(folders: Folders, tmp_path: Path) -> None:
    def two(body: Body, _count: int) -> Answer:
        return good(body) if is_probe(body) else Answer(scores(body, 2.0 if body["model"] == "low" else 4.0))

    with serving(two) as stub:
        arguments = ("--base-url", stub.url, "--model", "low", "--model", "high", "--out", str(tmp_path))
        code, report = judge(str(folders.model), "--judge", "api", *arguments)

    assert code == 0
    assert [each["name"] for each in report["judges"]] == ["low", "high", "panel"]
    panel = rows(tmp_path / "judge_panel_tiny.jsonl")
    assert {row["mature_anger"] for row in panel} == {3.0}
    assert {tuple(row["judges"]) for row in panel} == {("low", "high")}
    pairs = {(each["first"], each["second"]) for each in report["agreement"]}
    assert ("low", "high") in pairs


def test_judges_of_different_protocols_are_no_panel(folders: Folders, tmp_path: Path) -> None:
    with serving(good) as stub:
        arguments = (
            "--judge",
            "api",
            "--judge",
            "probe",
            "--base-url",
            stub.url,
            "--model",
            "m",
            "--out",
            str(tmp_path),
        )
        _, report = judge(str(folders.model), *arguments)

    assert [(each["name"], each["protocol"]) for each in report["judges"]] == [("m", "paper-cell"), ("probe", "sample")]
    assert not (tmp_path / "judge_panel_tiny.jsonl").exists()


def test_drift_of_the_judge_and_of_the_texts_are_told_apart(published: Folders, tmp_path: Path) -> None:
    (published.data / "judge_probe_tiny.jsonl").rename(published.data / "judge_old_tiny.jsonl")
    run = tmp_path / "run"
    assert invoke("reproduce", str(published.model), "--run", str(run), "--cells", "all").exit_code in (0, 1)

    code, report = judge(str(run), "--judge", "probe", "--against", str(published.model))

    assert code == 0
    assert report["folder"] == str(run)
    [judges] = report["judge_drift"]
    assert (judges["published"], judges["model"]) == ("old", "tiny")
    assert {each["exact"] for each in judges["axes"]} == {1.0}
    [texts] = report["generation_drift"]
    assert {each["exact"] for each in texts["axes"]} == {1.0}
    assert texts["cells"]
    assert {each["mean"] for each in texts["cells"]} == {0.0}
    assert {(each["same_texts"], each["verdict"]) for each in texts["cells"]} == {(True, "reproduced")}
    assert (run / "judge_probe_tiny.jsonl").exists()


def test_reproduce_judges_published_texts_and_then_its_own(folders: Folders, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with serving(good) as stub:
        endpoint = ("--judge", "api", "--base-url", stub.url, "--judge-model", "stub")
        answer = invoke("reproduce", str(folders.model), "--run", str(run), *endpoint)

    report = json.loads((run / "judging.json").read_text())
    schema.check(report, "judging", file="judging.json")
    assert answer.exit_code in (0, 1)
    assert "generation drift: stub on published and new texts" in answer.stdout
    assert {each["exact"] for each in report["generation_drift"][0]["axes"]} == {1.0}
    # Texts that came out the same are one question.
    assert len(stub.requests) == len({json.dumps(body, sort_keys=True) for body in stub.requests})
    reproduction = json.loads((run / "report.json").read_text())
    schema.check(reproduction, "report", file="report.json")
    assert reproduction["level"]["reached"] == "rerun"
    assert reproduction["judging"]["generation_drift"] == report["generation_drift"]
    assert {each["name"]: each["cells"]["unscored"] for each in reproduction["judging"]["judges"]} == {"stub": 0}
    # Nobody had published scores that this judge could drift from.
    assert "judge drift: unknown" in answer.stdout
    assert "judges: api, after the re-run" in answer.stderr
    assert "no calls" not in answer.stderr
    assert check_manifest(run) == []


def test_reproduce_tells_both_drifts_in_its_report(published: Folders, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer = invoke("reproduce", str(published.model), "--run", str(run), "--judge", "probe", "--json")

    report = json.loads(answer.stdout)
    assert report == json.loads((run / "report.json").read_text())
    [judges] = report["judging"]["judge_drift"]
    [texts] = report["judging"]["generation_drift"]
    # The published scores are compared with the same judge of today.
    assert (judges["judge"], judges["published"], judges["model"]) == ("probe", "probe", "tiny")
    assert {each["exact"] for each in judges["axes"]} == {1.0}
    assert {each["exact"] for each in texts["axes"]} == {1.0}


def test_a_judge_that_is_not_there_takes_nothing_from_the_report(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEER_EVAL_JUDGE_KEY", raising=False)
    endpoint = ("--judge", "api", "--base-url", "https://judge.invalid/v1", "--judge-model", "m")
    arguments = ["reproduce", str(folders.model), "--run", str(tmp_path / "run"), *endpoint, "--json"]
    answer = CliRunner().invoke(cli, arguments)

    assert isinstance(answer.exception, SteerEvalError)
    report = json.loads(answer.stdout)
    assert report["level"]["reached"] == "rerun"
    assert "judging" not in report


def test_reproduce_with_unscored_cells_is_no_success(folders: Folders, tmp_path: Path) -> None:
    with serving(lambda body, _count: good(body) if is_probe(body) else Answer("")) as stub:
        endpoint = ("--judge", "api", "--base-url", stub.url, "--judge-model", "stub")
        answer = invoke("reproduce", str(folders.model), "--run", str(tmp_path / "run"), *endpoint, "--json")

    [judged] = json.loads(answer.stdout)["judging"]["judges"]
    assert answer.exit_code == 1
    assert judged["cells"]["scored"] == 0 < judged["cells"]["unscored"]


def test_reproduce_asks_nobody_unless_told(folders: Folders, tmp_path: Path) -> None:
    invoke("reproduce", str(folders.model), "--run", str(tmp_path / "run"))

    assert not (tmp_path / "run" / "judging.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--judge", "api", "--judge-model", "m"),
        ("--judge", "api", "--base-url", "http://127.0.0.1:1/v1"),
        ("--judge", "local"),
        ("--judge", "probe", "--level", "recompute"),
    ],
)
def test_reproduce_refuses_a_judge_that_can_not_be_asked(
    folders: Folders, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    answer = invoke("reproduce", str(folders.model), "--run", str(tmp_path / "run"), *arguments)

    assert answer.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_local_judge_that_does_not_answer_leaves_every_cell_unscored(folders: Folders, tmp_path: Path) -> None:
    base = folders.model.parent / "base"
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8192}))
    arguments = ("--model", str(base), "--protocol", "paper-cell", "--repeats", "1", "--out", str(tmp_path))
    code, report = judge(str(folders.model), "--judge", "local", *arguments)

    [judged] = report["judges"]
    assert code == 1
    assert judged["cells"]["scored"] == 0
    assert {reason for score in judged["scores"] for reason in score["unscored"]} == {"low-mass"}
    assert (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--judge", "api"), "address"),
        (("--judge", "api", "--base-url", "http://127.0.0.1:1/v1"), "needs a model"),
        (("--judge", "local"), "needs a model"),
        (("--judge", "probe", "--protocol", "paper-cell"), "one by one"),
        (("--judge", "probe", "--max-cost", "1"), "prices"),
        (("--judge", "probe", "--price-in", "1"), "price"),
        (("--judge", "probe", "--rubric", "nothing"), "no rubric"),
        (("--judge", "probe", "--name", "No_Name"), "can't be used"),
        (("--judge", "api", "--judge", "local", "--model", "m"), "at once"),
        (("--judge", "api", "--replay", "."), "judging_calls"),
    ],
)
def test_what_can_not_be_done_is_said(
    folders: Folders, tmp_path: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SteerEvalError, match=message):
        invoke("judge", str(folders.model), *arguments)


def test_the_table_for_people_has_every_cell_and_the_cost(folders: Folders, tmp_path: Path) -> None:
    answer = invoke("judge", str(folders.model), "--judge", "probe", "--out", str(tmp_path))

    for row in sweep(folders):
        if row["generations"] and row["layer"] is not None:
            assert f"tiny {row['label']} L={row['layer']} c={row['coef']:+g}" in answer.stdout
    assert "cross-validated accuracy" in answer.stdout
    assert "0 new calls" in answer.stdout
