"""What can't be converted is named, and all else is converted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pt_files
import pytest
import torch
from conversion.converting import MANIFEST, converted, differences, with_vector
from convertible import BECOMES, COPIED, build, listing
from safetensors.torch import load_file

from steer_eval.convert_plan import plan_conversion
from steer_eval.errors import SteerEvalError
from steer_eval.formats.manifest import check_manifest


def refuse(name: str, message: str, change: Callable[[Path], object]) -> Any:
    return pytest.param(change, message, id=name)


HOSTILE = pt_files.program(pt_files.call("os.system", pt_files.text("true")))
REFUSALS = [
    refuse("hostile pickle", "refused", lambda path: pt_files.write_archive(path, HOSTILE)),
    refuse("bare pickle", "", lambda path: path.write_bytes(b"\x80\x02}.")),
    refuse("pointer to the file", "not a PyTorch file", lambda path: path.write_text("version https://git-lfs\n")),
    refuse("empty", "not a PyTorch file", lambda path: path.write_bytes(b"")),
    refuse("of no known kind", "none of the known kinds", lambda path: pt_files.saved(path, {"a": torch.zeros(2)})),
    refuse("a matrix for a vector", "", with_vector(vector=torch.zeros(2, 2))),
    refuse("float64", "", with_vector(vector=torch.zeros(2, dtype=torch.float64))),
    refuse("not a number", "not finite", with_vector(vector=torch.tensor([1.0, float("nan")]))),
    refuse("a tensor too many", "no place", with_vector(spread=torch.zeros(2))),
    refuse("a tensor in a list", "no place", with_vector(steps=[{"a": np.zeros(2)}])),
    refuse("a nested numpy number", "no place", with_vector(steps=[np.float64(0.5)])),
    refuse("a number in an array", "no place", with_vector(spread=np.array(0.5))),
    refuse("too much text", "bytes", with_vector(log="x" * 2**17)),
    refuse("half a character", "surrogate", with_vector(model="\ud800")),
    refuse("too many pairs", "n_pairs", with_vector(n_pairs=10**10)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_a_bad_file_is_named_and_all_others_are_converted(
    repo: Path, out: Path, change: Callable[[Path], object], message: str
) -> None:
    change(repo / "vectors/tiny_L6_caa.pt")
    plan = converted(repo, out)

    [finding] = plan.findings
    assert (finding.rule, finding.severity) == ("convert-refused", "error")
    assert finding.file == "persona/vectors/tiny_L6_caa.pt"
    assert message in f"{finding.where} {finding.message}"
    kept = {target for path, paths in BECOMES.items() if path != "vectors/tiny_L6_caa.pt" for target in paths}
    assert set(listing(out)) == {*kept, *COPIED, MANIFEST}
    assert differences(plan, out) == []
    assert check_manifest(out) == []


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("saes/tiny_L14_sae.pt", {**pt_files.sae(), "d_sae": 13}, "does not fit"),
        ("saes/tiny_L14_sae.pt", {**pt_files.sae(), "layer": -1}, "minimum"),
        ("saes/tiny_L14_sae.pt", {**pt_files.sae(), "optimizer": {"m": torch.zeros(2)}}, "no place"),
        ("saes/tiny_L14_sae.pt", {**pt_files.sae(), "source_file": "x"}, "needs itself"),
        (
            "vectors/transfer_map_large_to_small.pt",
            {**pt_files.transfer_map(), "W": np.zeros((6, 4))},
            "float64",
        ),
        ("vectors/small_transferred_caa.pt", {**pt_files.transferred(), "v_random": torch.zeros(7)}, "width"),
    ],
    ids=["width", "layer", "optimizer", "key of ours", "float64 map", "width of one"],
)
def test_other_kinds_are_refused_as_well(repo: Path, out: Path, path: str, content: Any, message: str) -> None:
    pt_files.saved(repo / path, content)
    plan = converted(repo, out)

    [finding] = plan.findings
    assert (finding.rule, finding.file) == ("convert-refused", f"persona/{path}")
    assert message in finding.message
    assert not any((out / target).exists() for target in BECOMES[path])
    assert not (out / path).exists()
    assert differences(plan, out) == []


def test_links_inside_become_copies_and_others_are_findings(repo: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (repo / "inside.md").symlink_to("README.md")
    (repo / "best.pt").symlink_to("vectors/tiny_L6_caa.pt")
    (repo / "outside").symlink_to(tmp_path / "secret")
    (repo / "folder").symlink_to(tmp_path)
    (repo / "round").symlink_to("saes")
    (repo / "loop").symlink_to("loop")
    (repo / "dangling").symlink_to("nowhere")
    (repo / "token").symlink_to(".git/config")
    os.mkfifo(repo / "pipe")
    (repo / "back\\slash").write_text("x")
    plan = converted(repo, out)

    assert [(finding.rule, finding.file.removeprefix("persona/")) for finding in plan.findings] == [
        ("convert-refused", "back\\slash"),
        ("convert-refused", "dangling"),
        ("symlink", "folder"),
        ("convert-refused", "loop"),
        ("symlink", "outside"),
        ("convert-refused", "pipe"),
        ("convert-refused", "round"),
        ("convert-refused", "token"),
    ]
    assert not (out / "inside.md").is_symlink()
    assert (out / "inside.md").read_bytes() == (repo / "README.md").read_bytes()
    assert load_file(out / "vectors/best.safetensors").keys() == {"vector"}
    assert b"secret" not in b"".join(listing(out).values())
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert check_manifest(out) == []


def test_a_snapshot_in_the_cache_of_the_hub_is_a_repo(tmp_path: Path, out: Path) -> None:
    """All its files are links to blobs beside it."""
    repo = tmp_path / "models--lab--persona/snapshots" / ("0" * 40)
    build(repo)
    blobs = repo.parents[1] / "blobs"
    blobs.mkdir()
    for index, path in enumerate(sorted(BECOMES)):
        (repo / path).rename(blobs / str(index))
        (repo / path).symlink_to(os.path.relpath(blobs / str(index), (repo / path).parent))
    plan = converted(repo, out)

    assert plan.findings == ()
    assert {target for paths in BECOMES.values() for target in paths} <= set(listing(out))


def test_a_repo_without_files_is_no_repo(tmp_path: Path) -> None:
    (tmp_path / "empty/.git").mkdir(parents=True)
    for folder, message in ((tmp_path / "empty", "holds no files"), (tmp_path / "nowhere", "there is no folder")):
        with pytest.raises(SteerEvalError, match=message):
            plan_conversion(folder)
