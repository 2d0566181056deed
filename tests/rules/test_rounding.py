from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.rules.rounding import agrees_with_difference, agrees_with_quotient, half_place

PERPLEXITIES = st.floats(1.5, 3000)
DECIMALS = st.sampled_from([2, 3, 4, None])


def as_printed(value: float, decimals: int | None) -> float:
    return value if decimals is None else round(value, decimals)


@pytest.mark.parametrize(
    ("value", "half"),
    [(1.25, 0.005), (-1.25, 0.005), (1.2345, 0.00005), (1.5, 0.005), (3, 0.005), (1.23456, 0), (1e-07, 0)],
)
def test_up_to_four_decimals_are_a_rounding(value, half):
    assert half_place(value) == pytest.approx(half, rel=1e-6)


@given(PERPLEXITIES, PERPLEXITIES, DECIMALS, DECIMALS, DECIMALS)
def test_no_rounding_breaks_a_quotient(ppl, base, of_ppl, of_base, of_ratio):
    ratio = as_printed(ppl / base, of_ratio)
    if ratio > 0:
        assert agrees_with_quotient(ratio, as_printed(ppl, of_ppl), as_printed(base, of_base))


@given(PERPLEXITIES, PERPLEXITIES, st.floats(1e-4, 0.5), st.booleans())
def test_what_no_rounding_explains_breaks_a_quotient(ppl, base, off, up):
    """All numbers have all their digits."""
    wrong = ppl / base * (1 + off if up else 1 / (1 + off))
    if half_place(wrong) == half_place(ppl) == half_place(base) == 0:
        assert not agrees_with_quotient(wrong, ppl, base)


@given(st.floats(0, 50), st.floats(0, 50), DECIMALS)
def test_no_rounding_breaks_a_difference(first, second, decimals):
    parts = (first - second, first, second)
    assert agrees_with_difference(*(as_printed(part, decimals) for part in parts))


@given(st.floats(0, 50), st.floats(0, 50), st.floats(1e-3, 5))
def test_what_no_rounding_explains_breaks_a_difference(first, second, off):
    wrong = first - second + off
    if half_place(wrong) == half_place(first) == half_place(second) == 0:
        assert not agrees_with_difference(wrong, first, second)
