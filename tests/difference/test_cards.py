"""Numbers of cards, each compared with the one in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.claims.extract.numbers import find_numbers
from steer_eval.difference import cards
from steer_eval.difference.cards import number_changes
from steer_eval.difference.changes import ABSENT

OLD = """# A study of 2 models

| layer | coef | ratio |
|---|---|---|
| 14 | +2 | 1.75 |
| 18 | +2 | 2.10 |

The vector of layer 18 has norm 18.884.
"""


def said(old: str, new: str) -> list[tuple[object, object, object, object]]:
    def shown(value: object) -> object:
        return None if value is ABSENT else value

    return [
        (shown(each.lines.old), shown(each.lines.new), shown(each.numbers.old), shown(each.numbers.new))
        for each in number_changes("model", old, new)
    ]


def test_a_number_in_a_sentence_and_one_in_a_table() -> None:
    new = OLD.replace("18.884", "18.9").replace("2.10", "2.11")

    assert said(OLD, new) == [(6, 6, "2.10", "2.11"), (8, 8, "18.884", "18.9")]


def test_a_row_in_between_moves_no_number() -> None:
    new = OLD.replace("| 18 |", "| 16 | +2 | 1.9 |\n| 18 |")

    assert said(OLD, new) == [(None, 6, None, "16"), (None, 6, None, "+2"), (None, 6, None, "1.9")]


def test_other_words_are_other_places() -> None:
    assert said("Layer 3 is best.\n", "Block 3 is best.\n") == [(1, None, "3", None), (None, 1, None, "3")]


def test_a_first_cell_that_is_a_sentence_is_compared() -> None:
    old = "| claim | line |\n|---|---|\n| The vector of layer 18 has norm 18.884. | 7 |\n"

    assert said(old, old.replace("18.884", "18.9")) == [(3, 3, "18.884", "18.9")]


LINES = st.lists(st.sampled_from(["", "a", "x 1 y 2", "x 3 y 4", "| 1 | 5 |", "| 1 | 6 |", "| 2 | 5 |"]), max_size=12)


@given(LINES, LINES, st.sampled_from([0, 20_000]))
def test_every_number_is_accounted_for_once(old: list[str], new: list[str], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "MAX_LINES", most)
        found = list(number_changes("model", "\n".join(old), "\n".join(new)))

    def count(lines: list[str]) -> int:
        return sum(len(find_numbers(line)) for line in lines)

    only_old = sum(each.numbers.new is ABSENT for each in found)
    only_new = sum(each.numbers.old is ABSENT for each in found)
    assert count(old) - only_old == count(new) - only_new
    assert all(not each.numbers.same for each in found)
    if old == new:
        assert found == []


def test_a_long_text_of_equal_lines_is_compared_in_one_pass() -> None:
    old = "value: 1\nvalue: 2 here\n" * 11_000

    assert len(list(number_changes("model", old, old.replace("2 here", "3 here")))) == 11_000
