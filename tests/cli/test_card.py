"""`steer-eval card` of repos without `study.yaml`; of studies it is tested with the cards themselves."""

from __future__ import annotations

import json
from pathlib import Path

import legacy
import legacy_contents as contents
import pytest
from click.testing import CliRunner, Result
from legacy import Legacy

from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.legacy_cards import MARK


@pytest.fixture
def place(tmp_path) -> Legacy:
    return legacy.build(tmp_path)


def card(place: Legacy, *arguments: str) -> Result:
    command = ["card", str(place.model), "--data", str(place.data), *arguments]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


def test_cards_are_written_elsewhere(place, tmp_path):
    out = tmp_path / "cards"
    answer = card(place, "--out", str(out))

    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[0] == f"wrote {out}/model/README.md"
    assert MARK in (out / "model/README.md").read_text()
    assert MARK in (out / "dataset/README.md").read_text()
    assert card(place, "--out", str(out)).stdout == "both cards are up to date\n"


def test_cards_by_hand_need_force(place):
    with pytest.raises(SteerEvalError, match="was not rendered by steer-eval") as caught:
        card(place)
    assert "--out" in caught.value.fix
    assert "--force" in caught.value.fix

    assert card(place, "--force").exit_code == 0
    assert card(place, "--check").exit_code == 0
    assert "contradicts no number" in card(place, "--check").stdout
    assert CliRunner().invoke(cli, ["validate", str(place.model), "--data", str(place.data)]).exit_code == 0


def test_check_prints_every_stale_number_and_writes_nothing(place):
    assert card(place, "--force").exit_code == 0
    path = place.path("model/README.md")
    first, second = contents.norm(contents.direction("large", 2)), contents.norm(contents.direction("large", 9))
    stale = path.read_text().replace(f"{first:.4f}", f"{first + 1:.4f}").replace(f"{second:.4f}", f"{second + 1:.4f}")
    path.write_text(stale)

    answer = card(place, "--check", "--json")
    findings = json.loads(answer.stdout)["findings"]
    assert answer.exit_code == 1
    assert len(findings) == 2
    assert [finding["observed"] for finding in findings] == [f"{first + 1:.4f}", f"{second + 1:.4f}"]
    for finding in findings:
        schema.check(finding, "finding", file="standard output")
    assert path.read_text() == stale
    shown = card(place, "--check").stdout
    assert shown.index(f"{first + 1:.4f}") < shown.index(f"{second + 1:.4f}")


def test_names_are_options(place, tmp_path):
    out = tmp_path / "cards"
    options = ["--repo-id", "lab/v", "--data-id", "lab/d", "--license", "cc0-1.0"]
    answer = card(place, "--out", str(out), "--json", *options)

    assert {Path(path).parent.name for path in json.loads(answer.stdout)["written"]} == {"model", "figures", "dataset"}
    text = (out / "model/README.md").read_text()
    assert "license: cc0-1.0" in text
    assert "# v\n" in text
    assert (out / "dataset/README.md").read_text().count('load_dataset("lab/d", "sweep")') == 1


def test_a_bad_id_is_refused(place):
    with pytest.raises(SteerEvalError, match="--repo-id not an id"):
        card(place, "--repo-id", "not an id")


def test_the_published_study(upstream, tmp_path):
    place = Legacy(upstream / "model", upstream / "dataset")
    checked = card(place, "--check")
    assert checked.exit_code == 1
    assert "line 73" in checked.stdout
    assert "share of prompts" in checked.stdout

    assert card(place, "--out", str(tmp_path)).exit_code == 0
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")} == {
        "model/README.md",
        "dataset/README.md",
    }


@pytest.mark.parametrize(
    "options", [["--out", "x"], ["--force"], ["--repo-id", "a/b"], ["--data-id", "a/b"], ["--license", "mit"]]
)
def test_a_study_says_these_itself(packaged_study, options):
    answer = CliRunner().invoke(cli, ["card", str(packaged_study), "--check", *options])

    assert answer.exit_code == 2
    assert f"{options[0]} is for repos without study.yaml" in answer.stderr


def test_a_repo_that_is_no_study_and_has_no_data_is_told_so(tmp_path):
    (tmp_path / "alone").mkdir()

    with pytest.raises(SteerEvalError, match="nothing says which dataset repo") as caught:
        CliRunner().invoke(cli, ["card", str(tmp_path / "alone")], catch_exceptions=False)
    assert "--data" in caught.value.fix
