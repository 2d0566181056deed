"""Whatever a repo holds in place of its files, it is a finding and no crash, and none of it runs."""

from __future__ import annotations

import legacy_edits as edits
import pytest
from pt_files import call, program, text, write_archive

from steer_eval.repository import open_target
from steer_eval.validate import validate


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{", b"PK\x03\x04", b"[1, 2]", b"\x80\x04."])
def test_garbage_in_every_file_is_a_finding_each_and_no_crash(place, content):
    files = [path for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()]
    for path in files:
        path.write_bytes(content)
    found = place.findings()

    named = {file for _, _, file, _ in found}
    # A card may be any text.
    unread = {str(path.relative_to(place.model.parent)) for path in files if path.suffix in (".pt", ".json", ".jsonl")}
    assert unread <= named


def test_what_is_no_file_is_no_crash(place):
    """A link to nothing, a link in a circle, a link to a device, a folder with the name of a file."""
    (place.data / "sweep_fox_small.jsonl").unlink()
    (place.data / "sweep_fox_small.jsonl").mkdir()
    (place.model / "vectors" / "loop.pt").symlink_to("loop.pt")
    (place.model / "vectors" / "gone.pt").symlink_to("absent.pt")
    (place.data / "judge_owl_fifo.jsonl").symlink_to("/dev/null")
    found = place.findings()

    assert ("error", "symlink", "data/judge_owl_fifo.jsonl", "") in found
    assert ("warning", "card-file-absent", "data/README.md", "line 8") in found


def test_a_huge_file_is_refused_by_its_size(tmp_path):
    (tmp_path / "huge").mkdir()
    with (tmp_path / "huge" / "vector_L1_caa.pt").open("wb") as file:
        file.truncate(5 * 2**30)
    [finding] = [each for each in validate(open_target(str(tmp_path / "huge"))).findings if each.severity == "error"]

    assert finding.rule == "file-refused"
    assert "bytes, more than the" in finding.message


def test_a_pickle_that_runs_a_command_does_not_run_it(place, tmp_path):
    written = tmp_path / "ran"
    write_archive(place.path(edits.LARGE_2), program(call("os.system", text(f"touch {written}"))))
    [finding] = [each for each in place.validation().findings if each.severity == "error"]

    assert (finding.rule, "os.system" in finding.message) == ("file-refused", True)
    assert not written.exists()
