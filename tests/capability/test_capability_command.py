"""`steer-eval capability` on a study that the commands themselves produced, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from lm_eval.tasks import TaskManager
from tiny_study import Folders, invoke

from steer_eval.capability.answers import opened_answers
from steer_eval.capability.evaluate import Settings, answer_all
from steer_eval.capability.lm_eval_model import SteeredLM
from steer_eval.capability.report import REPORT, SAMPLES
from steer_eval.capability.source import BASE, open_source, steered
from steer_eval.capability.tasks import load_tasks
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.run import JOURNAL

TASKS = "steer_eval_choices,steer_eval_token_perplexity"


def capability(target: Path, run: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    answer = invoke("capability", str(target), "--run", str(run), "--json", *arguments)
    report = json.loads(answer.stdout)
    schema.check(report, "capability", file="standard output")
    return answer.exit_code, report


def _without_defaults(**given: Any) -> TaskManager:
    return TaskManager(**{**given, "include_defaults": False})


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(report: dict[str, Any], metric: str) -> dict[str, Any]:
    [found] = [each for each in report["results"] if each["metric"] == metric]
    return found


def test_a_cell_beside_the_unsteered_model(folders: Folders, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # Twelve questions, and the whole corpus, which has fewer sentences.
    arguments = ("--tasks", TASKS, "--layer", "1", "--coef", "0", "--coef", "4", "--random", "--limit", "12")
    answer = invoke("capability", str(folders.model), "--run", str(run), "--json", *arguments)
    report = json.loads(answer.stdout)

    assert (answer.exit_code, report["recalled"]) == (0, 0)
    assert [line for line in answer.stderr.splitlines() if "loading" in line] == ["loading lab/tiny-base"]
    labels = [(each["label"], each["layer"], each["coef"]) for each in report["conditions"]]
    assert labels == [("base", None, 0.0), ("steered", 1, 0.0), ("steered", 1, 4.0), ("random", 1, 4.0)]
    assert json.loads((run / REPORT).read_text()) == report

    # The token perplexity is the one of the sweep, for the unsteered model, the cell and the control.
    sweep = {(row["label"], row["layer"], row["coef"]): row for row in rows(folders.data / "sweep_tiny.jsonl")}
    perplexity = result(report, "token_perplexity")
    zero, cell, random = perplexity["steered"]
    assert perplexity["base"]["value"] == pytest.approx(sweep["steered", 1, 4.0]["base_ppl"], rel=1e-6)
    assert cell["value"] == pytest.approx(sweep["steered", 1, 4.0]["ppl"], rel=1e-6)
    assert cell["ratio"]["value"] == pytest.approx(sweep["steered", 1, 4.0]["ppl_ratio"], rel=1e-6)
    assert random["value"] == pytest.approx(sweep["random", 1, 4.0]["ppl"], rel=1e-6)

    # Coefficient zero changes no document.
    for each in report["results"]:
        assert each["steered"][0]["difference"] == {"value": 0.0, "stderr": 0.0}
        assert each["documents"] == min(12, each["documents_of"])
    assert zero["ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}

    # A reader can compute the numbers again from the samples.
    samples = rows(run / SAMPLES)
    right = {
        label: [row["metrics"]["acc"] for row in samples if row["label"] == label and "acc" in row["metrics"]]
        for label in ("base", "random")
    }
    choices = result(report, "acc")
    assert choices["base"]["value"] == pytest.approx(sum(right["base"]) / 12)
    assert choices["steered"][2]["value"] == pytest.approx(sum(right["random"]) / 12)

    # The same again asks the model nothing: every answer is recalled, and none is added to those that are kept.
    kept = (run / JOURNAL).read_bytes()
    _, again = capability(folders.model, run, *arguments)
    assert again["recalled"] >= len(kept.splitlines()) > 0
    assert (run / JOURNAL).read_bytes() == kept
    assert again["results"] == report["results"]


class Noting(SteeredLM):
    """The steered model, which notes what it is asked to go on with."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.asked: list[str] = []

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
        self.asked.extend(request.args[0] for request in requests)
        return super().generate_until(requests, disable_tqdm=disable_tqdm)


def test_instructions_are_turns_of_a_chat(folders: Folders, tmp_path: Path) -> None:
    source = open_source(str(folders.model))
    loaded = source.load()
    noting = Noting(lm=loaded.lm)
    tasks = load_tasks(["steer_eval_instructions"], metadata={"tokenizer": str(loaded.weights.folder)})
    with opened_answers(tmp_path / "run") as journal:
        conditions = [BASE, steered(source, 1, 1.0)]
        answer_all(noting, tasks, conditions, Settings(limit=2), journal, loaded.conditions)
    asked = noting.asked

    assert len(asked) == 4
    assert all(text.startswith("<|im_start|>user\n") and text.endswith("<|im_start|>assistant\n") for text in asked)


