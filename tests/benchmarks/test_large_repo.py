"""The repo that validation is timed on: a small one of the same form is in order, and damage to it is noticed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import validate_vs_sha256sum_and_import as comparison
from large_repo import STUDY, Model, Sizes, build

from steer_eval.formats.manifest import FILE, write_manifest
from steer_eval.inventory import Root, take_inventory
from steer_eval.repository import open_target
from steer_eval.validate import validate

SMALL = Sizes(
    small=Model("small", 16, (6, 10, 14, 18, 22), 64),
    large=Model("large", 32, (6, 10, 14, 18, 22), 128),
    others=(Model("xlarge", 40, (13, 18, 23)),),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(tmp_path / comparison.REPO, SMALL)
    return tmp_path


def test_there_is_nothing_to_find_in_it(folder: Path):
    validation = validate(open_target(str(folder / comparison.REPO)))

    assert {finding.rule for finding in validation.findings} == {"data-absent"}


def test_every_file_is_read_as_what_it_is(folder: Path):
    inventory = take_inventory([Root(folder / comparison.REPO, "", "model")])

    assert all(artifact.value is not None for artifact in inventory.artifacts)
    assert Counter(artifact.kind for artifact in inventory.artifacts) == {
        "vector_pt": 13,
        "transferred_pt": 1,
        "transfer_map_pt": 1,
        "sae_pt": 2,
        "features": 2,
        "card": 1,
    }


def test_equal_seeds_give_equal_files_and_others_do_not(folder: Path):
    def manifest(name: str, seed: int) -> bytes:
        build(folder / name, SMALL, seed=seed)
        return (folder / name / FILE).read_bytes()

    assert manifest("again", 0) == (folder / comparison.REPO / FILE).read_bytes() != manifest("other", 1)


def test_the_parts_are_of_one_study(folder: Path):
    """A map of another seed is a good file by itself, but not the one that the vectors were carried by."""
    build(folder / "other", SMALL, seed=1)
    repo = folder / comparison.REPO
    (folder / "other/vectors/transfer_map_large_to_small.pt").replace(repo / "vectors/transfer_map_large_to_small.pt")
    write_manifest(repo)

    findings = validate(open_target(str(repo))).findings
    assert [finding.where for finding in findings if finding.rule == "transfer-map"] == ["W", "R"]


def test_the_full_size_is_that_of_the_study():
    assert [(model.name, model.width, len(model.layers), model.d_sae) for model in STUDY.models] == [
        ("large", 2048, 5, 8192),
        ("small", 1024, 5, 4096),
        ("xlarge", 2560, 3, None),
    ]


def test_both_sides_tell_a_changed_bit(folder: Path):
    assert comparison.agree(folder)


def test_the_two_sides_do_not_agree_on_a_repo_that_is_out_of_order(folder: Path):
    (folder / comparison.REPO / "README.md").write_text("another card", encoding="utf-8")

    assert not comparison.agree(folder)
