"""`steer-eval publish` as people run it: a process of its own, against a Hub with real repositories."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import legacy
import pytest
import studies
from commands import in_one_process
from hub_fixtures import cli_command, run_cli
from hub_server import HubServer
from publish_staging import staged

from steer_eval.formats import schema
from steer_eval.formats.pin import DataPin, data_pin

READS = {"GET", "HEAD"}
TO = "steer/persona"
DATA = f"{TO}-data"


class Author:
    """Somebody with a study, a token and a cache."""

    def __init__(self, hub: HubServer, folder: Path, token: str | None = "") -> None:
        self.hub = hub
        self.place = studies.build(
            folder / "own", claims=[studies.claim("perplexity_ratio", "1.25", layer=1, coef=1, label="steered")]
        )
        self.env = hub.environment(folder / "home", token)

    def run(self, *arguments: str | Path, folder: Path | None = None, **env: str) -> CompletedProcess[str]:
        return run_cli("publish", folder or self.place.model, "--to", TO, *arguments, env={**self.env, **env})

    def publish(self, *arguments: str | Path, folder: Path | None = None) -> dict[str, Any]:
        """Publish, which must succeed, and give what the JSON says."""
        process = self.run("--yes", "--json", *arguments, folder=folder)
        assert process.returncode == 0, process.stderr
        return document(process)

    def published_before(self) -> None:
        """Put the study on the Hub as a publication leaves it, without running one."""
        made = staged(self.place.model.parent / "before", self.place.model, to=TO)
        made.pin(self.hub.upload(DATA, "dataset", made.data.folder))
        self.hub.upload(TO, "model", made.model.folder)

    def plain(self, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        files = self.hub.files(TO if kind == "model" else DATA, kind, revision)
        return {path: content for path, content in files.items() if path != ".gitattributes"}


def document(process: CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(process.stdout)
    schema.check(found, "publish", file="x")
    return found


def actions(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {repo["kind"]: {each["path"]: each["action"] for each in repo["changes"]} for repo in found["repos"]}


def writes(hub: HubServer) -> list[str]:
    return [f"{request.method} {request.path}" for request in hub.requests if request.method not in READS]


def pin_of(files: dict[str, bytes]) -> DataPin | None:
    return data_pin(json.loads(files["config.json"]))


@pytest.fixture
def author(hub: HubServer, tmp_path: Path) -> Author:
    return Author(hub, tmp_path)


def test_from_an_empty_hub_to_a_second_version(author, hub, tmp_path):
    # A plan writes nothing.
    planned = document(author.run("--dry-run", "--json", "--tag", "v1"))
    assert planned["outcome"] == "planned"
    assert writes(hub) == []
    assert hub.head(DATA, "dataset") is None

    # The first version: one commit in each repo, and the model's pins the data's.
    first = author.publish("--tag", "v1", "--collection", "Anger")
    assert first["outcome"] == "published"
    assert actions(first) == actions(planned)
    heads = {"dataset": hub.head(DATA, "dataset"), "model": hub.head(TO)}
    assert {repo["kind"]: repo["commit"] for repo in first["repos"]} == heads
    assert len(hub.commits(TO)) == len(hub.commits(DATA, "dataset")) == 2
    assert pin_of(author.plain()) == DataPin(DATA, str(heads["dataset"]))
    assert [each for each in first["verification"]["findings"] if each["severity"] == "error"] == []
    assert (hub.head(TO, "model", "v1"), hub.head(DATA, "dataset", "v1")) == (heads["model"], heads["dataset"])
    [collection] = hub.collections.values()
    assert (collection["title"], len(collection["items"]), first["collection"]) == ("Anger", 2, collection["slug"])
    card = author.plain()["README.md"].decode()
    assert "model-index:" in card
    assert f"steer-eval reproduce {TO}" in card

    # Unchanged content: no commit, and nothing written at all.
    before = len(writes(hub))
    again = author.publish("--tag", "v1")
    assert again["outcome"] == "unchanged"
    assert len(writes(hub)) == before
    assert {repo["commit"] for repo in again["repos"]} == {*heads.values()}

    # A second version, beside what somebody else put there; its tag can't be that of the first.
    hub.upload(DATA, "dataset", {"thanks.txt": b"Nice work."}, message="A note")
    (author.place.data / "notes.md").write_text("More.\n")
    (author.place.model / "study.yaml").write_text(
        (author.place.model / "study.yaml").read_text().replace("A synthetic study.", "Another one.")
    )
    refused = author.run("--yes", "--json", "--tag", "v1")
    assert refused.returncode == 1
    assert {each["rule"] for each in document(refused)["findings"] if each["severity"] == "error"} == {"publish-tag"}
    second = author.publish("--tag", "v2")
    of_data = actions(second)["dataset"]
    assert (of_data["notes.md"], of_data["thanks.txt"], of_data["sweep_tiny.jsonl"]) == ("added", "kept", "unchanged")
    assert hub.head(TO, "model", "v1") == heads["model"]
    assert pin_of(author.plain()) == DataPin(DATA, str(hub.head(DATA, "dataset")))

    # A third without that file: it is deleted, because it was published from here; the other one stays.
    (author.place.data / "notes.md").unlink()
    third = author.publish("--collection", collection["slug"])
    assert third["collection"] == collection["slug"]
    assert len(collection["items"]) == 2
    assert actions(third)["dataset"]["notes.md"] == "deleted"
    assert author.plain("dataset").keys() >= {"thanks.txt"}
    assert "notes.md" not in author.plain("dataset")


def test_people_see_the_difference_and_nobody_pushes_without_being_asked(author, hub):
    process = author.run()

    assert process.returncode == 2
    assert writes(hub) == []
    assert re.search(r"^dataset steer/persona-data \(new\)$", process.stdout, re.MULTILINE)
    assert re.search(r"^  \+ sweep_tiny\.jsonl +[0-9.]+ kB$", process.stdout, re.MULTILINE)
    assert "give --yes" in process.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are of POSIX")
def test_on_a_terminal_it_asks(author, hub):
    """No is an answer too."""
    import pty

    ours, theirs = pty.openpty()
    command = cli_command("publish", author.place.model, "--to", TO)
    process = subprocess.Popen(
        command, env=author.env, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.write(ours, b"n\n")
    stdout, stderr = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)

    assert process.returncode == 2
    assert f"Push to {DATA} and {TO}? [y/N]" in stderr
    assert "Nothing was pushed." in stderr
    assert "Push to" not in stdout
    assert writes(hub) == []


def test_legacy_files_on_the_hub_are_replaced_by_what_they_became(author, hub, tmp_path):
    old = legacy.build(tmp_path / "old")
    hub.upload(TO, "model", old.model)
    hub.upload(DATA, "dataset", old.data)

    found = author.publish("--data", old.data, folder=old.model)

    changes = actions(found)["model"]
    assert changes["vectors/fox_small_L2_caa.pt"] == "deleted"
    assert changes["vectors/fox_small_L2_caa.safetensors"] == "added"
    assert not [path for path in author.plain() if path.endswith(".pt")]
    assert len(hub.commits(TO)) == 3
    assert pin_of(author.plain()) == DataPin(DATA, str(hub.head(DATA, "dataset")))
    assert author.publish("--data", old.data, folder=old.model)["outcome"] == "unchanged"


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


def test_pull_requests_pin_each_other_and_are_not_made_twice(author, hub):
    author.published_before()
    heads = hub.head(TO), hub.head(DATA, "dataset")
    (author.place.data / "notes.md").write_text("More.\n")

    found = author.publish("--create-pr")

    assert found["outcome"] == "proposed"
    assert (hub.head(TO), hub.head(DATA, "dataset")) == heads
    requested = hub.head(DATA, "dataset", "refs/pr/1")
    assert pin_of(author.plain(revision="refs/pr/1")) == DataPin(DATA, str(requested))
    assert [repo["pull_request"].rpartition("/")[2] for repo in found["repos"]] == ["1", "1"]
    message = hub.commits(TO, "model", "refs/pr/1")[0].message
    assert f"{DATA} at {requested}" in message
    assert "merge that one first" in message
    again = author.publish("--create-pr")
    assert [repo["commit"] for repo in again["repos"]] == [repo["commit"] for repo in found["repos"]]
    assert hub.head(DATA, "dataset", "refs/pr/2") is None


def test_new_repos_can_be_private_and_stay_what_they_are(author, hub):
    author.publish("--private")

    assert hub.repository(TO).private
    assert hub.repository(DATA, "dataset").private
    # Visibility is no content.
    assert author.publish()["outcome"] == "unchanged"
    hub.set_private(TO, private=False)
    refused = author.run("--private", "--yes", "--json")
    assert refused.returncode == 1
    assert [each["rule"] for each in document(refused)["findings"] if each["severity"] == "error"] == [
        "publish-visibility"
    ]


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


def test_trusted_publishing_asks_for_a_token_for_each_repo(author, hub):
    author.published_before()
    (author.place.data / "notes.md").write_text("More.\n")
    for resource in (TO, f"datasets/{DATA}"):
        hub.trust(resource, "job")
    env = {key: value for key, value in author.env.items() if key != "HF_TOKEN"}
    author.env = {**env, "HF_OIDC_RESOURCE": TO, "HF_OIDC_ID_TOKEN": "job"}

    assert author.publish("--tag", "v1")["outcome"] == "published"
    assert hub.head(TO, "model", "v1") == hub.head(TO)


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


def test_what_is_on_the_hub_can_be_published_again_from_a_plain_copy(author, hub, tmp_path):
    """What another person downloads is the same study: publishing it elsewhere needs nothing but the two folders."""
    author.published_before()
    for kind, name in (("model", "model"), ("dataset", "data")):
        for path, content in author.plain(kind).items():
            place = tmp_path / "copy" / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    shutil.rmtree(author.place.model.parent)

    again = author.publish("--data", tmp_path / "copy" / "data", folder=tmp_path / "copy" / "model")

    assert again["outcome"] == "unchanged"
