from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import build, document, write_study

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.repository import Repositories, StudyRepositories, open_repository, open_study, open_target

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_local_folder_is_opened_as_it_is(tmp_path):
    place = build(tmp_path)
    for target in (str(place.model), f"{place.model}/", f"{place.model}//"):
        repository = open_repository(target, "model")

        assert (repository.name, repository.folder) == (str(place.model), place.model)
        assert repository.revision is None


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    place = build(tmp_path)

    with pytest.raises(SteerEvalError, match=r"study\.yaml is a file") as caught:
        open_repository(str(place.model / "study.yaml"), "model")

    assert "folder" in caught.value.fix


NONSENSE = {
    "": "no folder",
    "nope": "no folder nope",
    "a/b/c": "no folder a/b/c",
    "../outside/x/y": "no folder",
    "lab/x@": "no folder",
    "\x00": "no folder",
    "x" * 400: "no folder",
    "lab/" + "x" * 120: "no name that a repo can have",
    "lab..x/persona": "no name that a repo can have",
    "lab--x/persona": "no name that a repo can have",
    "lab/persona.git": "no name that a repo can have",
    "lab/persona@../../x": "no revision",
    "hf://lab/persona/vectors": "a place inside a repo",
    "hf://spaces/lab/persona": "names a space",
    "hf://lab": "names no repo",
    "https://example.org/lab/persona": "no folder",
}


@pytest.mark.parametrize(("target", "message"), NONSENSE.items(), ids=[repr(name[:24]) for name in NONSENSE])
def test_a_nonsense_target_is_refused_with_a_fix(target, message):
    with pytest.raises(SteerEvalError, match=message) as caught:
        open_repository(target, "model")

    assert caught.value.fix


@settings(max_examples=60, deadline=None)
@given(st.text("ab./-_@\x00:é~ ", max_size=12))
def test_any_target_is_a_folder_or_an_error_with_a_fix(target):
    try:
        repository = open_repository(target, "dataset")
    except SteerEvalError as refused:
        error = refused
    else:
        assert repository.folder.is_dir()
        return
    assert error.fix


def test_the_data_of_a_local_study_is_beside_it(tmp_path):
    place = build(tmp_path)
    repositories = open_study(str(place.model))

    assert repositories.study.name == "persona"
    assert repositories.data.folder.resolve() == place.data.resolve()
    assert repositories.data.revision is None


def test_a_study_in_the_current_folder_finds_its_data(tmp_path, monkeypatch):
    place = build(tmp_path)
    monkeypatch.chdir(place.model)

    assert open_study(".").data.folder.resolve() == place.data.resolve()
    monkeypatch.chdir(tmp_path)
    assert open_study("persona").data.name == "persona-data"


def test_the_data_can_be_named(tmp_path):
    place = build(tmp_path)
    place.data.rename(tmp_path / "elsewhere")

    assert open_study(str(place.model), str(tmp_path / "elsewhere")).data.folder == tmp_path / "elsewhere"


def test_missing_data_is_named_with_the_place_that_was_looked_at(tmp_path):
    place = build(tmp_path)
    place.data.rename(tmp_path / "elsewhere")

    with pytest.raises(SteerEvalError) as caught:
        open_study(str(place.model))

    assert "lab/persona-data" in caught.value.message
    assert str(place.data) in caught.value.message
    assert "--data" in caught.value.fix


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"study\.yaml: the file is absent"):
        open_study(str(tmp_path))


def test_a_study_that_is_a_link_out_of_its_repo_is_not_read(tmp_path):
    place = build(tmp_path / "repos")
    (place.model / "study.yaml").rename(tmp_path / "study.yaml")
    (place.model / "study.yaml").symlink_to(tmp_path / "study.yaml")

    with pytest.raises(FormatError, match="leaves the repo") as caught:
        open_study(str(place.model))

    assert caught.value.file == f"{place.model}/study.yaml"
    assert caught.value.fix


def hub_cache(cache: Path, kind: str, repo: str, source: Path, commit: str) -> Path:
    """A repo in the layout of the Hugging Face cache: blobs, and a snapshot of links to them."""
    folder = cache / f"{kind}s--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "blobs").mkdir()
    snapshot = folder / "snapshots" / commit
    for path in sorted(source.rglob("*")):
        if path.is_file():
            blob = folder / "blobs" / f"{len(list((folder / 'blobs').iterdir())):040x}"
            blob.write_bytes(path.read_bytes())
            link = snapshot / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


OPEN = """
import json, sys
from steer_eval.errors import SteerEvalError
from steer_eval.repository import open_study
from steer_eval.validate import validate

def opened(target):
    try:
        found = open_study(target)
    except SteerEvalError as error:
        return {"error": error.message, "fix": error.fix}
    return {
        "model": [found.model.name, str(found.model.folder), found.model.revision],
        "data": [found.data.name, str(found.data.folder), found.data.revision],
        "findings": [finding.to_json() for finding in validate(found).findings],
    }

print(json.dumps({target: opened(target) for target in sys.argv[1:]}))
"""


