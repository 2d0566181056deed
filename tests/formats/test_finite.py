from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from steer_eval.errors import FormatError, NotFiniteError, SteerEvalError
from steer_eval.formats.finite import check_finite

PIECE = 2**22


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32)))
def test_the_first_value_that_is_no_number_is_named(values):
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return check_finite(values, name="x.pt", where="W")
    index = tuple(bad[0])
    with pytest.raises(NotFiniteError) as caught:
        check_finite(values, name="x.pt", where="W")

    assert caught.value.file == "x.pt"
    assert caught.value.where == f"W[{', '.join(map(str, index))}]"
    assert caught.value.observed == str(values[index])
    return None


@pytest.mark.parametrize("index", [0, PIECE - 1, PIECE, PIECE + 2])
def test_a_large_array_is_looked_at_to_its_end(index):
    values = np.zeros((PIECE + 3,), np.float16)
    check_finite(values, name="x.pt", where="W")
    values[index] = np.inf

    with pytest.raises(NotFiniteError, match=rf"W\[{index}\]: the value is not finite"):
        check_finite(values, name="x.pt", where="W")


@pytest.mark.parametrize("values", [np.zeros((0, 3), np.float32), np.arange(4), np.array([True])], ids=repr)
def test_what_can_not_be_infinite_is_finite(values):
    check_finite(values, name="x.pt", where="W")


def test_no_number_is_a_format_error_with_a_fix():
    with pytest.raises(SteerEvalError, match=r"^v/x.pt: vector\[1\]: ") as caught:
        check_finite(np.array([0, -np.inf], np.float32), name="v/x.pt", where="vector")

    assert isinstance(caught.value, FormatError)
    assert caught.value.observed == "-inf"
    assert "again" in caught.value.fix
