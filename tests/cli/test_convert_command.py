"""`steer-eval convert` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pt_files
import pytest
import torch
from click.testing import CliRunner, Result
from convertible import BECOMES, COPIED, build, listing

from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return build(tmp_path / "persona")


def run(*arguments: object, **environment: str) -> Result:
    answer = CliRunner().invoke(cli, ["convert", *map(str, arguments)], env=environment)
    if isinstance(answer.exception, SteerEvalError):
        raise answer.exception
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer


def test_the_new_repo_stands_beside_the_old_one(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo)
    answer = run(".")

    assert answer.exit_code == 0
    assert "persona-safe" in {path.name for path in repo.parent.iterdir()}
    lines = answer.stdout.splitlines()
    assert lines[-1] == f"7 files converted, 4 copied: {repo}-safe"
    for path, targets in BECOMES.items():
        assert any(line.startswith("converted ") and path in line and ", ".join(targets) in line for line in lines)
    for path in COPIED:
        assert any(line.startswith("copied ") and line.endswith(path) for line in lines)
    assert "convert: 100%" in answer.stderr


def test_the_check_says_that_all_is_bit_exact(repo: Path, tmp_path: Path) -> None:
    for _ in range(2):
        # The first time it converts and checks, the second time it checks what is there.
        answer = run(repo, "--check", "--out", tmp_path / "out")
        assert answer.exit_code == 0
        assert answer.stdout.splitlines()[-1] == f"11 files, all bit-exact: {tmp_path / 'out'}"
        assert "4 tensors, bit-exact  saes/tiny_L14_sae.pt" in answer.stdout
        assert "same bytes            README.md" in answer.stdout
    assert "convert: " not in answer.stderr


def test_the_check_names_what_differs(repo: Path, tmp_path: Path) -> None:
    run(repo, "--out", tmp_path / "out")
    before = listing(tmp_path / "out")
    with (tmp_path / "out/README.md").open("a") as card:
        card.write("edited\n")
    answer = run(repo, "--out", tmp_path / "out", "--check")

    assert answer.exit_code == 1
    # The manifest is of the card as it was.
    last = answer.stdout.splitlines()[-1]
    assert last == f"11 files, 10 of them bit-exact; the folder or its manifest is not in order: {tmp_path / 'out'}"
    assert "differs               README.md" in answer.stdout
    assert "out/README.md" in answer.stdout
    assert {path for path, content in listing(tmp_path / "out").items() if content != before[path]} == {"README.md"}


def test_the_check_is_of_the_manifest_too(repo: Path) -> None:
    run(repo)
    (repo.with_name("persona-safe") / "manifest.json").unlink()
    answer = run(repo, "--check")

    assert answer.exit_code == 1
    last = answer.stdout.splitlines()[-1]
    assert last == f"11 files, all bit-exact; the folder or its manifest is not in order: {repo}-safe"


def test_lines_of_the_card_that_name_old_paths_are_noted(repo: Path) -> None:
    answer = run(repo, "--json")
    findings = json.loads(answer.stdout)["findings"]

    assert answer.exit_code == 0
    assert [(each["rule"], each["severity"], each["file"], each["where"]) for each in findings] == [
        ("convert-old-path", "note", "persona/README.md", f"line {line}") for line in (5, 6, 9)
    ]
    assert "now vectors/tiny_L14_caa.safetensors and 1 more" in findings[0]["message"]
    assert (repo.with_name("persona-safe") / "README.md").read_bytes() == (repo / "README.md").read_bytes()


def test_json_is_alone_on_standard_output(repo: Path, tmp_path: Path) -> None:
    answer = run(repo, "--check", "--out", tmp_path / "out", STEER_EVAL_CONVERT_JSON="1")
    value = json.loads(answer.stdout)

    assert (value["schema"], value["source"], value["checked"]) == ("steer-eval/convert/1", str(repo), True)
    assert value["out"] == str(tmp_path / "out")
    assert {file["source"]: file["targets"] for file in value["files"]} == BECOMES | {path: [path] for path in COPIED}
    assert {file["source"]: file["tensors"] for file in value["files"] if file["tensors"]} == {
        **dict.fromkeys([path for path in BECOMES if "caa" in path and "transferred" not in path], 1),
        "vectors/small_transferred_caa.pt": 5,
        "vectors/transfer_map_large_to_small.pt": 3,
        "saes/tiny_L14_sae.pt": 4,
        "saes/half_L14_sae.pt": 4,
    }
    assert all(file["bit_exact"] for file in value["files"])
    for finding in value["findings"]:
        schema.check(finding, "finding", file="stdout")


def test_without_a_check_json_claims_nothing(repo: Path) -> None:
    value = json.loads(run(repo, "--json").stdout)

    assert value["checked"] is False
    assert all("bit_exact" not in file for file in value["files"])


def test_a_file_that_cannot_be_read_gives_exit_code_1(repo: Path) -> None:
    (repo / "vectors/tiny_L6_caa.pt").write_bytes(b"no archive")
    answer = run(repo, "--check")

    assert answer.exit_code == 1
    assert "persona/vectors/tiny_L6_caa.pt\n  error" in answer.stdout
    assert answer.stdout.splitlines()[-1] == f"10 files, all bit-exact; 1 left out: {repo}-safe"
    assert "vectors/tiny_L6_caa.safetensors" not in listing(repo.with_name("persona-safe"))


def test_an_earlier_one_is_replaced_and_checked_only_with_force(repo: Path) -> None:
    run(repo)
    pt_files.saved(repo / "vectors/tiny_L6_caa.pt", {**pt_files.caa(layer=6), "vector": torch.ones(8)})
    with pytest.raises(SteerEvalError, match="is there already"):
        run(repo)
    assert run(repo, "--check").exit_code == 1

    answer = run(repo, "--check", "--force")
    assert answer.exit_code == 0
    assert "convert: 100%" in answer.stderr
    assert "check: 100%" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere"], "there is no folder nowhere"), (["."], "holds no files"), ([], "Missing argument")],
)
def test_what_is_no_repo_exits_with_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "from steer_eval.cli.main import main; main()", "convert", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert answer.returncode == 2
    assert message in answer.stderr
    assert answer.stdout == ""


def test_names_of_files_are_no_commands_to_the_terminal(repo: Path) -> None:
    (repo / os.fsdecode(b"red\xff.txt")).write_text("x")
    (repo / "white\x1b[31m.txt").write_text("x")
    (repo / "rtl\u202e.txt").write_text("x")
    answer = run(repo, "--check")

    assert answer.exit_code == 1
    assert "\x1b" not in answer.output
    assert "\u202e" not in answer.output
    assert json.loads(run(repo, "--check", "--json").stdout)["findings"]
