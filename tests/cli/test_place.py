from __future__ import annotations

from pathlib import Path

import pytest

from steer_eval.cli.place import checkout_root, line_number, path_in_checkout


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("line 7", 7),
        ("line 12: ppl_ratio", 12),
        ("", None),
        ("line 0", None),
        ("claims[3].select", None),
        ("line7", None),
        ("lines 3", None),
        ("line 3rd", None),
        ("__metadata__.line 3", None),
    ],
)
def test_a_place_names_a_line_or_none(where: str, line: int | None) -> None:
    assert line_number(where) == line


def test_the_root_is_the_runners_workspace_or_the_repo_or_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "repo" / "studies" / "one"
    folder.mkdir(parents=True)
    (tmp_path / "repo" / ".git").mkdir()

    assert checkout_root(folder, None) == tmp_path / "repo"
    assert checkout_root(folder, str(tmp_path)) == tmp_path
    assert checkout_root(folder, str(tmp_path / "elsewhere")) == tmp_path / "repo"
    assert checkout_root(tmp_path, None) in (tmp_path, *tmp_path.parents)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("one/study.yaml", "studies/one/study.yaml"),
        ("./study.yaml", "studies/study.yaml"),
        ("one/vectors/", "studies/one/vectors"),
        ("../one-data/x.jsonl", "one-data/x.jsonl"),
        ("../../aside/x.jsonl", "/checkouts/aside/x.jsonl"),
        ("/checkouts/repo/one/x", "one/x"),
        ("/checkouts/repository/x", "/checkouts/repository/x"),
    ],
)
def test_files_are_named_from_the_root(file: str, named: str) -> None:
    assert path_in_checkout(file, Path("/checkouts/repo/studies"), Path("/checkouts/repo")) == named
