"""A likely cause is named only where it gives exactly the printed number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.claims.causes import likely_cause
from steer_eval.claims.claim import Selector
from steer_eval.claims.extract.numbers import find_numbers
from steer_eval.claims.facts import Fact, Facts
from steer_eval.claims.printed import Printed

CELL = Selector("fox", "steered", 5, 1.0, "owl")


def fact(measure: str, value: float, select: Selector = CELL, where: str = "line 1") -> Fact:
    return Fact(measure, select, value, "d/file.jsonl", where)


@pytest.mark.parametrize(
    ("measure", "printed", "value", "cause"),
    [
        ("margin", "-2.5", 2.5, "the sign turned round gives -2.5"),
        ("perplexity_ratio", "0.80", 1.25, "the ratio taken the wrong way round gives 0.80"),
        ("feature_base_frequency", "0.9333", 93.333, "a share printed as per cent, or taken for one, gives 0.9333"),
        ("perplexity_ratio", "0.131", 1.131, "the change instead of the ratio gives 0.131"),
        ("perplexity_ratio", "1.2792", 1.131, "the ratio taken twice gives 1.2792"),
        ("perplexity", "3.059", 21.31, "the logarithm instead of the number gives 3.059"),
        ("perplexity_ratio", "7.77", 1.131, ""),
        # Slips of another sort of number explain nothing.
        ("margin", "1.5", 2.5, ""),
        ("vector_norm", "1.289", 2.289, ""),
        ("margin", "0.0", 2.5, ""),
    ],
)
def test_slips(measure: str, printed: str, value: float, cause: str) -> None:
    measured = fact(measure, value)

    assert likely_cause(Printed.parse(printed), measured, CELL, Facts([measured])) == cause


def test_another_number_of_the_same_row_comes_first() -> None:
    margin, coherence = fact("margin", 2.5), fact("coherence", 5.0)

    cause = likely_cause(Printed.parse("5.0"), margin, CELL, Facts([margin, coherence]))
    assert cause == "it is the coherence of the same row"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Selector("bear", "steered", 5, 1.0, "owl"), "another model"),
        (Selector("fox", "steered", 9, 1.0, "owl"), "another layer"),
        (Selector("fox", "steered", 5, 2.0, "owl"), "another coefficient"),
        (Selector("fox", "steered", 5, 1.0, "hare"), "another judge"),
    ],
)
def test_the_number_of_something_else(other: Selector, words: str) -> None:
    mine, theirs = fact("margin", 2.5), fact("margin", 3.7, other, "line 8")

    cause = likely_cause(Printed.parse("3.7"), mine, CELL, Facts([mine, theirs]))
    assert cause.startswith(f"it is that of {words}: ")
    assert cause.endswith("(d/file.jsonl, line 8)")


@given(st.floats(allow_nan=False, allow_infinity=False), st.from_regex(r"\A-?[0-9]{1,6}(\.[0-9]{1,4})?\Z"))
def test_any_number_has_a_cause_or_none(value: float, printed: str) -> None:
    measured = fact("margin", value)
    number = find_numbers(printed)[0].printed

    cause = likely_cause(number, measured, CELL, Facts([measured]))
    assert not cause or cause.endswith(f"gives {number.text}")
