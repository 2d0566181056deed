"""`steer-eval validate` and its formats, end to end on a synthetic study."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from commands import Answer, in_one_process
from sarif_kit.validate import validation_errors
from studies import DATA_REPO, MODEL_REPO, OnDisk, build, claim

from steer_eval import __version__
from steer_eval.formats.schema import check

FORMATS = ("human", "json", "sarif", "github")
SWEEP = f"{DATA_REPO}/sweep_tiny.jsonl"


@pytest.fixture
def place(tmp_path: Path) -> OnDisk:
    """A study with errors of several rules and a warning."""
    broken = build(tmp_path, claims=[claim("nonsense", "1")])
    broken.edit_line("sweep_tiny.jsonl", 3, lambda row: row.update(ppl_ratio=9.0))
    (broken.model / "a b,c:d%.txt").write_text("x", encoding="utf-8")
    return broken


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process: these, and what it inherits of those that have no say in the output."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "STEER_EVAL_VAL"))}
    for name in ("FORCE_COLOR", "COLUMNS", "NO_COLOR"):
        inherited.pop(name, None)
    return {**inherited, **environment}


def validate(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()", "validate", MODEL_REPO, *arguments]
    return subprocess.run(
        program, cwd=folder, env=surroundings(environment), capture_output=True, text=True, timeout=120
    )


def validate_each(folder: Path, *commands: Sequence[str], **environment: str) -> list[Answer]:
    """The same with several lists of arguments, in one process."""
    whole = (["validate", MODEL_REPO, *arguments] for arguments in commands)
    return in_one_process(surroundings(environment), *whole, cwd=folder)


def findings(folder: Path) -> list[dict]:
    return json.loads(validate(folder, "--json").stdout)["findings"]


def test_people_get_a_table(place: OnDisk, tmp_path: Path) -> None:
    answer = validate(tmp_path)
    lines = answer.stdout.splitlines()

    assert answer.returncode == 1
    assert answer.stderr == ""
    heads = [line for line in lines[:-2] if not line.startswith(" ")]
    assert heads[0] == SWEEP
    assert heads[-1] == f"{MODEL_REPO}/a b,c:d%.txt", "the file with nothing but a warning comes last"
    assert len(heads) == len(set(heads))
    [row] = [number for number, line in enumerate(lines) if "  line 3: ppl_ratio  " in line]
    assert re.fullmatch(r"  error    line 3: ppl_ratio +ppl_ratio is 9, .* \[sweep-arithmetic\]", lines[row])
    assert [line.split()[0] for line in lines[row + 1 : row + 4]] == ["expected:", "observed:", "fix:"]
    assert re.fullmatch(r"\d+ errors, 1 warning", lines[-2])
    assert lines[-1] == "16 files checked"


def test_a_terminal_of_80_columns_is_enough(place: OnDisk, tmp_path: Path) -> None:
    answer = validate(tmp_path, FORCE_COLOR="1", COLUMNS="80")
    plain = re.sub(r"\x1b\[[\d;]*m", "", answer.stdout)

    assert plain != answer.stdout, "severities are coloured"
    assert max(map(len, plain.splitlines())) <= 80
    assert "".join(plain.split()).count("[sweep-arithmetic]") == 2


def test_json_is_what_the_schema_says(place: OnDisk, tmp_path: Path) -> None:
    answer, short, both = validate_each(tmp_path, ["--format", "json"], ["--json"], ["--json", "--format", "json"])

    assert answer.stdout == short.stdout == both.stdout
    whole = json.loads(answer.stdout)
    check(whole, "validation", file="output")
    assert whole["target"] == MODEL_REPO


def test_sarif_has_a_result_for_each_finding(place: OnDisk, tmp_path: Path) -> None:
    answer = validate(tmp_path, "--format", "sarif")
    log = json.loads(answer.stdout)
    [run] = log["runs"]

    assert answer.returncode == 1
    assert validation_errors(log) == []
    assert run["tool"]["driver"]["version"] == __version__
    results = [(each["ruleId"], each["level"]) for each in run["results"]]
    assert results == [(each["rule"], each["severity"]) for each in findings(tmp_path)]
    places = [each["locations"][0]["physicalLocation"] for each in run["results"]]
    assert {"artifactLocation": {"uri": SWEEP, "uriBaseId": "%SRCROOT%"}, "region": {"startLine": 3}} in places
    assert f"{MODEL_REPO}/a%20b%2Cc%3Ad%25.txt" in {each["artifactLocation"]["uri"] for each in places}


def test_github_gets_an_annotation_for_each_finding_and_a_summary(place: OnDisk, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("earlier\n", encoding="utf-8")
    answer = validate(tmp_path, "--format", "github", GITHUB_STEP_SUMMARY=str(summary))
    *commands, last = answer.stdout.splitlines()

    assert answer.returncode == 1
    found = findings(tmp_path)
    assert len(commands) == len(found)
    assert any(line.startswith(f"::error file={SWEEP},line=3,title=steer-eval sweep-arithmetic::") for line in commands)
    assert commands[-1].startswith(f"::warning file={MODEL_REPO}/a b%2Cc%3Ad%25.txt,title=steer-eval file-unlisted::")
    assert re.fullmatch(r"steer-eval validate: \d+ errors, 1 warning; 16 files checked", last)
    written = summary.read_text(encoding="utf-8")
    assert written.startswith(f"earlier\n### steer-eval validate: {MODEL_REPO}\n")
    assert len(re.findall(r"^\| (error|warning) \|", written, re.MULTILINE)) == len(found)


def test_only_the_format_for_github_writes_to_the_summary(place: OnDisk, tmp_path: Path) -> None:
    formats = [["--format", name] for name in ("human", "json", "sarif")]
    answers = validate_each(tmp_path, *formats, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))

    assert [answer.code for answer in answers] == [1, 1, 1]
    assert not (tmp_path / "summary.md").exists()


def test_files_are_named_from_the_root_of_the_checkout(place: OnDisk, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()", "validate", "."]
    answer = subprocess.run(
        [*program, "--format", "github"], cwd=place.model, capture_output=True, text=True, timeout=120
    )

    assert f"::error file={SWEEP},line=3," in answer.stdout
    assert f"::error file={MODEL_REPO}/study.yaml," in answer.stdout


def test_a_file_gets_what_standard_output_would(place: OnDisk, tmp_path: Path) -> None:
    printed = validate_each(tmp_path, *(["--format", name] for name in FORMATS))
    written = validate_each(tmp_path, *(["--format", name, "--output", f"out/{name}"] for name in FORMATS))

    for name, on_stdout, in_file in zip(FORMATS, printed, written, strict=True):
        assert (tmp_path / "out" / name).read_text(encoding="utf-8") == on_stdout.stdout
        assert (in_file.code, on_stdout.code) == (1, 1)
        assert in_file.stdout == ""
        assert re.fullmatch(rf"\d+ errors, 1 warning; 16 files checked; written to out/{name}\n", in_file.stderr)


def test_a_good_study_is_good_in_every_format(tmp_path: Path) -> None:
    build(tmp_path)
    answers = dict(zip(FORMATS, validate_each(tmp_path, *(["--format", name] for name in FORMATS)), strict=True))

    assert {(answer.code, answer.stderr) for answer in answers.values()} == {(0, "")}
    assert answers["human"].stdout == "15 files checked\n"
    assert answers["github"].stdout == "steer-eval validate: no findings; 15 files checked\n"
    assert json.loads(answers["json"].stdout)["findings"] == []
    assert json.loads(answers["sarif"].stdout)["runs"][0]["results"] == []


def test_names_that_are_no_unicode_are_told(tmp_path: Path) -> None:
    place = build(tmp_path)
    Path(os.fsdecode(os.fsencode(place.model) + b"/b\xff.txt")).write_text("x", encoding="utf-8")
    written = validate_each(tmp_path, *(["--format", name, "--output", name] for name in FORMATS))
    printed = validate_each(tmp_path, *(["--format", name] for name in FORMATS))

    for name, in_file, on_stdout in zip(FORMATS, written, printed, strict=True):
        assert (in_file.code, on_stdout.code) == (0, 0), in_file.stderr + on_stdout.stderr
        shown = "b%FF.txt" if name == "sarif" else r"b\udcff.txt"
        assert f"{MODEL_REPO}/{shown}" in (tmp_path / name).read_text(encoding="utf-8")
        assert on_stdout.stdout == (tmp_path / name).read_text(encoding="utf-8")
    # The streams of a process of its own are no other.
    assert validate(tmp_path).stdout == printed[0].stdout


def test_a_study_that_can_not_be_read_is_an_annotation_too(place: OnDisk, tmp_path: Path) -> None:
    (place.model / "study.yaml").write_text("name: [\n", encoding="utf-8")
    answer = validate(tmp_path, "--format", "github")

    assert answer.returncode in {1, 2}
    assert answer.stdout.startswith(f"::error file={MODEL_REPO}/study.yaml,line=")


def test_json_and_another_format_contradict_each_other(place: OnDisk, tmp_path: Path) -> None:
    for answer in validate_each(tmp_path, *(["--json", "--format", name] for name in ("human", "sarif", "github"))):
        assert answer.code == 2
        assert answer.stdout == ""
        assert "--json is short for --format json" in answer.stderr


def test_the_format_is_read_from_the_environment(place: OnDisk, tmp_path: Path) -> None:
    answer = validate(tmp_path, STEER_EVAL_VALIDATE_FORMAT="sarif", STEER_EVAL_VALIDATE_OUTPUT="file")

    assert answer.returncode == 1
    assert json.loads((tmp_path / "file").read_text(encoding="utf-8"))["version"] == "2.1.0"


@pytest.mark.parametrize("output", ["taken", "file/below"])
def test_an_output_that_can_not_be_written_is_a_usage_error(place: OnDisk, tmp_path: Path, output: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("old", encoding="utf-8")
    answer = validate(tmp_path, "--output", output)

    assert answer.returncode == 2
    assert output in answer.stderr
    assert "Traceback" not in answer.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "old"


def test_a_summary_that_can_not_be_written_hides_no_annotation(place: OnDisk, tmp_path: Path) -> None:
    answer = validate(tmp_path, "--format", "github", GITHUB_STEP_SUMMARY=str(tmp_path))

    assert answer.returncode == 2
    assert f"Error: {tmp_path} can't be written" in answer.stderr
    assert answer.stdout.count("::error ") == len([each for each in findings(tmp_path) if each["severity"] == "error"])


def test_a_pipe_is_written_to_and_not_replaced(place: OnDisk, tmp_path: Path) -> None:
    answer = validate(tmp_path, "--json", "--output", "/dev/stdout")

    assert json.loads(answer.stdout)["schema"] == "steer-eval/validate/1"
    assert Path("/dev/stdout").exists()
