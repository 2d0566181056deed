from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.errors import FormatError
from steer_eval.formats.card import code_spans, front_matter, read_card, read_tables

CARD = """---
license: mit
datasets: [lab/data]
---

# Title

| Path | Size |
|---|:--|
| `a.pt` | 10 KB |
| `b{1,2}.pt` and `c.pt` | **~2 MB** |

Not a table:

    | `x` | y |
    |---|---|

| Model | Best cell |
|-------|-----------|
| 2B | L=14 c=+1 |
"""


def test_a_card_has_its_metadata_and_its_tables_with_their_lines():
    card = read_card(CARD, "README.md")

    assert card.metadata == {"license": "mit", "datasets": ["lab/data"]}
    assert card.text == CARD
    first, second = card.tables
    assert first.header == ("Path", "Size")
    assert [(row.line, row.cells) for row in first.rows] == [
        (10, ("`a.pt`", "10 KB")),
        (11, ("`b{1,2}.pt` and `c.pt`", "**~2 MB**")),
    ]
    assert [(row.line, row.cells) for row in second.rows] == [(20, ("2B", "L=14 c=+1"))]
    for row in (*first.rows, *second.rows):
        assert CARD.splitlines()[row.line - 1].startswith(f"| {row.cells[0]} |")


def test_a_column_is_found_by_its_header_in_any_case_and_type():
    [table] = read_tables("| **PATH** | Size |\n|---|---|\n| x | y |\n")

    assert table.column("file", "path") == 0
    assert table.column("size") == 1
    assert table.column("contents") is None


def test_code_spans():
    assert code_spans("`a.pt`, b, `c d`, and `unclosed") == ["a.pt", "c d"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# No front matter\n",
        "---\n",
        "---\nlicense: mit\n",
        "text\n---\na: 1\n---\n",
        "---\n- a\n- b\n---\n",
        "---\n---\n",
    ],
)
def test_without_front_matter_there_is_no_metadata(text):
    assert front_matter(text, "README.md") == {}


def test_front_matter_ends_at_its_line_and_no_rule_in_the_text():
    text = "---  \nlicense: mit\na: x---y\n--- \n\n---\nb: 1\n---\n"

    assert front_matter(text, "README.md") == {"license": "mit", "a": "x---y"}


@pytest.mark.parametrize(
    ("yaml", "line"), [("license: mit\nlicense: mit", 2), ("a: [1", None), ("a: &x [1]\nb: *x", 2), ("a: .nan", 1)]
)
def test_front_matter_that_is_no_strict_yaml_is_refused(yaml, line):
    with pytest.raises(FormatError) as caught:
        read_card(f"---\n{yaml}\n---\n", "repo/README.md")

    assert caught.value.file == "repo/README.md"
    assert line is None or caught.value.where == f"line {line}"


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n| x | y |\n",
        "```\n| a | b |\n|---|---|\n| x | y |\n```\n",
        "<table><tr><td>`a.pt`</td></tr></table>\n",
        "| a | b |\n|---|\n| x | y |\n",
    ],
)
def test_what_is_no_table_is_text(text):
    assert read_tables(text) == ()


def test_rows_have_as_many_cells_as_the_header():
    [table] = read_tables("| a | b |\n|---|---|\n| x |\n| x | y | z |\n")

    assert [row.cells for row in table.rows] == [("x", ""), ("x", "y")]


@settings(max_examples=150, deadline=None)
@given(st.text("-| `:#\n\rab{}*~<>[]()\t\x0c\u2028", max_size=80), st.text("ab:-\n [&*!|>", max_size=30))
def test_any_text_is_a_card_or_is_refused_and_lines_are_those_of_the_file(body, yaml):
    text = f"---\n{yaml}\n---\n{body}" if yaml else body
    try:
        card = read_card(text, "README.md")
    except FormatError:
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    for table in card.tables:
        for row in table.rows:
            assert 1 <= row.line <= lines
            assert len(row.cells) == len(table.header)
