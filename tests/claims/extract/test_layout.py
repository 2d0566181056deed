"""Where each character of a text that can claim stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.claims.extract.cell_places import cells_of
from steer_eval.claims.extract.layout import fenced_blocks, lay_out

TEXT = """---
license: mit
revision: 7
---
# Title 1

A paragraph with 2
lines and a list:
- item 3
  1. item 4
> quoted 5
> - [x] and 6

## Deeper

| a | b |
|---|---|
| 7 | 8 |

```python
x = 9  # comment 10
```

<!-- hidden 11
```
still hidden 12 -->

```bibtex
year = {13} # 14
```
"""


def test_parts_have_their_kind_and_heading() -> None:
    shown = [(part.kind, part.text.strip(), part.heading) for part in lay_out(TEXT).parts]

    assert shown == [
        ("heading", "Title 1", "Title 1"),
        ("paragraph", "A paragraph with 2 lines and a list:", "Title 1"),
        ("paragraph", "item 3", "Title 1"),
        ("paragraph", "item 4 quoted 5", "Title 1\nitem 3"),
        ("paragraph", "and 6", "Title 1"),
        ("heading", "Deeper", "Title 1\nDeeper"),
        ("comment", "comment 10", "Title 1\nDeeper"),
    ]


def test_a_table_has_its_heading_the_words_before_it_and_its_lines() -> None:
    [placed] = lay_out(TEXT).tables

    assert placed.heading == "Title 1\nDeeper"
    assert placed.before == "Deeper"
    assert placed.lines == [16, 18]
    assert [[cell.text for cell in row] for row in placed.rows] == [["a", "b"], ["7", "8"]]


def test_front_matter_comments_and_citations_hold_nothing() -> None:
    words = " ".join(part.text for part in lay_out(TEXT).parts)

    assert not {"7", "9", "11", "12", "13", "14"} & set(words.split())


def test_a_lone_carriage_return_ends_no_line() -> None:
    layout = lay_out("a 1\rb\n\n| h |\n|---|\n| 2 |\n")

    assert layout.tables[0].lines == [3, 5]
    assert layout.parts[0].lines == (1,)


def test_headings_close_those_of_their_level_and_below() -> None:
    layout = lay_out("# A\n## B\n### C\nx\n## D\ny\n")

    assert [part.heading for part in layout.parts if part.kind == "paragraph"] == ["A\nB\nC", "A\nD"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\na\n```", [range(1, 4)]),
        ("````\n```\n````\nb", [range(1, 4)]),
        ("~~~py\n```\n~~~", [range(1, 4)]),
        ("```\nopen", [range(1, 3)]),
        ("``` code ``` 1", []),
        ("> ```\n> a\n> ```", [range(1, 4)]),
    ],
)
def test_fences(text: str, expected: list[range]) -> None:
    assert [lines for lines, _ in fenced_blocks(text.split("\n"))] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("| a | b |", ["a", "b"]),
        ("a | b", ["a", "b"]),
        ("|a||b|", ["a", "", "b"]),
        (r"| a \| b | c |", [r"a \| b", "c"]),
        ("> | a | b |", ["a", "b"]),
        ("- | a | b |", ["a", "b"]),
        ("  | a | **b** |  ", ["a", "**b**"]),
    ],
)
def test_cells(line: str, expected: list[str]) -> None:
    cells = cells_of(line)

    assert [cell.text for cell in cells] == expected
    assert all(line[cell.start : cell.start + len(cell.text)] == cell.text for cell in cells)


MARKDOWN = st.lists(
    st.sampled_from(
        [
            "# 1",
            "a 2 b",
            "> c 3",
            "- 4 d",
            "1. e",
            "| f | 5 |",
            "|---|---|",
            "```",
            "~~~",
            "<!--",
            "-->",
            "",
            "  ",
            "\t6",
            "---",
            "x\r",
        ]
    ),
    max_size=25,
).map("\n".join)


@given(MARKDOWN)
def test_every_character_of_a_part_stands_where_it_says(text: str) -> None:
    lines = text.split("\n")
    layout = lay_out(text)
    for part in layout.parts:
        for index, character in enumerate(part.text):
            line, start, end = part.span(index, 1)
            # Lines of a part are joined by a blank.
            assert lines[line - 1][start:end] == character or (character == " " and start == end)
    taken = [line for part in layout.parts for line in set(part.lines)]
    taken += [line for placed in layout.tables for line in placed.lines]
    assert len(taken) == len(set(taken))
