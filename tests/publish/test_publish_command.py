"""`steer-eval publish` as people run it, from an empty Hub on: what is pushed, asked, and said."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import legacy
import pytest
from hub_fixtures import cli_command
from publish_author import DATA, TO, actions, document, pin_of, writes

from steer_eval.formats.pin import DataPin


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


def test_trusted_publishing_asks_for_a_token_for_each_repo(author, hub):
    author.published_before()
    (author.place.data / "notes.md").write_text("More.\n")
    for resource in (TO, f"datasets/{DATA}"):
        hub.trust(resource, "job")
    env = {key: value for key, value in author.env.items() if key != "HF_TOKEN"}
    author.env = {**env, "HF_OIDC_RESOURCE": TO, "HF_OIDC_ID_TOKEN": "job"}

    assert author.publish("--tag", "v1")["outcome"] == "published"
    assert hub.head(TO, "model", "v1") == hub.head(TO)


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
