from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.errors import FormatError
from steer_eval.formats.text import read_text


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_text_is_read_with_its_line_ends(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "text"
    path.write_bytes(text.encode())

    assert read_text(path, "x", limit=1000) == text


def test_the_limit_is_the_last_size_that_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b"a" * 10)

    assert read_text(tmp_path / "x", "x", limit=10) == "a" * 10
    with pytest.raises(FormatError, match="has 10 bytes, more than the 9"):
        read_text(tmp_path / "x", "x", limit=9)


@pytest.mark.parametrize(
    ("place", "where", "message"),
    [
        ("absent", "", "absent"),
        (".", "", "can't be read"),
        ("file/below", "", "can't be read"),
        ("x" * 300, "", "can't be read"),
        ("round", "", "can't be read"),
        ("latin", "byte 2", "not UTF-8"),
    ],
)
def test_what_is_no_text_file_is_named(tmp_path, place, where, message):
    (tmp_path / "file").write_text("{}")
    (tmp_path / "latin").write_bytes(b"ab\xff")
    (tmp_path / "round").symlink_to("round")

    with pytest.raises(FormatError, match=message) as caught:
        read_text(tmp_path / place, "repo/x.txt", limit=2**20)

    assert (caught.value.file, caught.value.where) == ("repo/x.txt", where)