def test_replies_to_instructions_are_kept(folders: Folders, tmp_path: Path) -> None:
    tasks = ("--tasks", "steer_eval_instructions", "--limit", "2", "--layer", "1")
    code, report = capability(folders.model, tmp_path / "run", *tasks)

    assert code == 0
    assert {each["metric"] for each in report["results"]} == {"followed", "constraints_kept"}
    assert [len(row["replies"]) for row in rows(tmp_path / "run" / SAMPLES)] == [1] * 4


def test_an_interrupted_evaluation_goes_on(folders: Folders, tmp_path: Path) -> None:
    arguments = ("--tasks", "steer_eval_choices", "--layer", "2", "--coef", "1", "--limit", "4")
    _, whole = capability(folders.model, tmp_path / "whole", *arguments)
    # What a kill leaves: nine answers, the tenth half written, and no report.
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "whole", run)
    (run / REPORT).unlink()
    (run / SAMPLES).unlink()
    answers = (run / JOURNAL).read_bytes().splitlines(keepends=True)
    (run / JOURNAL).write_bytes(b"".join(answers[:9]) + answers[9][:20])
    _, resumed = capability(folders.model, run, *arguments)

    assert len(answers) > 10
    assert resumed["recalled"] == 9
    assert sorted((run / JOURNAL).read_bytes().splitlines()) == sorted(line.rstrip() for line in answers)
    assert resumed["results"] == whole["results"]
    assert (whole["results"][0]["documents"], whole["results"][0]["documents_of"]) == (4, 60)


def test_cells_that_claims_name_are_the_default(folders: Folders, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer = invoke(
        "capability", str(folders.model), "--run", str(run), "--tasks", "steer_eval_choices", "--limit", "2"
    )
    report = json.loads((run / REPORT).read_text())

    assert answer.exit_code == 0
    assert [(each["layer"], each["coef"]) for each in report["conditions"][1:]] == [(1, 1.0), (2, 1.0)]
    assert "steered L=2 c=+1" in answer.stdout
    assert "the cells that claims name: L=1 c=+1, L=2 c=+1" in answer.stderr


def test_a_lone_vector_is_added_to_the_model_that_is_named(folders: Folders, tmp_path: Path) -> None:
    vector = folders.model / "vectors" / "tiny_L1_caa.safetensors"
    base = ("--base", str(folders.model.parent / "base"))
    tasks = ("--tasks", "steer_eval_choices", "--limit", "5")
    _, alone = capability(vector, tmp_path / "a", *base, *tasks, "--coef", "4")
    _, study = capability(folders.model, tmp_path / "b", *tasks, "--layer", "1", "--coef", "4")
    _, moved = capability(vector, tmp_path / "c", *base, *tasks, "--layer", "3", "--coef", "4")

    assert alone["results"] == study["results"]
    assert alone["study"] is None
    assert moved["conditions"][1]["layer"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "1", "--tasks", "steer_eval_choice"], "did you mean steer_eval_choices"),
        (["--layer", "1", "--tasks", "far_away"], "its data is not on this disk, and there is no network"),
        (["--layer", "9"], "there is no vector of tiny for layer 9; there are layers 1, 2"),
        (["--coef", "1"], "there are vectors for several layers: 1, 2"),
        (["--cells", "best"], "the study has no best cells of tiny"),
        (["--layer", "1", "--coef", "nan"], "no finite number"),
        (["--base", "x"], "is no vector file"),
        (["--layer", "1", "--metadata", "[1]"], "no JSON object"),
    ],
)
def test_what_cannot_be_run_is_refused(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    # The real manager, told to leave out lm-eval's own tasks: they take twenty seconds to read, and no option of ours
    # leaves them out. One that needs a download stands in for them.
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", _without_defaults)
    own = tmp_path / "own"
    own.mkdir()
    (own / "far.yaml").write_text(
        "task: far_away\ndataset_path: nobody/nothing\ntest_split: test\noutput_type: multiple_choice\n"
    )
    arguments = [*arguments, "--include-path", str(own)]
    with pytest.raises(SteerEvalError) as caught:
        invoke("capability", str(folders.model), "--run", str(tmp_path / "run"), *arguments)
    assert message in caught.value.message
    assert caught.value.fix