def test_a_hub_study_is_opened_at_its_commit_offline(tmp_path):
    place = build(tmp_path / "source")
    cache = tmp_path / "cache"
    model = hub_cache(cache, "model", "lab/persona", place.model, COMMIT)
    data = hub_cache(cache, "dataset", "lab/persona-data", place.data, COMMIT[::-1])
    write_study(tmp_path / "alone", {**document(), "data": "lab/absent-data"})
    hub_cache(cache, "model", "lab/alone", tmp_path / "alone", COMMIT)
    good = ["lab/persona", "lab/persona@main", f"lab/persona@{COMMIT}"]

    # The library reads its environment when it is imported, so this takes a process of its own.
    result = subprocess.run(
        [sys.executable, "-c", OPEN, *good, "lab/alone"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout)

    for target in good:
        assert answers[target] == {
            "model": [target, str(model), COMMIT],
            "data": ["lab/persona-data", str(data), COMMIT[::-1]],
            "findings": [],
        }
    assert "lab/absent-data" in answers["lab/alone"]["error"]
    assert "dataset repo" in answers["lab/alone"]["error"]
    assert answers["lab/alone"]["fix"]


def test_a_local_folder_goes_before_a_hub_repo_of_that_name(tmp_path, monkeypatch):
    write_study(tmp_path / "lab" / "persona", document())
    (tmp_path / "lab" / "persona-data").mkdir()
    monkeypatch.chdir(tmp_path)

    assert open_study("lab/persona").model.revision is None


def legacy_repos(folder: Path, *, datasets: object = "lab/fox-data") -> tuple[Path, Path]:
    """A model repo without a study whose card may name a dataset repo, and that repo beside it."""
    model, data = folder / "fox", folder / "fox-data"
    model.mkdir(parents=True)
    data.mkdir()
    named = "" if datasets is None else f"datasets: {json.dumps(datasets)}\n"
    (model / "README.md").write_text(f"---\nlicense: mit\n{named}---\n", encoding="utf-8")
    return model, data


def test_a_target_with_a_study_is_opened_with_its_data(tmp_path):
    place = build(tmp_path)
    target = open_target(str(place.model))

    assert isinstance(target, StudyRepositories)
    assert target.data.folder.resolve() == place.data.resolve()
    (place.data / "study.yaml").write_text("not: a study\n")
    with pytest.raises(FormatError):
        open_target(str(place.data))


@pytest.mark.parametrize("datasets", ["lab/fox-data", ["lab/fox-data"], ["lab/absent", "other/fox-data"]])
def test_without_a_study_the_card_names_the_data(tmp_path, datasets):
    model, data = legacy_repos(tmp_path, datasets=datasets)
    target = open_target(str(model))

    assert isinstance(target, Repositories)
    assert target.study is None
    assert target.model.folder == model
    assert target.data is not None
    assert target.data.folder.resolve() == data.resolve()


@pytest.mark.parametrize(
    "datasets",
    [
        None,
        [],
        "",
        "lab/absent",
        [7, None],
        {"a": "lab/fox-data"},
        "../fox-data",
        "/lab/fox-data",
        "fox-data",
        ["lab/.."],
    ],
)
def test_a_target_without_a_study_may_be_alone(tmp_path, datasets):
    model, _ = legacy_repos(tmp_path, datasets=datasets)
    target = open_target(str(model))

    assert isinstance(target, Repositories)
    assert target.data is None


@pytest.mark.parametrize(
    "card", [None, b"", b"\xff", b"---\na: [\n---\n", b"---\n- lab/fox-data\n---\n", b"no front matter"]
)
def test_a_bad_card_names_no_data_and_is_no_reason_to_stop(tmp_path, card):
    model, _ = legacy_repos(tmp_path)
    (model / "README.md").unlink()
    if card is not None:
        (model / "README.md").write_bytes(card)

    assert open_target(str(model)).data is None


def test_the_data_that_is_given_goes_before_what_the_card_names(tmp_path):
    model, data = legacy_repos(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    target = open_target(str(model), str(tmp_path / "elsewhere"))

    assert target.data is not None
    assert target.data.folder == tmp_path / "elsewhere"
    with pytest.raises(SteerEvalError, match="no folder"):
        open_target(str(model), str(data / "absent"))


def test_a_card_that_is_a_link_out_of_its_repo_names_no_data(tmp_path):
    model, _ = legacy_repos(tmp_path)
    (model / "README.md").rename(tmp_path / "outside.md")
    (model / "README.md").symlink_to(tmp_path / "outside.md")

    assert open_target(str(model)).data is None


def test_a_study_that_can_not_be_read_is_no_repo_without_a_study(tmp_path):
    """A dangling link, or a file of garbage: the error names it."""
    model, _ = legacy_repos(tmp_path)
    (model / "study.yaml").symlink_to("absent.yaml")
    with pytest.raises(FormatError, match=r"study\.yaml"):
        open_target(str(model))
    (model / "study.yaml").unlink()
    (model / "study.yaml").write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"study\.yaml"):
        open_target(str(model))


def test_any_folder_is_a_target(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    target = open_target(".")

    assert isinstance(target, Repositories)
    assert (target.data, target.model.name) == (None, ".")
    with pytest.raises(SteerEvalError, match="no folder"):
        open_target("absent")
