"""A conversion is there wholly or not at all, and never in the place of somebody's work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pt_files
import pytest
from conversion.converting import MANIFEST, converted, differences
from convertible import listing

from steer_eval.convert_plan import plan_conversion
from steer_eval.errors import SteerEvalError


def test_an_interruption_leaves_nothing(repo: Path, out: Path) -> None:
    seen = []

    def stop(_: int) -> None:
        seen.append(sorted(path.name for path in repo.parent.iterdir()))
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted(repo, out, on_file=stop)

    assert all(len(names) == 2 and "safe" not in names for names in seen)
    assert [path.name for path in repo.parent.iterdir()] == ["persona"]


def test_an_interruption_leaves_the_old_one(repo: Path, out: Path) -> None:
    converted(repo, out)
    before = listing(out)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted(repo, out, force=True, on_file=stop)

    assert listing(out) == before
    assert sorted(path.name for path in repo.parent.iterdir()) == ["persona", "safe"]


def test_a_folder_that_is_there_is_replaced_only_if_asked_to(repo: Path, out: Path) -> None:
    converted(repo, out)
    pt_files.saved(repo / "vectors/tiny_L6_caa.pt", pt_files.caa(layer=6, seed=9))
    with pytest.raises(SteerEvalError, match="is there already"):
        converted(repo, out)
    stale = differences(plan_conversion(repo), out)

    plan = converted(repo, out, force=True)
    assert {file for file, _ in stale} == {"vectors/tiny_L6_caa.safetensors"}
    assert differences(plan, out) == []
    assert sorted(path.name for path in repo.parent.iterdir()) == ["persona", "safe"]


def edit(path: str) -> Callable[[Path], object]:
    return lambda out: (out / path).write_text("mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("README.md"), "README.md was changed since"),
        (edit("notes.txt"), "holds notes.txt"),
        (edit(".env"), r"holds \.env"),
        (edit(MANIFEST), "not made by a conversion"),
        (lambda out: (out / MANIFEST).unlink(), "not made by a conversion"),
        (lambda out: (out / MANIFEST).write_text('{"schema": "steer-eval/manifest/1"}'), "not made by a conversion"),
    ],
    ids=["edited", "added", "hidden", "broken manifest", "no manifest", "empty manifest"],
)
def test_work_of_others_is_never_replaced(
    repo: Path, out: Path, change: Callable[[Path], object], message: str
) -> None:
    converted(repo, out)
    change(out)
    before = listing(out)

    with pytest.raises(SteerEvalError, match=message):
        converted(repo, out, force=True)
    assert listing(out) == before


def test_a_study_with_a_manifest_of_its_own_is_never_replaced(repo: Path, packaged_study: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for path, content in listing(packaged_study).items():
        (study / path).parent.mkdir(parents=True, exist_ok=True)
        (study / path).write_bytes(content)

    with pytest.raises(SteerEvalError, match="which this conversion would not write"):
        converted(repo, study, force=True)
    assert listing(study) == listing(packaged_study)


def test_an_empty_folder_can_be_replaced(repo: Path, out: Path) -> None:
    out.mkdir()

    assert differences(converted(repo, out, force=True), out) == []


@pytest.mark.parametrize("inner", ["", "/safe", "/..", "/vectors/../safe"])
def test_neither_repo_may_lie_in_the_other(repo: Path, inner: str) -> None:
    with pytest.raises(SteerEvalError, match="lie in one another"):
        converted(repo, Path(f"{repo}{inner}"), force=True)


def test_a_link_or_a_file_is_no_folder(repo: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    out.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").write_text("x")

    for place in (out, tmp_path / "file"):
        with pytest.raises(SteerEvalError, match="is no folder"):
            converted(repo, place, force=True)


def test_a_place_that_cannot_be_written_is_an_error(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(SteerEvalError, match="can't be written"):
        converted(repo, tmp_path / "file" / "safe")
