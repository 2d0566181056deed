"""What `steer-eval publish` refuses, and what it says and leaves behind when the Hub or somebody else is in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import studies
from commands import in_one_process
from publish_author import DATA, TO, Author, document, pin_of, writes

from steer_eval.formats.pin import DataPin


def test_secrets_and_errors_are_refused_before_the_hub_is_asked(author, hub):
    token = "hf_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1c"
    (author.place.data / "notes.md").write_text(f"first\nlogin with {token}\n")
    (author.place.model / ".env").write_text("X=1\n")
    author.place.edit_line("sweep_tiny.jsonl", 3, lambda row: row.update(ppl=99.0))

    process = author.run("--yes", "--json")

    assert process.returncode == 1
    assert hub.requests == []
    found = document(process)
    assert (found["outcome"], found["repos"]) == ("refused", [])
    errors = {(each["rule"], Path(each["file"]).name, each["where"].partition(":")[0]) for each in found["findings"]}
    assert {
        ("publish-secret", "notes.md", "line 2"),
        ("publish-secret", ".env", ""),
        ("sweep-arithmetic", "sweep_tiny.jsonl", "line 3"),
    } <= errors
    assert token not in process.stdout + process.stderr
    shown = author.run("--yes")
    assert shown.returncode == 1
    assert token not in shown.stdout + shown.stderr
    assert "Nothing was pushed" in shown.stdout


@pytest.mark.parametrize("who", ["nobody", "reader", "stranger", "wrong"])
def test_without_rights_nothing_is_written(hub, tmp_path, who):
    token = {
        "nobody": None,
        "reader": hub.add_user("steer", "hf_" + "r" * 34, role="read"),
        "stranger": hub.add_user("other", "hf_" + "s" * 34),
        "wrong": "hf_" + "w" * 34,
    }[who]
    author = Author(hub, tmp_path, token)
    if who == "stranger":
        hub.upload(DATA, "dataset", {"README.md": b"# Data\n"})

    process = author.run("--yes")

    assert process.returncode == 2
    assert process.stderr.count("Error: ") == 1
    assert "To mend it: " in process.stderr
    assert [each for each in writes(hub) if "/commit/" in each or "create" in each] == []
    words = {"nobody": "logged in", "reader": "can only read", "stranger": "may not write", "wrong": "token"}
    assert words[who] in process.stderr
    assert str(token) not in process.stderr


@pytest.mark.parametrize("stage", ["refused", "cut"])
def test_a_model_repo_that_is_refused_after_the_data_went_is_finished_by_running_again(author, hub, stage):
    author.published_before()
    old = hub.head(TO)
    (author.place.data / "notes.md").write_text("More.\n")
    commit = r"^/api/models/.*/commit/"
    if stage == "refused":
        hub.refuse("POST", commit, 403, "Storage quota exceeded")
    else:
        hub.cut("POST", commit, times=None)

    process = author.run("--yes")

    assert process.returncode == 2
    assert "Error: " in process.stderr
    assert hub.head(TO) == old
    data = hub.head(DATA, "dataset")
    hub.undisturbed()
    author.publish()
    assert hub.head(DATA, "dataset") == data
    assert pin_of(author.plain()) == DataPin(DATA, str(data))
    assert len(hub.commits(TO)) == 3


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_what_somebody_pushed_in_between_is_not_overwritten(author, hub, kind):
    author.published_before()
    (author.place.data / "notes.md").write_text("More.\n")
    repo = DATA if kind == "dataset" else TO

    def push(_request: object) -> None:
        hub.upload(repo, kind, {"theirs.txt": b"mine"}, message="In between")

    hub.before("POST", rf"^/api/{kind}s/.*/commit/", push)

    process = author.run("--yes")

    assert process.returncode == 2
    assert f"somebody pushed to the {kind} repo {repo}" in process.stderr
    assert "steer-eval diff" in process.stderr
    assert hub.commits(repo, kind)[0].title == "In between"
    author.publish()
    assert "theirs.txt" in author.plain(kind)


def test_what_comes_back_damaged_is_named_and_not_tagged(author, hub):
    author.published_before()
    vector = "vectors/tiny_L1_caa.safetensors"
    (author.place.data / "notes.md").write_text("More.\n")
    hub.after("POST", r"^/api/models/.*/commit/", lambda _request: hub.corrupt(TO, "model", vector))

    process = author.run("--yes", "--json", "--tag", "v1")

    assert process.returncode == 1
    found = document(process)
    assert f"{TO}/{vector}" in {
        each["file"] for each in found["verification"]["findings"] if each["rule"] == "checksum"
    }
    assert hub.head(TO, "model", "v1") is None


def test_what_was_pushed_since_a_folder_was_pulled_is_reported(author, hub, tmp_path):
    author.published_before()
    pulled = tmp_path / "persona"
    publish = ["publish", pulled, "--to", TO, "--yes", "--json"]
    notes = tmp_path / "persona-data" / "notes.md"
    [pull] = in_one_process(author.env, ["pull", TO, "--to", tmp_path])
    assert pull.code == 0, pull.stderr
    notes.write_text("More.\n")
    [first] = in_one_process(author.env, publish)
    hub.upload(TO, "model", {"theirs.txt": b"mine"}, message="In between")
    head = hub.head(TO)
    notes.write_text("Still more.\n")
    second, request, again, third = in_one_process(
        author.env, publish, [*publish[:-1], "--create-pr", "--json"], ["pull", TO, "--to", tmp_path], publish
    )

    assert first.code == 0, first.stderr
    assert second.code == 1
    [behind] = [each for each in json.loads(second.stdout)["findings"] if each["rule"] == "publish-behind"]
    assert (behind["severity"], behind["file"], behind["observed"]) == ("error", TO, head)
    # In a request somebody looks at it.
    assert request.code == 0, request.stderr
    assert "publish-behind" in request.stdout
    assert (again.code, third.code) == (0, 0), again.stderr + third.stderr
    assert author.plain()["theirs.txt"] == b"mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--to", "no-namespace"],
        ["--to", "a/b/c"],
        ["--to", TO, "--data-to", "-x/.."],
        ["--to", TO, "--create-pr", "--tag", "v1"],
        ["--to", TO, "--license", "mit"],
        [],
    ],
)
def test_bad_usage_is_refused(tmp_path, arguments):
    from click.testing import CliRunner

    from steer_eval.cli.main import cli

    place = studies.build(tmp_path)

    result = CliRunner().invoke(cli, ["publish", str(place.model), *arguments])

    assert result.exit_code == 2
    assert result.stdout == ""
