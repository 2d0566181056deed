"""The table is a function of the rows: known texts give known counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.cells import Cell
from steer_eval.comparison.table import distinct_words, edits_in_words, margins_of, table, texts_changed
from steer_eval.evaluation.perplexity import Interval
from steer_eval.judge.tables import JudgeTable
from steer_eval.results import SweepRow, Text


def texts(*said: str, determined: int | None = None) -> tuple[Text, ...]:
    return tuple(Text(index, "p", gen, determined=determined) for index, gen in enumerate(said))


def row(variant, label="steered", generations=(), ratio=1.2, **more):
    cell = Cell("m", label, 1, 2.0, variant)
    collapsed = ratio > 3
    return SweepRow(cell, 20.0, 20.0 * ratio, ratio, collapsed, generations, Interval(ratio, ratio), **more)


def test_texts_are_compared_with_the_unsteered_ones():
    rows = [
        row("unsteered", "zero", texts("a b", "c d", "e f"), ratio=1.0),
        row("addition", "steered", texts("a b", "c c", "x y")),
        row("addition", "random", texts("a b", "c d", "e f")),
        row("stack", "steered", (), ratio=5.0),
    ]
    lines = {line.method: line for line in table(rows)}

    assert list(lines) == ["unsteered", "addition", "stack"]
    assert lines["unsteered"].steered.changed == 0
    assert lines["addition"].steered.changed == 2
    assert lines["addition"].control is not None
    assert lines["addition"].control.changed == 0
    assert lines["stack"].steered.changed is None
    assert lines["stack"].control is None
    document = lines["stack"].to_json()
    assert (document["collapsed"], document["texts_changed"], document["control"]) == (True, None, None)


def test_a_difference_after_a_near_tie_is_none():
    rows = [row("unsteered", "zero", texts("abcd")), row("patch", "steered", texts("abXY", determined=2))]

    assert table(rows)[1].steered.changed == 0


def test_only_prompts_that_both_have_are_compared():
    unsteered = row("unsteered", "zero", texts("a"))

    assert texts_changed(row("patch", generations=texts("b", "c")), unsteered) == 1
    assert texts_changed(row("patch", generations=texts("b", "c")[1:]), unsteered) is None
    assert texts_changed(row("patch", generations=texts("b")), None) is None


def test_margins_of_a_judge_are_those_of_its_table():
    rows = [row("addition"), row("addition", "random"), row("patch")]
    cell = {"variant": "addition", "layer": 1, "coef": 2.0}
    axes = {"mature_anger": 4.0, "juvenile_rage": 1.5, "coherence": 4.5}
    scored = ({**cell, "label": "steered", **axes}, {**cell, "label": "random", **axes, "margin": 2.4})
    judges = [JudgeTable("owl", "m", "f", (), scored), JudgeTable("owl", "another", "f", (), scored)]

    # One that does not say its margin has that of its axes.
    assert margins_of(judges, rows) == {rows[0].cell: {"owl": 2.5}, rows[1].cell: {"owl": 2.4}}


def test_margins_stand_beside_their_own_cells():
    rows = [row("addition"), row("addition", "random")]
    [line] = table(rows, {rows[1].cell: {"probe": 0.5}})

    assert line.steered.margins == {}
    assert line.control is not None
    assert line.control.margins == {"probe": 0.5}


@pytest.mark.parametrize(
    ("said", "share"),
    [(["One two. One two!"], 0.5), (["a a a a", "a b"], 0.625), (["", "a"], 1.0), (["", "..."], None), ([], None)],
)
def test_the_share_of_distinct_words(said, share):
    assert distinct_words(texts(*said)) == share


@given(st.lists(st.text("ab ", max_size=9), max_size=4))
def test_repeating_a_text_never_raises_the_share(said):
    once, twice = distinct_words(texts(*said)), distinct_words(texts(*(f"{gen} {gen}" for gen in said)))

    assert (once is None) is (twice is None)
    assert once is None or twice == pytest.approx(once / 2)


@pytest.mark.parametrize(
    ("edits", "system", "words"),
    [
        ((), None, "nothing"),
        ((), "Be firm.", "system prompt"),
        (({"kind": "add", "layer": 1, "coefficient": 2.0, "norm": 4.0},), None, "add at L=1, c=+2, norm 4"),
        (
            (
                {"kind": "add", "layer": 1, "coefficient": 2.0, "norm": 4.0},
                {"kind": "add", "layer": 3, "coefficient": 1.0, "norm": 4.5},
            ),
            None,
            "add at L=1, 3, norm 8.5 in all",
        ),
        (({"kind": "clamp", "layer": 1, "features": [1, 2]},), None, "hold 2 features at L=1"),
        (({"kind": "patch", "layer": 1},), None, "patch the prompt at L=1"),
    ],
)
def test_edits_in_words(edits, system, words):
    assert edits_in_words(row("x", edits=edits, system_prompt=system)) == words
