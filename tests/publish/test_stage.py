from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import legacy
import pytest
import studies
import yaml
from click.testing import CliRunner
from publish_staging import DATA_TO, TO, content, staged

from steer_eval.cards import check_cards
from steer_eval.cli.main import cli
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import worst
from steer_eval.formats.pin import DataPin, data_pin
from steer_eval.legacy_cards import MARK
from steer_eval.publish.belongs import Choice
from steer_eval.repository import open_study
from steer_eval.results_files import load_results
from steer_eval.study import load_study
from steer_eval.validate import validate

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def study(tmp_path: Path) -> studies.OnDisk:
    return studies.build(tmp_path / "own", claims=[studies.claim("perplexity_ratio", "1.25", layer=1, coef=1)])


@pytest.fixture
def old(tmp_path: Path) -> legacy.Legacy:
    return legacy.build(tmp_path / "own")


def stamps(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_study_is_staged_under_its_new_names_with_everything_that_follows(tmp_path, study):
    before = stamps(tmp_path / "own")

    made = staged(tmp_path / "s", study.model)

    assert stamps(tmp_path / "own") == before
    assert worst(made.findings) in (None, "note", "warning")
    found = load_study(made.model.folder / "study.yaml")
    assert (found.repo, found.data) == (TO, DATA_TO)
    config = json.loads((made.model.folder / "config.json").read_text())
    assert (config["repo"], config["data"], data_pin(config)) == (TO, DATA_TO, None)
    for repo in (made.model, made.data):
        card = (repo.folder / "README.md").read_text()
        assert "lab/persona" not in card
        assert DATA_TO in card


def test_the_staged_repos_are_valid_with_the_pin_and_without(tmp_path, study):
    made = staged(tmp_path / "s", study.model)
    for commit in (None, COMMIT):
        if commit:
            made.pin(commit)
        opened = open_study(str(made.model.folder), str(made.data.folder))
        results = load_results(opened.study, model_repo=opened.model.folder, data_repo=opened.data.folder)

        assert check_cards(opened.study, results, model=opened.model, data=opened.data) == []
        assert worst(validate(opened).findings) != "error"

    assert data_pin(json.loads((made.model.folder / "config.json").read_text())) == DataPin(DATA_TO, COMMIT)


@pytest.mark.parametrize("kind", ["study", "legacy"])
def test_staging_twice_gives_the_same_bytes_also_from_what_was_staged(tmp_path, kind):
    place = (studies if kind == "study" else legacy).build(tmp_path / "own")

    first = staged(tmp_path / "first", place.model, place.data)
    shutil.copytree(tmp_path / "own", tmp_path / "elsewhere")
    names = place.model.name, place.data.name
    second = staged(tmp_path / "second", *(tmp_path / "elsewhere" / name for name in names))
    first.pin(COMMIT)
    # What somebody pulled and publishes again, unchanged.
    third = staged(tmp_path / "third", first.model.folder, first.data.folder)

    second.pin(COMMIT)
    third.pin(COMMIT)
    for other in (second, third):
        assert content(other.model.folder) == content(first.model.folder)
        assert content(other.data.folder) == content(first.data.folder)


def test_pins_differ_in_two_files_only(tmp_path, study):
    made = staged(tmp_path / "s", study.model)
    made.pin(COMMIT)
    first = content(made.model.folder)
    made.pin(COMMIT[::-1])
    second = content(made.model.folder)

    assert {path for path in first if first[path] != second[path]} == {"config.json", "manifest.json"}


def test_the_card_command_keeps_a_pin_and_renders_around_it(tmp_path, study):
    made = staged(tmp_path / "s", study.model)
    made.pin(COMMIT)
    before = content(made.model.folder)
    (made.model.folder / "README.md").write_text("# Another\n")
    runner, where = CliRunner(), [str(made.model.folder), "--data", str(made.data.folder)]

    assert runner.invoke(cli, ["card", *where, "--check"]).exit_code == 1
    assert runner.invoke(cli, ["card", *where]).exit_code == 0
    assert runner.invoke(cli, ["card", *where, "--check"]).exit_code == 0
    assert content(made.model.folder) == before


def test_a_study_without_study_yaml_is_converted_and_gets_cards_configs_and_manifests(tmp_path, old):
    before = stamps(tmp_path / "own")

    made = staged(tmp_path / "s", old.model, old.data, licence="apache-2.0")

    assert stamps(tmp_path / "own") == before
    assert worst(made.findings) == "warning"
    # Both cards were written by hand.
    assert sum(finding.rule == "publish-card" for finding in made.findings) == 2
    paths = made.model.paths()
    assert not [path for path in paths if path.endswith(".pt")]
    assert {"vectors/fox_large_L2_caa.safetensors", "transfer/transfer_map_large_to_small.safetensors"} <= {*paths}
    assert "saes/fox_large/layers.5/sae_weights.safetensors" in paths
    assert "vectors/fox_large_L2_caa.pt" in made.model.converted
    assert len(made.model.converted) == 10
    model, data = (json.loads((repo.folder / "config.json").read_text()) for repo in (made.model, made.data))
    assert (model["repo"], model["data"], data["repo"], data["model_repo"]) == (TO, DATA_TO, DATA_TO, TO)
    assert all((made.model.folder / entry["file"]).is_file() for entry in (*model["vectors"], *model["saes"]))
    assert {entry["model"] for entry in model["vectors"]} == {entry["model"] for entry in model["saes"]}
    for repo in (made.model, made.data):
        card = (repo.folder / "README.md").read_text()
        assert MARK in card
        assert "license: apache-2.0" in card


def test_what_an_authors_own_config_says_is_kept(tmp_path, old):
    (old.model / "config.json").write_text(json.dumps({"author": "A. Fox", "repo": "x/y", "data_revision": COMMIT}))

    config = json.loads((staged(tmp_path / "s", old.model, old.data).model.folder / "config.json").read_text())

    assert (config["author"], config["repo"]) == ("A. Fox", TO)
    assert "data_revision" not in config


def test_a_config_that_is_no_object_is_refused(tmp_path, old):
    (old.model / "config.json").write_text("[]")

    with pytest.raises(FormatError, match=r"config\.json"):
        staged(tmp_path / "s", old.model, old.data)


def test_errors_in_the_files_are_findings_named_as_the_user_names_them(tmp_path, old, monkeypatch):
    monkeypatch.chdir(tmp_path / "own")
    (old.model / "vectors/fox_small_L2_caa.pt").write_bytes(b"no torch file")
    (old.data / "sweep_fox_small.jsonl").write_text("{}\n")
    (old.model / "train.py").write_text("print()")
    (old.data / "notes.md").write_text("see /home/alice/notes\n")

    made = staged(tmp_path / "s", Path("model"), Path("data"))

    errors = {(each.rule, each.file) for each in made.findings if each.severity == "error"}
    assert {
        ("convert-refused", "model/vectors/fox_small_L2_caa.pt"),
        ("table", "data/sweep_fox_small.jsonl"),
        ("publish-unknown", "model/train.py"),
        ("publish-home-path", "data/notes.md"),
    } <= errors
    assert not [each for each in made.findings if str(tmp_path / "s") in json.dumps(each.to_json())]


def test_a_home_path_can_be_allowed_and_a_token_cannot(tmp_path, study):
    token = "hf_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1c"
    (study.data / "notes.md").write_text(f"/home/alice/x\n{token}\n")

    made = staged(tmp_path / "s", study.model, choice=Choice(allow=["notes.md"]))

    assert [each.rule for each in made.findings if each.rule.startswith("publish-")] == ["publish-secret"]


def test_folders_that_lie_in_one_another_are_refused(tmp_path, study):
    inner = study.model / "data"
    shutil.move(study.data, inner)

    with pytest.raises(SteerEvalError, match="lie in one another"):
        staged(tmp_path / "s", study.model, inner)


def test_a_folder_with_nothing_to_publish_is_refused(tmp_path, study):
    with pytest.raises(SteerEvalError, match="no file to publish"):
        staged(tmp_path / "s", study.model, choice=Choice(exclude=["*"]))


def test_without_a_dataset_folder_the_message_says_how_to_name_it(tmp_path, old):
    (old.model / "README.md").unlink()

    with pytest.raises(SteerEvalError) as caught:
        staged(tmp_path / "s", old.model)

    assert "--data" in caught.value.fix


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
def test_read_only_folders_can_be_published(tmp_path, study):
    for path in (tmp_path / "own").rglob("*"):
        path.chmod(0o444 if path.is_file() else 0o555)
    try:
        made = staged(tmp_path / "s", study.model)
        made.pin(COMMIT)
    finally:
        for path in (tmp_path / "own").rglob("*"):
            path.chmod(0o755)

    assert data_pin(json.loads((made.model.folder / "config.json").read_text())) == DataPin(DATA_TO, COMMIT)


def test_the_upstream_study_is_refused_for_what_its_data_contradicts(tmp_path, upstream):
    made = staged(tmp_path / "s", upstream / "model", upstream / "dataset")

    errors = {(each.rule, Path(each.file).name) for each in made.findings if each.severity == "error"}
    assert errors == {("not-finite", "latent_diff.json"), ("judge-label", "judge_phase_i.jsonl")}


def test_a_model_that_nobody_else_has_is_told(tmp_path, study):
    file = study.model / "study.yaml"
    document = yaml.safe_load(file.read_text())
    document["models"]["tiny"]["source"] = {"local": {"path": "../weights"}}
    file.write_text(yaml.safe_dump(document))

    [finding] = [each for each in staged(tmp_path / "s", study.model).findings if each.rule == "publish-local-model"]

    assert (finding.severity, finding.where) == ("warning", "models.tiny.source")
