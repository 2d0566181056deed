"""A value, its null's bound and its p-value: all that a test can give passes, and what none can give is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.rules.transfer_diagnostics import _of_test
from steer_eval.transfer.nulls import LEVEL, beside_null

VALUES = st.floats(-1, 1, allow_nan=False).map(lambda value: round(value, 3))


def shown(value: float, null: list[float]) -> dict[str, Any]:
    """As diagnostics are written, with six decimals."""
    found = beside_null(value, null).to_json()
    return {key: each if key == "draws" else round(each, 6) for key, each in found.items()}


@given(VALUES, st.lists(VALUES, min_size=1, max_size=250))
def test_whatever_a_test_gives_is_in_order(value: float, null: list[float]) -> None:
    assert list(_of_test(shown(value, null), "x")) == []


@given(VALUES, st.lists(VALUES, min_size=1, max_size=250))
def test_a_bound_between_two_draws_is_in_order(value: float, null: list[float]) -> None:
    """As older files have it."""
    test = {**shown(value, null), "null_95": round(float(np.quantile(null, 1 - LEVEL)), 6)}

    assert list(_of_test(test, "x")) == []


@given(VALUES, st.lists(VALUES, min_size=19, max_size=60, unique=True))
def test_the_opposite_p_value_is_not(value: float, null: list[float]) -> None:
    test = shown(value, null)
    if abs(test["value"] - test["null_95"]) > 1e-3:
        above = test["value"] > test["null_95"]
        opposite = {**test, "p": 1.0 if above else round(1 / (len(null) + 1), 6)}
        assert [where for where, *_ in _of_test(opposite, "x")] == ["x.p"]


@pytest.mark.parametrize("p", [0.0251, 0.0], ids=["between two counts", "none"])
def test_a_p_value_is_a_count_of_draws(p: float) -> None:
    test = {**shown(2.0, [0.0] * 39), "p": p}

    assert [where for where, *_ in _of_test(test, "x")] == ["x.p"]
