from __future__ import annotations

import hashlib
import json

import pytest
from studies import build

from steer_eval.formats import schema
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.manifest import FILE, check_manifest, repo_files, write_manifest


@pytest.fixture
def repo(tmp_path):
    folder = tmp_path / "repo"
    (folder / "vectors").mkdir(parents=True)
    (folder / "README.md").write_text("card\n")
    (folder / "vectors" / "a_L1_caa.safetensors").write_bytes(b"\0\1\2")
    (folder / ".gitattributes").write_text("* text\n")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    write_manifest(folder)
    return folder


def test_an_untouched_folder_agrees_with_its_manifest(repo):
    assert check_manifest(repo) == []


def test_the_manifest_says_what_hashlib_says(repo):
    entries = {entry["path"]: entry for entry in json.loads((repo / FILE).read_text())["files"]}

    assert list(entries) == ["README.md", "vectors/a_L1_caa.safetensors"]
    assert entries["vectors/a_L1_caa.safetensors"] == {
        "path": "vectors/a_L1_caa.safetensors",
        "sha256": hashlib.sha256(b"\0\1\2").hexdigest(),
        "size": 3,
        "kind": "vector",
    }


def test_writing_it_again_changes_nothing(repo):
    before = (repo / FILE).read_bytes()
    write_manifest(repo)

    assert (repo / FILE).read_bytes() == before


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "rule", "severity", "file"),
    [
        (
            lambda repo: _flip(repo / "vectors/a_L1_caa.safetensors"),
            "checksum",
            "error",
            "vectors/a_L1_caa.safetensors",
        ),
        (lambda repo: (repo / "README.md").unlink(), "file-absent", "warning", "README.md"),
        (lambda repo: (repo / "vectors/new.txt").write_text(""), "file-unlisted", "warning", "vectors/new.txt"),
        (lambda repo: (repo / FILE).unlink(), "manifest-unusable", "warning", FILE),
        (lambda repo: (repo / FILE).write_text("{}"), "manifest-unusable", "error", FILE),
        (lambda repo: (repo / FILE).write_bytes(b"\xff"), "manifest-unusable", "error", FILE),
    ],
    ids=["changed byte", "missing file", "extra file", "no manifest", "empty manifest", "manifest is no text"],
)
def test_a_difference_names_the_file(repo, change, rule, severity, file):
    change(repo)

    [finding] = check_manifest(repo, prefix="lab/repo/")

    assert (finding.rule, finding.severity, finding.file) == (rule, severity, f"lab/repo/{file}")


def edited(repo, change):
    document = json.loads((repo / FILE).read_text())
    change(document["files"])
    (repo / FILE).write_text(json.dumps(document))


def test_a_size_that_the_file_does_not_have_is_named(repo):
    edited(repo, lambda files: files[1].update(size=4))

    [finding] = check_manifest(repo, prefix="lab/repo/")
    assert (finding.rule, finding.severity, finding.file) == ("manifest-size", "error", f"lab/repo/{FILE}")
    assert (finding.where, finding.expected, finding.observed) == ("files[1].size", 3, 4)
    assert "vectors/a_L1_caa.safetensors" in finding.message


def test_a_changed_file_is_one_finding_whatever_its_size(repo):
    (repo / "README.md").write_text("another, longer card\n")

    assert [finding.rule for finding in check_manifest(repo)] == ["checksum"]


@pytest.mark.parametrize("change", [{}, {"sha256": "0" * 64, "size": 99}], ids=["same", "other"])
def test_a_path_that_stands_twice_is_refused(repo, change):
    edited(repo, lambda files: files.append({**files[0], **change}))

    [finding] = check_manifest(repo, prefix="lab/repo/")
    assert (finding.rule, finding.severity, finding.file) == ("manifest-duplicate", "error", f"lab/repo/{FILE}")
    assert finding.where == "files[2].path"
    assert "README.md" in finding.message


def test_a_link_out_of_the_repo_is_not_hashed(repo, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (repo / "linked").symlink_to(tmp_path / "secret")
    (repo / "folder").symlink_to(tmp_path)
    (repo / "inside").symlink_to("README.md")
    write_manifest(repo)

    paths = [entry["path"] for entry in json.loads((repo / FILE).read_text())["files"]]
    assert paths == ["README.md", "inside", "vectors/a_L1_caa.safetensors"]
    assert check_manifest(repo) == []


def test_a_manifest_that_is_a_link_out_is_not_read(repo, tmp_path):
    (repo / FILE).rename(tmp_path / FILE)
    (repo / FILE).symlink_to(tmp_path / FILE)

    [finding] = check_manifest(repo)
    assert (finding.rule, finding.severity) == ("manifest-unusable", "error")
    assert "leaves the repo" in finding.message


@pytest.mark.parametrize("name", ["naïve file, (1).txt", "a..b.txt", "x+y=z@2.txt", "文.json", "-.txt"])
def test_every_name_that_a_file_can_have_can_be_listed(repo, name):
    (repo / name).write_text("x")
    write_manifest(repo)

    assert check_manifest(repo) == []
    assert name in list(repo_files(repo))


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "a/..", ".", "a\\b", "a\nb", ""])
def test_paths_that_leave_the_repo_are_refused(repo, path):
    document = json.loads((repo / FILE).read_text())
    document["files"][0]["path"] = path
    (repo / FILE).write_text(json.dumps(document))

    [finding] = check_manifest(repo)

    assert (finding.rule, finding.where) == ("manifest-unusable", "files[0].path")


def test_kinds_of_a_whole_study(tmp_path):
    place = build(tmp_path)

    kinds = {path: kind_of(path) for path in (*repo_files(place.model), *repo_files(place.data))}

    assert set(kinds.values()) == {
        *("study", "card", "config", "figure", "vector"),
        *("contrast_pairs", "eval_prompts", "perplexity_corpus", "sweep", "environment"),
    }
    allowed = schema.load_schema("manifest")["properties"]["files"]["items"]["properties"]["kind"]["enum"]
    assert set(kinds.values()) <= set(allowed)
    assert kind_of("nested/README.md") == "other"
