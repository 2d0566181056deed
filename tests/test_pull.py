"""Bringing studies from the Hub, and what a pull never does: write over somebody's changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from commands import Answer, in_one_process
from hub_fixtures import cli_command, run_cli
from hub_server import HubServer
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import OnDisk, build, claim

from steer_eval.formats import schema
from steer_eval.hub.address import HubAddress
from steer_eval.pull import OWN, _apply, _replace, _what_to_do, plan, read_origin
from steer_eval.repository import Repository

MODEL, DATA = "lab/persona", "lab/persona-data"


@dataclass(frozen=True)
class Work:
    """A study on the Hub, and a folder to pull it into."""

    hub: HubServer
    source: OnDisk
    home: Path
    to: Path

    @property
    def here(self) -> OnDisk:
        return OnDisk(self.to / "persona", self.to / "persona-data")

    def pulls(self, *options: tuple[str, ...]) -> list[Answer]:
        environment = self.hub.environment(self.home)
        return in_one_process(environment, *(("pull", MODEL, "--to", self.to, *each) for each in options))


@pytest.fixture
def work(hub: HubServer, tmp_path: Path) -> Work:
    source = build(tmp_path / "source", claims=[claim("perplexity_ratio", "1.50", identity="ratio", layer=1, coef=2)])
    hub.upload(DATA, "dataset", source.data)
    pin = {"data": DATA, "data_revision": hub.head(DATA, "dataset")}
    config = json.loads((source.model / "config.json").read_text(encoding="utf-8"))
    (source.model / "config.json").write_text(json.dumps({**config, **pin}), encoding="utf-8")
    hub.upload(MODEL, "model", source.model)
    return Work(hub, source, tmp_path / "home", tmp_path / "here")


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the tool's own."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(OWN)}


def pulled(answer: Answer) -> list[dict[str, Any]]:
    assert answer.code == 0, answer.stderr
    document = json.loads(answer.stdout)
    schema.check(document, "pull", file="standard output")
    repos: list[dict[str, Any]] = document["repos"]
    return repos


def downloads(hub: HubServer) -> list[str]:
    return [request.path for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]


def test_both_repos_come_side_by_side_at_the_pinned_commit(work: Work) -> None:
    hub = work.hub
    pinned, model = hub.head(DATA, "dataset"), hub.head(MODEL)
    hub.upload(DATA, "dataset", {"later.jsonl": b"{}\n"})
    answer = run_cli("pull", MODEL, "--to", work.to, "--json", env=hub.environment(work.home))
    repos = pulled(Answer(answer.returncode, answer.stdout, answer.stderr))

    assert [(each["repo"], each["kind"], each["revision"]) for each in repos] == [
        (MODEL, "model", model),
        (DATA, "dataset", pinned),
    ]
    assert content(work.here.model) == hub.files(MODEL)
    assert content(work.here.data) == hub.files(DATA, "dataset", str(pinned))
    assert not any(path.is_symlink() for path in work.to.rglob("*"))
    # They are a study on this disk like any other.
    work.here.seal()
    assert run_cli("validate", work.here.model, env=hub.environment(work.home)).returncode == 0
    assert sorted(path.name for path in work.to.iterdir()) == ["persona", "persona-data"]


def test_a_second_pull_fetches_and_writes_nothing(work: Work) -> None:
    first, second = work.pulls(("--json",), ("--json",))
    times = {path: path.stat().st_mtime_ns for path in work.here.model.rglob("*.safetensors")}
    count = len(downloads(work.hub))
    [third] = work.pulls(("--json",))

    assert sum(len(each["written"]) for each in pulled(first)) == sum(each["unchanged"] for each in pulled(second))
    assert [each["written"] for each in (*pulled(second), *pulled(third))] == [[]] * 4
    assert len(downloads(work.hub)) == count
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_new_revision_changes_only_what_changed(work: Work) -> None:
    work.pulls(())
    (work.here.model / "mine.txt").write_text("mine", encoding="utf-8")
    (work.here.model / "README.md").unlink()
    work.hub.upload(MODEL, "model", {"study.yaml": b"# new\n" + (work.source.model / "study.yaml").read_bytes()})
    [answer] = work.pulls(("--json",))
    model, data = pulled(answer)

    assert model["written"] == ["README.md", "study.yaml"]
    assert data["written"] == []
    assert content(work.here.model) == {**work.hub.files(MODEL), "mine.txt": b"mine"}


def test_changes_here_are_kept_and_clashes_are_refused_as_a_whole(work: Work) -> None:
    work.pulls(())
    study, prompts = work.here.model / "study.yaml", work.here.data / "eval_prompts.jsonl"
    study.write_text(study.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    prompts.write_text("", encoding="utf-8")
    work.hub.upload(MODEL, "model", {"README.md": b"# theirs\n"})
    [kept] = work.pulls(("--json",))
    model, data = pulled(kept)

    assert model["written"] == ["README.md"]
    assert (model["kept"], data["kept"]) == (["study.yaml"], ["eval_prompts.jsonl"])
    assert study.read_text(encoding="utf-8").endswith("# mine\n")

    changed = b"# theirs\n" + (work.source.model / "study.yaml").read_bytes()
    work.hub.upload(MODEL, "model", {"study.yaml": changed, "README.md": b"# theirs again\n"})
    before = content(work.here.model), content(work.here.data), read_origin(work.here.model)
    [refused] = work.pulls(())
    assert refused.code == 2
    assert f"1 file changed here, and the Hub has others: {study}" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert (content(work.here.model), content(work.here.data), read_origin(work.here.model)) == before

    [overwritten] = work.pulls(("--overwrite", "--json"))
    model, data = pulled(overwritten)
    assert model["written"] == ["README.md", "study.yaml"]
    assert content(work.here.model) == work.hub.files(MODEL)
    # What the Hub did not change is not written over, even so.
    assert data["kept"] == ["eval_prompts.jsonl"]


def test_a_folder_that_was_never_pulled_is_not_written_over(work: Work) -> None:
    shutil.copytree(work.source.model, work.here.model)
    (work.here.model / "README.md").write_text("mine", encoding="utf-8")
    [answer] = work.pulls(())

    assert answer.code == 2
    assert "README.md" in answer.stderr
    assert not work.here.data.exists()
    assert not (work.here.model / OWN).exists()


def test_a_pull_that_was_killed_goes_on(work: Work) -> None:
    work.hub.delay("GET", "/resolve/", 0.3)
    environment = work.hub.environment(work.home)
    process = subprocess.Popen(cli_command("pull", MODEL, "--to", work.to), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(downloads(work.hub)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not work.to.exists(), "nothing is written before all is here"
    work.hub.undisturbed()
    [answer] = work.pulls(("--json",))

    pulled(answer)
    assert content(work.here.model) == work.hub.files(MODEL)


def test_a_damaged_file_is_named_and_nothing_is_written(work: Work) -> None:
    work.hub.corrupt(MODEL, "model", "vectors/tiny_L1_caa.safetensors")
    [answer] = work.pulls(())

    assert answer.code == 2
    assert "vectors/tiny_L1_caa.safetensors" in answer.stderr
    assert not work.to.exists()


def test_a_dataset_repo_and_a_tag(work: Work) -> None:
    environment = work.hub.environment(work.home)
    dataset, folder = in_one_process(
        environment,
        ("pull", f"hf://datasets/{DATA}@{work.hub.head(DATA, 'dataset')}", "--to", work.to, "--json"),
        ("pull", str(work.source.model)),
    )

    assert [each["kind"] for each in pulled(dataset)] == ["dataset"]
    assert content(work.here.data) == work.hub.files(DATA, "dataset")
    assert folder.code == 2
    assert "is a folder here" in folder.stderr


def test_pulled_folders_differ_from_their_repos_only_by_what_changed(work: Work) -> None:
    [same] = work.pulls(())
    assert same.code == 0
    work.here.edit_line("sweep_tiny.jsonl", 3, lambda row: row.update(ppl=row["ppl"] + 1))
    environment = work.hub.environment(work.home)
    before = work.hub.head(MODEL)
    work.hub.upload(MODEL, "model", {"notes.txt": b"new"})
    [revisions, changed] = in_one_process(
        environment,
        ("diff", f"{MODEL}@{before}", MODEL, "--json"),
        ("diff", f"{MODEL}@{before}", str(work.here.model), "--json"),
    )
    assert revisions.code == changed.code == 1, revisions.stderr + changed.stderr

    document = json.loads(revisions.stdout)
    assert [(each["change"], each["path"]) for each in document["artifacts"]] == [("added", {"new": "notes.txt"})]
    assert (document["old"]["revision"], document["new"]["revision"]) == (before, work.hub.head(MODEL))
    assert document["old"]["data"]["revision"] == work.hub.head(DATA, "dataset")
    [artifact] = json.loads(changed.stdout)["artifacts"]
    assert [row["line"] for row in artifact["rows"]] == [{"old": 3, "new": 3}]


@pytest.mark.parametrize(
    ("there", "known", "here", "word"),
    [
        ("a", None, "a", "unchanged"),
        ("a", "b", "a", "unchanged"),
        (None, "b", "nothing", "unchanged"),
        ("a", None, "nothing", "write"),
        ("a", "b", "b", "write"),
        ("a", "a", "nothing", "write"),
        (None, "b", "b", "remove"),
        ("a", "a", "c", "kept"),
        ("a", "b", "c", "clash"),
        ("a", None, "c", "clash"),
        (None, "b", "c", "clash"),
        ("a", None, "another thing", "clash"),
    ],
)
def test_what_becomes_of_a_file(there: str | None, known: str | None, here: str, word: str) -> None:
    assert _what_to_do(there, known, here) == word


def test_a_file_that_the_hub_dropped_goes_and_one_that_was_changed_clashes(tmp_path: Path) -> None:
    source, folder = tmp_path / "snapshot", tmp_path / "folder"
    for place in (source, folder):
        place.mkdir()
        (place / "a.txt").write_text("a", encoding="utf-8")
    (folder / OWN).mkdir(parents=True)
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    record = {
        "schema": "steer-eval/pulled/1",
        "repo": "lab/x",
        "kind": "model",
        "revision": "b" * 40,
        "files": {"a.txt": digest, "gone.txt": digest, "dropped.txt": digest},
    }
    (folder / OWN / "steer-eval.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "dropped.txt").write_text("a", encoding="utf-8")
    (folder / "gone.txt").write_text("changed", encoding="utf-8")
    repo = Repository("lab/x", source, "c" * 40, HubAddress("lab/x", "model", "c" * 40))
    found = plan(repo, folder)

    assert (found.remove, found.clash, found.unchanged) == (("dropped.txt",), ("gone.txt",), ("a.txt",))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.permutations(["old", "new", "mine", "both"]))
def test_cut_short_anywhere_and_run_again_it_is_the_commit(stop: int, names: list[str]) -> None:
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        source, folder = Path(place, "snapshot"), Path(place, "folder")
        source.mkdir()
        first, second = (
            Repository("lab/x", source, each * 40, HubAddress("lab/x", "model", each * 40)) for each in "ab"
        )
        for name in names:
            (source / name).write_text("1", encoding="utf-8")
        _apply(plan(first, folder))
        (folder / "mine").write_text("mine", encoding="utf-8")
        (source / "old").unlink()
        for name in ("new", "both", "more"):
            (source / name).write_text("2", encoding="utf-8")
        count = 0

        def failing(*arguments: Path) -> None:
            nonlocal count
            count += 1
            if count > stop:
                raise KeyboardInterrupt
            _replace(*arguments)

        patch.setattr("steer_eval.pull._replace", failing)
        with suppress(KeyboardInterrupt):
            _apply(plan(second, folder))
        patch.undo()
        again = plan(second, folder)
        _apply(again)

        assert again.clash == ()
        assert content(folder) == {**content(source), "mine": b"mine"}
        assert plan(second, folder).write == plan(second, folder).remove == ()


def test_a_link_out_of_the_folder_is_not_written_through(work: Work, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    work.here.model.mkdir(parents=True)
    (work.here.model / "vectors").symlink_to(outside)
    [answer] = work.pulls(("--overwrite",))

    assert answer.code == 2
    assert "symbolic link" in answer.stderr
    assert list(outside.iterdir()) == []
