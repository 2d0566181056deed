from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.run import JOURNAL, Journal, opened_run

RECORDS = st.dictionaries(
    st.text("abcdef0123456789", min_size=1, max_size=6),
    st.fixed_dictionaries({"gen": st.text(st.characters(codec="utf-8"), max_size=8), "n": st.integers(0, 99)}),
    min_size=1,
    max_size=4,
)


def filled(path: Path, records: dict[str, dict[str, object]]) -> Path:
    journal = Journal(path)
    for key, record in records.items():
        journal.add(key, record)
    journal.close()
    return path


@settings(max_examples=25, deadline=None)
@given(RECORDS)
def test_a_journal_is_read_as_it_was_written(records):
    with TemporaryDirectory() as folder:
        journal = Journal(filled(Path(folder) / JOURNAL, records))

        assert len(journal) == len(records)
        assert {key: journal[key] for key in records} == records
        assert "absent" not in journal


def test_a_journal_torn_at_any_byte_keeps_every_whole_line(tmp_path):
    records = {"a": {"gen": "Grüße\u2028", "n": 1}, "b": {"gen": "", "n": 2}, "c": {"gen": "{}", "n": 3}}
    content = filled(tmp_path / "whole", records).read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]

    for size in range(len(content) + 1):
        path = tmp_path / "torn"
        path.write_bytes(content[:size])
        journal = Journal(path)
        whole = sum(end <= size for end in ends)

        assert {key: journal[key] for key in list(records)[:whole]} == dict(list(records.items())[:whole])
        assert len(journal) == whole
        # What is added next stands on a line of its own.
        journal.add("next", {"gen": "x", "n": 0})
        journal.close()
        assert len(Journal(path)) == whole + 1
        assert all(json.loads(line)["key"] for line in path.read_text(encoding="utf-8").split("\n")[:-1])


@settings(max_examples=25, deadline=None)
@given(RECORDS, st.binary(max_size=30).filter(lambda tail: b"\n" not in tail))
def test_any_torn_tail_is_cut_off(records, tail):
    with TemporaryDirectory() as folder:
        path = filled(Path(folder) / JOURNAL, records)
        content = path.read_bytes()
        path.write_bytes(content + tail)

        assert len(Journal(path)) == len(records)
        assert path.read_bytes() == content


def test_what_is_added_is_on_disk_at_once(tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    journal.add("a", {"n": 1})

    assert "a" in Journal(tmp_path / JOURNAL)
    journal.close()


def test_the_last_record_of_a_key_counts(tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    journal.add("a", {"path": None})
    journal.add("a", {"path": "serial"})
    journal.close()

    assert Journal(tmp_path / JOURNAL)["a"] == {"path": "serial"}


@pytest.mark.parametrize(
    ("line", "where"),
    [
        (b"{}", "line 2"),
        (b"[]", "line 2"),
        (b"null", "line 2"),
        (b'{"key": ["a"]}', "line 2"),
        (b'{"key": "x", "n": NaN}', "line 2"),
        (b"", "line 2"),
        (b'{"key": "x"', "line 2"),
        (b'{"key": "\xff"}', "byte"),
    ],
)
def test_a_bad_line_in_the_middle_is_named(tmp_path, line, where):
    path = filled(tmp_path / JOURNAL, {"a": {"n": 1}})
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes())

    with pytest.raises(FormatError) as caught:
        Journal(path)

    assert caught.value.file == str(path)
    assert caught.value.where.startswith(where)


def test_a_run_keeps_the_study_and_its_measurements(tmp_path):
    for number in range(2):
        with opened_run(tmp_path / "runs" / "one", "name: study\n") as journal:
            assert len(journal) == number
            journal.add(str(number), {"n": number})

    assert (tmp_path / "runs" / "one" / "study.yaml").read_text() == "name: study\n"


def test_an_error_inside_a_run_releases_it(tmp_path):
    def interrupted() -> None:
        with opened_run(tmp_path / "run", "") as journal:
            journal.add("a", {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    with opened_run(tmp_path / "run", "") as journal:
        assert "a" in journal


SECOND = """
import sys
from pathlib import Path
from steer_eval.errors import SteerEvalError
from steer_eval.run import opened_run
try:
    with opened_run(Path(sys.argv[1]), "other"):
        sys.exit(0)
except SteerEvalError as error:
    print(error.message, error.fix)
    sys.exit(2)
"""


def test_a_second_process_is_refused_and_changes_nothing(tmp_path):
    command = [sys.executable, "-c", SECOND, str(tmp_path)]
    with opened_run(tmp_path, "first"):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (tmp_path / "study.yaml").read_text() == "first"
    after = subprocess.run(command, capture_output=True, text=True, check=False)

    assert second.returncode == 2, second.stderr
    assert f"another process works in {tmp_path}" in second.stdout
    assert "--run" in second.stdout
    assert after.returncode == 0, after.stderr


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(SteerEvalError, match="can't be written") as caught, opened_run(tmp_path / "file", ""):
        pass

    assert "--run" in caught.value.fix
