"""lm-eval's own command line with our model type, in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from lm_eval.tasks import TaskManager
from tiny_study import Folders

from steer_eval.capability.__main__ import arguments, main
from steer_eval.resources import folder


def test_lm_eval_runs_a_steered_cell_on_our_tasks(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_defaults(*given: Any, **named: Any) -> TaskManager:
        return TaskManager(*given, **{**named, "include_defaults": False})

    def accuracy(coef: float) -> dict[str, Any]:
        out = tmp_path / f"out{coef:g}"
        model = f"target={folders.model},layer=1,coef={coef:g}"
        given = ["run", "--model", "steer-eval", "--model_args", model, "--tasks", "steer_eval_choices"]
        monkeypatch.setattr(sys, "argv", ["lm-eval", *given, "--limit", "4", "--device", "cpu"])
        sys.argv += ["--output_path", str(out), "--log_samples"]
        main()
        [results] = out.rglob("results_*.json")
        [samples] = out.rglob("samples_*.jsonl")
        found: dict[str, Any] = json.loads(results.read_text())
        found["replies"] = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
        return found

    # The real manager, told to leave out lm-eval's own tasks: they take twenty seconds to read, and no option of its
    # command line leaves them out.
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", without_defaults)
    plain, pushed = accuracy(0), accuracy(4)

    assert plain["n-samples"]["steer_eval_choices"] == {"original": 60, "effective": 4}
    assert "acc,none" in plain["results"]["steer_eval_choices"]
    # What is added reaches the model.
    assert plain["replies"] != pushed["replies"]


def test_our_tasks_are_looked_through_unless_others_are_named() -> None:
    ours = ["--include_path", str(folder("tasks"))]
    assert arguments(["ls", "tasks"]) == ["ls", "tasks", *ours]
    assert arguments(["run", "--include_path", "mine"]) == ["run", "--include_path", "mine"]
    assert arguments([]) == []
    assert arguments(["--help"]) == ["--help"]
