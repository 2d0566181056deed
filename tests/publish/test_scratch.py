"""Temporary folders of publications: gone afterwards, also those of killed ones, and never those in use."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from steer_eval.publish.scratch import scratch_folder


def test_what_killed_publications_left_goes_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "steer-eval-publish-0"
    left.mkdir()
    (left / "staged.txt").write_text("x")
    (tmp_path / "steer-eval-publish-0.lock").touch()
    (tmp_path / "other").mkdir()

    with scratch_folder() as first, scratch_folder() as second:
        assert not left.exists()
        assert first.is_dir()
        assert second.is_dir()
        assert first != second

    assert [path.name for path in tmp_path.iterdir()] == ["other"]
