from __future__ import annotations

from pathlib import Path

import pytest

from steer_eval.errors import FormatError
from steer_eval.formats.containment import inside, is_inside, links_out


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repo with every kind of link, and a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "repository-two").mkdir()
    (tmp_path / "repository-two" / "file").write_text("of another repo")
    folder = tmp_path / "repository"
    (folder / "deep").mkdir(parents=True)
    (folder / "file").write_text("x")
    links = {
        "to-file": "file",
        "deep/up": "../file",
        "absolute": folder / "file",
        "to-folder": "deep",
        "to-nothing": "not-there",
        "around": "around",
        "out": "../secret",
        "deep/out": tmp_path / "secret",
        "out-and-back": "../repository/file",
        "chain": "out",
        "folder-out": "..",
        "name-that-starts-alike": "../repository-two/file",
        "out-to-nothing": "../not-there",
        "etc": "/etc/hostname",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return folder


LEAVING = ["chain", "deep/out", "etc", "folder-out", "name-that-starts-alike", "out", "out-to-nothing"]
STAYING = ["to-file", "deep/up", "absolute", "to-folder", "to-folder/up", "to-nothing", "around", "out-and-back"]


@pytest.mark.parametrize("path", [*STAYING, "file", "absent", "deep/absent/file"])
def test_paths_that_stay_are_given_back(repo: Path, path: str) -> None:
    assert inside(repo, path) == repo / path


@pytest.mark.parametrize("path", [*LEAVING, "folder-out/secret", "to-folder/out", "../secret", "/etc/hostname"])
def test_paths_that_leave_are_refused_by_name(repo: Path, path: str) -> None:
    with pytest.raises(FormatError, match="leaves the repo") as caught:
        inside(repo, path, name=f"lab/repo/{path}")

    assert caught.value.file == f"lab/repo/{path}"
    # A path that needs no link to leave is not blamed on one.
    assert ("symbolic link" in caught.value.message) == (not path.startswith(("..", "/")))
    assert ("link" in caught.value.fix) == (not path.startswith(("..", "/")))


def test_the_links_that_leave_are_listed(repo: Path) -> None:
    assert list(links_out(repo)) == LEAVING


def test_a_repo_may_itself_be_reached_through_a_link(repo: Path) -> None:
    (repo.parent / "link").symlink_to(repo)

    assert is_inside(repo.parent / "link", "deep/up")
    assert not is_inside(repo.parent / "link", "out")
    assert list(links_out(repo.parent / "link")) == LEAVING


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A repo in the Hub's cache: links to the repo's blobs, one of which the cache shares between repos."""
    repo = tmp_path / "hub" / "models--lab--persona"
    folder = repo / "snapshots" / "0123abcd"
    for directory in (folder / "vectors", repo / "blobs", tmp_path / "hub" / "blobs" / "ab"):
        directory.mkdir(parents=True)
    (repo / "blobs" / "one").write_text("1")
    (tmp_path / "hub" / "blobs" / "ab" / "abcd").write_text("2")
    (repo / "blobs" / "two").symlink_to("../../blobs/ab/abcd")
    (folder / "README.md").symlink_to("../../blobs/one")
    (folder / "vectors" / "v").symlink_to("../../../blobs/two")
    (folder / "token").symlink_to("../../../token")
    (folder / "other").symlink_to("../../../models--lab--other/blobs/one")
    (tmp_path / "hub" / "token").write_text("hf_")
    return folder


def test_links_to_the_blobs_of_the_hubs_cache_stay(snapshot: Path) -> None:
    assert inside(snapshot, "README.md").read_text() == "1"
    assert inside(snapshot, "vectors/v").read_text() == "2"
    assert list(links_out(snapshot)) == ["other", "token"]


def test_blobs_of_what_is_no_cache_are_outside(tmp_path: Path, snapshot: Path) -> None:
    (tmp_path / "hub" / "models--lab--persona").rename(tmp_path / "hub" / "persona")

    assert not is_inside(tmp_path / "hub" / "persona" / "snapshots" / "0123abcd", "README.md")
