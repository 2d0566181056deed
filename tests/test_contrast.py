from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.contrast import ContrastPair, folded, pairs_digest

WORDS = st.text(st.characters(codec="utf-8"), max_size=6)
PAIRS = st.lists(st.builds(ContrastPair, WORDS, WORDS, WORDS), max_size=4)


@given(PAIRS, PAIRS)
def test_pairs_have_one_digest_exactly_if_they_are_equal(first, second):
    assert (pairs_digest(first) == pairs_digest(second)) is (first == second)


def test_where_one_text_ends_matters():
    assert pairs_digest([ContrastPair("ab", "c", "d")]) != pairs_digest([ContrastPair("a", "bc", "d")])


def test_the_digest_does_not_change():
    """Vectors that are out there carry it: it may not change."""
    pair = ContrastPair("s", "p", "é")

    assert pairs_digest([pair]) == "fc01ef1bc8097f58ec820eb64da887542012ad9c4e0034770607ad3d7c5389fe"


@pytest.mark.parametrize("other", ["the  LIFT is\nbroken. ", "\tThe lift is broken.", "The lift is broken.\u00a0"])
def test_case_and_white_space_do_not_tell_texts_apart(other):
    assert folded(other) == folded("The lift is broken.")


@pytest.mark.parametrize("other", ["The lift is broken", "The liftis broken.", ""])
def test_other_differences_do(other):
    assert folded(other) != folded("The lift is broken.")


def test_the_digest_needs_no_model_library():
    program = "import sys, steer_eval.contrast; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
