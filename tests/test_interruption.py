"""Runs that are killed, interrupted, or not alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from commands import in_one_process
from tiny_study import SCENARIOS, Folders, reproduced

from steer_eval.formats.strict_json import write_jsonl
from steer_eval.results_files import sweep_file


@pytest.fixture(scope="module")
def slow_study(produced: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The same study with so much text to generate that a run can be interrupted; runs leave it as it is."""
    folders = produced.copy(tmp_path_factory.mktemp("slow") / "repos")
    path = folders.model / "study.yaml"
    what = yaml.safe_load(path.read_text())
    what["sweep"]["max_new_tokens"] = 30
    path.write_text(yaml.safe_dump(what, sort_keys=False))
    rows = [{"scenario": f"Look: {'so ' * n}{s}"} for n in range(3) for s in SCENARIOS]
    write_jsonl(folders.data / "eval_prompts.jsonl", rows)
    return folders


@pytest.fixture(scope="module")
def uninterrupted(slow_study: Folders, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The sweep of a run that nothing stopped."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    reproduced(slow_study, run, "--cells", "all")
    return (run / sweep_file("tiny")).read_bytes()


def invoke_main(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()"]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=120)


def start(folders: Folders, run: Path) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()"]
    arguments = ["reproduce", str(folders.model), "--cells", "all", "--run", str(run), "--json"]
    return subprocess.Popen(
        [*program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


def journal_lines(run: Path) -> list[str]:
    path = run / "journal.jsonl"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def interrupted(folders: Folders, run: Path, how: signal.Signals, after: int) -> tuple[int, str]:
    process = start(folders, run)
    deadline = time.monotonic() + 240
    while len(journal_lines(run)) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_an_interrupted_run_goes_on_where_it_was(
    slow_study: Folders, uninterrupted: bytes, tmp_path: Path, how: signal.Signals
) -> None:
    run = tmp_path / "interrupted"
    code, errors = interrupted(slow_study, run, how, after=30)
    before = journal_lines(run)
    assert not (run / "report.json").exists(), "the run had ended before it was interrupted"
    assert len(before) >= 30
    if how is signal.SIGINT:
        assert code == 130
        assert "goes on from there" in errors
    else:
        assert code == -signal.SIGKILL

    reproduced(slow_study, run, "--cells", "all")
    after = journal_lines(run)
    assert after[: len(before)] == before
    grid = [record for line in after if (record := json.loads(line)).get("path") != "serial"]
    assert len({record["key"] for record in grid}) == len(grid), "a finished row was computed again"
    assert (run / sweep_file("tiny")).read_bytes() == uninterrupted


def test_a_second_process_is_told_to_wait(folders: Folders, tmp_path: Path) -> None:
    from steer_eval.run import opened_run

    run = tmp_path / "run"
    with opened_run(run, "{}"):
        answer = invoke_main("reproduce", str(folders.model), "--level", "check", "--run", str(run))
    assert answer.returncode == 2
    assert "another process works in" in answer.stderr


def test_a_folder_with_something_else_in_it_is_left_alone(folders: Folders, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "README.md").write_text("mine")
    answer = invoke_main("reproduce", str(folders.model), "--level", "check", "--run", str(other))
    assert answer.returncode == 2
    assert "is not empty and no run directory" in answer.stderr
    assert [path.name for path in other.iterdir()] == ["README.md"]


def test_a_run_never_writes_into_the_studys_repos(folders: Folders) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folders.data.parent.rglob("*") if path.is_file()}

    places = (folders.data, folders.model, folders.data / "runs" / "one", folders.data.parent)
    before = files()
    check = ["reproduce", str(folders.model), "--level", "check", "--run"]
    for place, answer in zip(places, in_one_process(os.environ, *([*check, place] for place in places)), strict=True):
        assert answer.code == 2, place
        assert "overlap" in answer.stderr, place
    assert files() == before


def test_a_lower_level_does_not_overwrite_a_rerun(folders: Folders, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reproduced(folders, run)
    report = (run / "report.json").read_bytes()
    answer = invoke_main("reproduce", str(folders.model), "--level", "recompute", "--run", str(run))
    assert answer.returncode == 2
    assert "holds a run of level rerun" in answer.stderr
    assert (run / "report.json").read_bytes() == report


def test_a_second_run_says_that_nothing_was_measured(folders: Folders, tmp_path: Path) -> None:
    _, first = reproduced(folders, tmp_path / "run")
    _, second = reproduced(folders, tmp_path / "run")
    assert first["run"]["resumed"] == 0
    assert second["run"]["resumed"] == len(journal_lines(tmp_path / "run"))
    assert second["verdicts"] == first["verdicts"]


def test_a_recomputed_run_is_a_whole_dataset_repo(folders: Folders, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reproduced(folders, run, "--level", "recompute")
    for name in (sweep_file("tiny"), "environment.json", "contrast_pairs.jsonl", "README.md"):
        assert (run / name).read_bytes() == (folders.data / name).read_bytes(), name
