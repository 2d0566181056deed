from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.claims.printed import Printed
from steer_eval.errors import SteerEvalError

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, st.integers(0, 12))
def test_a_number_is_covered_by_its_own_printed_form(number, decimals):
    text = f"{number:.{decimals}f}"

    assert Printed.parse(text).covers(number)
    assert Printed.parse(text).text == text


@given(st.floats(-1e6, 1e6), st.integers(0, 6), st.floats(1.01, 1e6), st.sampled_from([-1, 1]))
def test_a_number_further_off_than_half_a_digit_is_not(number, decimals, factor, sign):
    printed = Printed.parse(f"{number:.{decimals}f}")

    assert not printed.covers(printed.value + sign * factor * 0.5 * 10.0**-decimals)


@given(st.integers(-(10**9), 10**9), st.integers(0, 4))
def test_a_half_is_covered_from_both_sides(units, decimals):
    scale = 10**decimals
    half = (units + 0.5) / scale

    assert Printed.parse(f"{units / scale:.{decimals}f}").covers(half)
    assert Printed.parse(f"{(units + 1) / scale:.{decimals}f}").covers(half)


@given(st.integers(-(10**6), 10**6), st.floats(-2, 2))
def test_about_means_ten_per_cent(number, share):
    printed = Printed.parse(f"~{number}")

    assert printed.approximate
    if abs(abs(share) - 0.1) > 1e-6 and number:
        assert printed.covers(number * (1 + share)) is (abs(share) < 0.1)


@pytest.mark.parametrize(
    ("text", "value", "rounding"),
    [
        ("1.10", 1.10, 0.005),
        ("1.1", 1.1, 0.05),
        ("40", 40.0, 0.5),
        ("-2", -2.0, 0.5),
        ("+0.500", 0.5, 0.0005),
        ("~16", 16.0, 1.6),
        ("~-16.5", -16.5, 1.65),
        ("~0", 0.0, 0.0),
        (" 7 ", 7.0, 0.5),
    ],
)
def test_the_precision_is_part_of_the_value(text, value, rounding):
    printed = Printed.parse(text)

    assert (printed.value, printed.rounding) == (pytest.approx(value), pytest.approx(rounding))
    assert str(printed) == text.strip()


@pytest.mark.parametrize(
    "text", ["", "abc", "1.", ".5", "1e5", "1,000", "1.2.3", "~", "~~1", "0x1", "nan", "inf", "1 2", "١", "−1", "1%"]
)
def test_what_is_no_printed_number_is_refused(text):
    with pytest.raises(SteerEvalError, match="no printed number"):
        Printed.parse(text)


@given(st.text(max_size=8))
def test_any_text_is_a_number_or_refused(text):
    try:
        printed = Printed.parse(text)
    except SteerEvalError:
        return
    assert math.isfinite(printed.value)
    assert printed.covers(printed.value)


@pytest.mark.parametrize("observed", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["1.1", "~1"])
def test_no_printed_number_covers_what_is_not_finite(text, observed):
    assert not Printed.parse(text).covers(observed)
