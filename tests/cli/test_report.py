"""`steer-eval report`: where the page goes, and what is printed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from studies import DATA_REPO, MODEL_REPO, OnDisk, build, claim
from tiny_study import invoke

from steer_eval.errors import SteerEvalError
from steer_eval.formats.manifest import check_manifest
from steer_eval.reproduce import reproduce


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnDisk:
    monkeypatch.chdir(tmp_path)
    return build(tmp_path, claims=[claim("perplexity_ratio", "2.40", layer=3, coef=2.0)])


@pytest.fixture
def run(place: OnDisk, tmp_path: Path) -> Path:
    reproduce(place.repositories(), level="recompute", cells="claimed", run=tmp_path / "run")
    return tmp_path / "run"


def test_a_repo_gives_a_page_in_the_working_folder(place: OnDisk, tmp_path: Path) -> None:
    answer = invoke("report", MODEL_REPO)

    assert (answer.exit_code, answer.output) == (0, "wrote report.html\n")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (place.model / "report.html").exists()


def test_a_run_keeps_its_page(run: Path) -> None:
    answer = invoke("report", "run")

    assert (answer.exit_code, answer.output) == (0, f"wrote {Path('run') / 'report.html'}\n")
    assert check_manifest(run) == []


def test_the_page_goes_where_it_is_told(run: Path, tmp_path: Path) -> None:
    assert invoke("report", "run", "--out", "pages/page.html").exit_code == 0
    assert invoke("report", "run").exit_code == 0

    assert (tmp_path / "pages" / "page.html").read_bytes() == (run / "report.html").read_bytes()


def test_data_may_be_named(place: OnDisk, tmp_path: Path) -> None:
    place.data.rename(tmp_path / "elsewhere")
    with pytest.raises(SteerEvalError, match="not beside") as caught:
        invoke("report", MODEL_REPO)
    assert "--data" in caught.value.fix
    assert invoke("report", MODEL_REPO, "--data", "elsewhere").exit_code == 0
    assert DATA_REPO not in (tmp_path / "report.html").read_text(encoding="utf-8").split("<nav")[0]


def test_json_is_the_data_alone(place: OnDisk, tmp_path: Path) -> None:
    answer = invoke("report", MODEL_REPO, "--json")
    value = json.loads(answer.stdout)

    assert value["verdicts"][0]["verdict"] == "reproduced"
    assert not (tmp_path / "report.html").exists()
    with_page = invoke("report", MODEL_REPO, "--json", "--out", "page.html")
    assert json.loads(with_page.stdout) == value
    assert (tmp_path / "page.html").exists()


def test_what_can_not_be_written_is_said(place: OnDisk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SteerEvalError, match="can't be written") as caught:
        invoke("report", MODEL_REPO, "--out", os.path.join("file", "page.html"))  # noqa: PTH118
    assert "--out" in caught.value.fix


@pytest.mark.parametrize("names", [(), ("notes.txt",), ("notes.txt", "package.json", "photo.png")])
def test_a_folder_with_nothing_of_a_study_gives_no_page(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}", encoding="utf-8")
    with pytest.raises(SteerEvalError, match="nothing to report on") as caught:
        invoke("report", str(folder), "--out", str(tmp_path / "page.html"))
    assert "steer-eval reproduce" in caught.value.fix
    assert not (tmp_path / "page.html").exists()


def test_one_known_file_is_enough_for_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("# Something\n", encoding="utf-8")
    assert invoke("report", str(folder), "--out", str(tmp_path / "page.html")).exit_code == 0


def test_options_are_read_from_the_environment(place: OnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_EVAL_REPORT_OUT", "named.html")
    from click.testing import CliRunner

    from steer_eval.cli.main import cli

    answer = CliRunner().invoke(cli, ["report", MODEL_REPO], auto_envvar_prefix="STEER_EVAL", catch_exceptions=False)
    assert answer.output == "wrote named.html\n"
    assert (tmp_path / "named.html").exists()
