from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval import markdown
from steer_eval.markdown import line, paragraphs, table_cell

TEXTS = st.text("ab|\\\n\r\t `#-", max_size=30)


def cells(row: str) -> list[str]:
    """Cells of a table row as GitHub's Markdown splits them: a backslash escapes the punctuation after it."""
    parts = re.findall(r"(?:\\[|\\`#-]|[^|])+", row)
    # Inside a cell, an escaped character stands for itself.
    return [re.sub(r"\\([|\\])", r"\1", part) for part in parts]


@given(TEXTS)
def test_a_cell_stays_one_cell(text):
    row = f"x {table_cell(text)} y"

    assert "\n" not in row
    assert len(cells(row)) == 1


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a | b", r"a \| b"),
        (r"a \| b", r"a \\\| b"),
        (r"a \ b", r"a \ b"),
        ("a\n\n  b", "a b"),
        ("`x` **y**", "`x` **y**"),
        ("|", r"\|"),
    ],
)
def test_a_cell_is_written_like_this(text, written):
    assert table_cell(text) == written


@given(st.text("ab|\\ ", max_size=20))
def test_pipes_are_read_as_they_were_meant(text):
    assert cells(f"x {table_cell(text)} y")[0].count("|") == text.count("|")


@given(TEXTS)
def test_a_line_is_a_line(text):
    assert line(text).splitlines() in ([], [line(text)])
    assert line(text).split() == text.split()


def test_paragraphs_stay_apart_and_lines_do_not():
    assert paragraphs("\nOne\ntwo.\n \n\nThree\n- four\n---\n") == "One two.\n\nThree - four ---"
    assert paragraphs("") == paragraphs(" \n\n ") == ""


@pytest.mark.parametrize("plain", ["native", "sae_feat_a1.0", "patch procrustes", "L=14 c=+1"])
def test_a_plain_name_stays_as_it_is(plain):
    assert markdown.name(plain) == plain


def test_a_hostile_name_is_nothing_but_text():
    shown = markdown.name("a|b<script>alert(1)</script>[x](http://evil.example)\x1b[31m\n# big \u202e")

    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[<>|\[\]]", shown)


@given(st.text("a`~\n\r\x1b\u202e ", max_size=30))
def test_what_stands_in_a_block_of_code_can_not_end_it(text):
    written = markdown.plain(text)

    assert "\n" not in written
    assert not re.search(r"`{3}|~{3}|[\x00-\x1f\u202e]", written)
