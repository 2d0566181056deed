"""`steer-eval audit` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import legacy
import pytest
from click.testing import CliRunner, Result

from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema


@pytest.fixture
def place(tmp_path: Path) -> legacy.Legacy:
    return legacy.build(tmp_path)


def audit(place: legacy.Legacy, text: str, *options: str) -> Result:
    file = place.model / "draft.md"
    file.write_text(text, encoding="utf-8")
    return CliRunner().invoke(cli, ["audit", str(file), "--data", str(place.data), *options])


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        ("There are 6 contrast pairs.", (), 0),
        ("There are 7 contrast pairs.", (), 1),
        ("There are 6 contrast pairs and 3 seeds.", (), 0),
        ("There are 6 contrast pairs and 3 seeds.", ("--strict",), 1),
        ("Steer at layer 5. There are 6 contrast pairs.", ("--strict",), 0),
        ("There are 3 seeds.", (), 2),
        ("No number.", (), 2),
    ],
)
def test_exit_codes(place: legacy.Legacy, text: str, options: tuple[str, ...], code: int) -> None:
    assert audit(place, text, *options).exit_code == code


@pytest.mark.parametrize(("name", "what"), [("absent.md", "absent"), ("vectors", "a folder")])
def test_what_is_no_text_is_refused_with_what_to_name(place: legacy.Legacy, name: str, what: str) -> None:
    error = CliRunner().invoke(cli, ["audit", str(place.model / name), "--data", str(place.data)]).exception

    assert isinstance(error, SteerEvalError)
    assert error.message.endswith(f"{name} is {what}")
    assert "README.md" in error.fix


def test_json_is_alone_on_standard_output_and_fits_its_schema(place: legacy.Legacy) -> None:
    document = json.loads(audit(place, "There are 6 contrast pairs.", "--json").stdout)

    schema.check(document, "audit", file="audit")
    assert document["coverage"] == {"understood": 1, "numbers": 1, "places": 0}


def test_people_see_line_verdict_and_coverage(place: legacy.Legacy) -> None:
    shown = audit(place, "There are 7 contrast pairs.").stdout

    assert "contradicted line 1" in shown
    assert "1 of 1 numbers of the text understood (100 %)" in shown


def test_an_annotated_copy(place: legacy.Legacy, tmp_path: Path) -> None:
    copy = tmp_path / "copy.md"
    audit(place, "There are 6 contrast pairs.", "--annotate", str(copy))

    assert copy.read_text(encoding="utf-8") == "There are 6✓ contrast pairs."


def test_the_copy_is_never_the_text(place: legacy.Legacy) -> None:
    result = audit(place, "There are 6 contrast pairs.", "--annotate", str(place.model / "draft.md"))

    assert result.exit_code != 0
    assert (place.model / "draft.md").read_text(encoding="utf-8") == "There are 6 contrast pairs."


def test_another_model_repo(place: legacy.Legacy, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.md"
    file.write_text("The 3B vector has norm 9.99 at layer 5.", encoding="utf-8")
    arguments = ["audit", str(file), "--data", str(place.data), "--model", str(place.model)]

    assert CliRunner().invoke(cli, arguments).exit_code == 1


@pytest.mark.parametrize(("there", "hinted"), [(False, True), (True, False)])
def test_without_the_files_of_a_model_repo_it_says_which_option_names_one(
    place: legacy.Legacy, tmp_path: Path, there: bool, hinted: bool
) -> None:
    (tmp_path / "drafts").mkdir()
    file = (place.model if there else tmp_path / "drafts") / "elsewhere.md"
    file.write_text("There are 6 contrast pairs. The 3B vector has norm 9.99 at layer 5.", encoding="utf-8")
    answer = CliRunner().invoke(cli, ["audit", str(file), "--data", str(place.data), "--json"])

    assert ("--model" in answer.stderr) is hinted
    json.loads(answer.stdout)


def test_what_can_be_checked_without_a_model_repo_needs_no_hint(place: legacy.Legacy, tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    file = tmp_path / "drafts" / "elsewhere.md"
    file.write_text("There are 6 contrast pairs.", encoding="utf-8")

    assert CliRunner().invoke(cli, ["audit", str(file), "--data", str(place.data)]).stderr == ""
