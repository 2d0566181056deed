from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.digest import git_blob_file, sha256_file
from steer_eval.formats.manifest import write_manifest
from steer_eval.publish.plan import compared, plan_repo
from steer_eval.publish.remote import Remote, RemoteFile
from steer_eval.publish.stage import StagedRepo

HEAD, OTHER = "a" * 40, "b" * 40


def made(folder: Path, files: dict[str, bytes], converted: tuple[str, ...] = ()) -> StagedRepo:
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text)
    write_manifest(folder)
    return StagedRepo("lab/x", "model", "x", folder, frozenset(converted))


def remote_of(folder: Path, large: set[str] | None = None, **more: object) -> Remote:
    """What the Hub lists for a folder; large files are kept outside of git."""
    files = {}
    for place in (path for path in folder.rglob("*") if path.is_file()):
        path = place.relative_to(folder).as_posix()
        lfs = path in (large or set())
        blob = "f" * 40 if lfs else git_blob_file(place)
        files[path] = RemoteFile(place.stat().st_size, sha256_file(place) if lfs else None, blob)
    return Remote(HEAD, files={**files, ".gitattributes": RemoteFile(5, None, "0" * 40)}, **more)  # type: ignore[arg-type]


NAMES = st.sampled_from(["README.md", "a.json", "b/c.json", "d.txt", ".eval_results/e.yaml"])
FILES = st.dictionaries(NAMES, st.binary(max_size=3), max_size=5)


@settings(max_examples=80, deadline=None)
@given(here=FILES, there=FILES, large=st.sets(NAMES), listed=st.sets(NAMES), converted=st.sets(NAMES))
def test_a_plan_says_of_every_file_what_the_bytes_say(tmp_path_factory, here, there, large, listed, converted):
    folder = tmp_path_factory.mktemp("plan")
    staged = made(folder / "here", here, tuple(converted))
    made(folder / "there", there)
    (folder / "there" / "manifest.json").unlink()
    remote = remote_of(folder / "there", large, listed=frozenset(listed))

    changes = {change.path: change for change in compared(staged, remote)}

    assert changes.keys() == {*here, *there, "manifest.json", ".gitattributes"}
    assert list(changes) == sorted(changes)
    for path in {*here, *there}:
        if path not in here:
            expected = "deleted" if path in listed | converted else "kept"
        elif path not in there:
            expected = "added"
        else:
            expected = "unchanged" if here[path] == there[path] else "changed"
        assert changes[path].action == expected
        assert changes[path].was == (len(there[path]) if path in there else None)
        assert changes[path].size == (None if expected == "deleted" else len(here.get(path, there.get(path, b""))))
    assert changes["manifest.json"].action == "added"
    assert changes[".gitattributes"].action == "kept"


def test_a_file_of_others_is_deleted_only_where_it_is_asked_for(tmp_path):
    staged = made(tmp_path / "here", {"README.md": b"x"})
    made(tmp_path / "there", {"README.md": b"x", "old/a.pt": b"1", "old/b.pt": b"2"})

    def actions(*delete: str) -> dict[str, str]:
        return {each.path: each.action for each in compared(staged, remote_of(tmp_path / "there"), delete)}

    assert (actions()["old/a.pt"], actions()["old/b.pt"]) == ("kept", "kept")
    assert (actions("old/a*")["old/a.pt"], actions("old/a*")["old/b.pt"]) == ("deleted", "kept")
    assert actions("*")[".gitattributes"] == "kept"
    assert actions("*")["README.md"] == "unchanged"


def test_an_equal_folder_changes_nothing(tmp_path):
    staged = made(tmp_path / "here", {"README.md": b"x", "v.safetensors": b"123"})
    plan = plan_repo(staged, remote_of(tmp_path / "here", {"v.safetensors"}))

    assert not plan.changes_files
    assert not plan.needs_tag
    assert plan.findings == ()


def test_a_repo_that_is_not_there_is_new(tmp_path):
    plan = plan_repo(made(tmp_path, {"README.md": b"x"}), Remote(), private=True)

    assert plan.is_new
    assert plan.changes_files
    assert [change.action for change in plan.changes] == ["added", "added"]
    assert plan.to_json()["private"] is True


@pytest.mark.parametrize(
    ("same", "tagged", "refused", "needed"),
    [
        (True, None, False, True),
        (True, HEAD, False, False),
        (True, OTHER, True, True),
        (False, None, False, True),
        (False, HEAD, True, True),
        (False, OTHER, True, True),
    ],
)
def test_a_tag_never_moves(tmp_path, same, tagged, refused, needed):
    staged = made(tmp_path / "here", {"README.md": b"x"})
    remote = remote_of(tmp_path / "here")
    (tmp_path / "here" / "README.md").write_bytes(b"x" if same else b"y")
    write_manifest(tmp_path / "here")
    tags = {} if tagged is None else {"v1": tagged}

    plan = plan_repo(staged, replace(remote, tags=tags), tag="v1")

    assert [finding.rule for finding in plan.findings] == ["publish-tag"] * refused
    assert plan.needs_tag == needed


def test_a_public_repo_does_not_become_private(tmp_path):
    staged = made(tmp_path / "here", {"README.md": b"x"})
    remote = remote_of(tmp_path / "here")

    assert [each.rule for each in plan_repo(staged, remote, private=True).findings] == ["publish-visibility"]
    assert plan_repo(staged, replace(remote, private=True), private=True).findings == ()
    assert plan_repo(staged, replace(remote, private=True)).findings == ()
