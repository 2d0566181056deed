"""The command line as a user meets it, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from studies import build

from steer_eval import __version__
from steer_eval.cli.main import COMMANDS

HEAVY = ("torch", "transformers", "datasets", "huggingface_hub", "scipy", "jsonschema", "numpy")


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()", *arguments]
    return subprocess.run(
        program, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


def test_version_is_the_packages() -> None:
    answer = run("--version")
    assert answer.returncode == 0
    assert __version__ in answer.stdout


@pytest.mark.parametrize("module", ["steer_eval", "steer_eval.cli.main"])
def test_the_package_runs_as_a_module(module: str) -> None:
    program = [sys.executable, "-m", module]
    answer = subprocess.run([*program, "--version"], capture_output=True, text=True, timeout=60)
    refused = subprocess.run([*program, "validate", "nowhere"], capture_output=True, text=True, timeout=60)

    assert (answer.returncode, answer.stdout.split()[-1]) == (0, __version__)
    assert (refused.returncode, refused.stderr[:6]) == (2, "Error:")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_an_example(command: str) -> None:
    answer = run(*filter(None, [command, "--help"]))
    assert answer.returncode == 0
    # Some commands are groups: their examples name a subcommand.
    assert re.search(rf"  steer-eval {command or 'reproduce'}( [a-z]+)? (artifacts|NAMESPACE)/", answer.stdout)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    program = (
        "import sys\n"
        "from steer_eval.cli.main import main\n"
        f"sys.argv = ['steer-eval', *{[command] if command else []!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('imported', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[-1] == "imported []", answer.stderr


@pytest.mark.parametrize(
    "command",
    [["validate"], ["reproduce", "--level", "recompute", "--run", "run"], ["report", "--out", "page.html"]],
    ids=lambda command: command[0],
)
def test_a_whole_study_is_checked_without_what_computes_it(
    packaged_study: Path, tmp_path: Path, command: list[str]
) -> None:
    """Its SAE and the edits of its comparison among it: importing PyTorch takes longer than all of the checks."""
    program = (
        "import sys\n"
        "from steer_eval.cli.main import main\n"
        f"sys.argv = ['steer-eval', *{command!r}, {str(packaged_study)!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('imported', sorted({'torch', 'transformers', 'datasets', 'scipy'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[-1] == "imported []", answer.stderr


def test_every_command_is_described_where_it_is_listed() -> None:
    listed = " ".join(run("--help").stdout.split())
    for name, words in COMMANDS.items():
        assert f"{name} {words}" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command"),
        (["reproduce"], "Missing argument"),
        (["reproduce", "/nowhere/at/all"], "there is no folder"),
        (["validate", "no-such-folder"], "there is no folder no-such-folder"),
        (["reproduce", "x", "--level", "half"], "half"),
        (["validate", "x", "y"], "unexpected extra argument"),
        (["validate", "--nonsense", "x"], "--nonsense"),
        (["card", "x", "--data"], "requires an argument"),
    ],
)
def test_usage_errors_exit_with_2_and_say_what_is_wrong(arguments: list[str], message: str) -> None:
    answer = run(*arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert answer.stdout == ""


def test_a_folder_without_a_study_says_so(tmp_path: Path) -> None:
    for command, words in (
        ("sweep", "study.yaml: the file is absent"),
        ("reproduce", "neither a study.yaml nor a card"),
    ):
        answer = run(command, str(tmp_path))
        assert answer.returncode == 2
        assert words in answer.stderr


def test_a_file_in_place_of_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run("validate", str(tmp_path / "file"))
    assert answer.returncode == 2
    assert "is a file" in answer.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["validate", "--help"], ["validate", "{study}"], ["validate", "{study}", "--json"]]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error_to_tell(tmp_path: Path, arguments: list[str], unbuffered: str) -> None:
    """Click and rich see that nobody reads and exit; nothing may be left to flush at the end of the interpreter."""
    place = build(tmp_path)
    (place.model / "notes.txt").write_text("x")
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        answer = subprocess.run(
            [*program, *(argument.format(study=place.model) for argument in arguments)],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    finally:
        os.close(writer)

    assert answer.stderr == ""
    assert answer.returncode == 1


def test_output_that_was_read_in_time_keeps_the_exit_code(tmp_path: Path) -> None:
    place = build(tmp_path)
    (place.data / "eval_prompts.jsonl").write_bytes(b"")
    answer = run("validate", str(place.model))

    assert answer.returncode == 1
    assert answer.stdout.endswith("files checked\n")


def test_options_are_read_from_the_environment(packaged_study: Path) -> None:
    answer = run("validate", str(packaged_study), STEER_EVAL_VALIDATE_JSON="1")
    assert json.loads(answer.stdout)["schema"] == "steer-eval/validate/1"
