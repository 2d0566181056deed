"""Temporary folders of publications: gone afterwards, also those of killed ones, and never those in use."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from steer_eval.publish.scratch import scratch_folder

# Holds a folder, with a file in it, until it is killed.
HOLDER = """
from steer_eval.publish.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "staged.txt").write_text("x")
    print(folder, flush=True)
    input()
"""


def test_what_killed_publications_left_goes_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the library documents as the place for temporary files of this process; other processes read TMPDIR.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "other").mkdir()
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            held = Path(holder.stdout.readline().rstrip("\n"))
            with scratch_folder():
                assert held.parent == tmp_path
                assert (held / "staged.txt").is_file()
        finally:
            holder.kill()
    assert (held / "staged.txt").is_file()

    with scratch_folder() as first, scratch_folder() as second:
        assert not held.exists()
        assert first.is_dir()
        assert second.is_dir()
        assert first != second

    assert [path.name for path in tmp_path.iterdir()] == ["other"]
