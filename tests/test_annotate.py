"""A copy of a text with its verdicts is the text with marks, and nothing else."""

from __future__ import annotations

import re

from audited import CONTEXT
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from steer_eval.annotate import MARKS, annotated
from steer_eval.audit import Audit, Evidence
from steer_eval.claims.claim import Selector
from steer_eval.claims.conflicts import Conflicts
from steer_eval.claims.facts import Fact, Facts

CELL = Selector("fox_large", "steered", 5, 1.0)
EVIDENCE = Evidence(
    CONTEXT,
    Facts(
        [
            Fact("perplexity_ratio", CELL, 1.1251, "d/s.jsonl", "line 1"),
            Fact("vector_norm", CELL, 2.0, "m/v.pt", "vector"),
        ]
    ),
    Conflicts({}),
)


def audited(text: str) -> tuple[Audit, str]:
    audit = EVIDENCE.audit(text, "card.md")
    return audit, annotated(text, audit)


def test_each_number_has_its_mark() -> None:
    _, copy = audited(
        "In 3B at L=5 c=+1 the perplexity ratio is 1.13 and the perplexity ratio is **1.2**, with 7 seeds.\n"
    )

    assert copy == (
        "In 3B at L=5 c=+1 the perplexity ratio is 1.13✓ and the perplexity ratio is **1.2✗[^audit-1]**, with "
        "7?[^audit-2] seeds.\n\n\n"
        "[^audit-1]: Line 1: contradicted: perplexity ratio of fox\\_large at L=5 c=+1 is 1.2: "
        "perplexity ratio is 1.1251 (d/s.jsonl, line 1)\n"
        "[^audit-2]: Line 1: not-checkable: … and the perplexity ratio is 1.2, with 7 seeds.: not understood\n"
    )


def test_in_code_there_is_a_mark_and_no_footnote() -> None:
    _, copy = audited("Run `x 7 y` here.\n\n```\na = 1  # 7 times\n```\n")

    assert "`x 7 y`?[^audit-1] here" in copy
    assert "# 7 times?\n```" in copy


def test_marks_in_front_matter_are_comments() -> None:
    text = "---\nmodel-index:\n- name: 3B\n  results:\n  - metrics:\n    - "
    text += "{type: vector_norm, value: 2.0, args: {layer: 5}}\n---\nx\n"
    _, copy = audited(text)

    assert copy == text.replace("}}\n", "}} # ✓\n")


def test_own_footnotes_of_the_text_keep_their_names() -> None:
    _, copy = audited("A claim[^audit-1] and 7 more.\n\n[^audit-1]: a note\n")

    assert "7?[^audited-1]" in copy
    assert copy.count("[^audit-1]") == 2


def test_a_footnote_says_and_does_nothing() -> None:
    _, copy = audited("<b>7</b> [x](javascript:y) `z` | 8\n")
    notes = copy.split("\n\n")[-1]

    html = MarkdownIt("commonmark").render(re.sub(r"^\[\^[^]]*\]: ", "", notes, flags=re.MULTILINE))
    assert not re.search(r"<(?!/?p>)", html)


TEXTS = st.lists(
    st.sampled_from(
        [
            "3B ",
            "L=5 c=+1 ",
            "the perplexity ratio is 1.13 ",
            "7 ",
            "`8 ",
            "` ",
            "\n",
            "\n\n",
            "| 9 ",
            "|---|\n",
            "```\n",
            "# ",
            "---\n",
            "\r\n",
            "  ",
        ]
    ),
    max_size=30,
).map("".join)


@given(TEXTS)
def test_without_marks_and_footnotes_it_is_the_text(text: str) -> None:
    audit, copy = audited(text)
    notes = copy.rfind("\n\n[^audit-1]: ")
    body = copy[:notes] if notes >= 0 else copy
    marks = "".join(re.escape(mark) for mark in MARKS.values())

    assert re.sub(rf"(?: # )?[{marks}](?:\[\^audit-[0-9]+\])?", "", body) == text
    assert all(place.end <= len(text.split("\n")[place.line - 1]) for place in audit.places)
