"""The same claim reads the same, however a text spells it; where there is no claim, the words around the number."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.claims.claim import Claim, Selector, pair_of
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.fact import DEFINITIONS
from steer_eval.claims.printed import Printed
from steer_eval.claims.wording import excerpt, files_named, found_in_file, quantity, words_of

CELL = Selector("fox_large", "steered", 5, -2.0)
SCORED = Selector("fox_large", "steered", 5, 1.0, "owl")


def worded(measure: str, expected: str | bool, select: Selector, *, noun: str = "", text: str = "as found") -> str:
    value = expected if isinstance(expected, bool) else Printed(expected, 1.0, 0.5)
    return words_of(Extracted(Claim("1:1", text, measure, select, value), 1, 0, 1, noun=noun), "| as | found |")


@pytest.mark.parametrize(
    ("measure", "expected", "select", "noun", "words"),
    [
        ("perplexity_ratio", "1.32", CELL, "", "perplexity ratio of fox_large at L=5 c=-2 is 1.32"),
        ("perplexity", "9.1", Selector("fox_large", "random", 5, 1.0), "", None),
        ("coherence", "4.0", SCORED, "", "coherence of fox_large at L=5 c=+1, judged by owl, is 4.0"),
        ("margin", "+0.5", Selector(judge="owl", variant="ridge"), "", "margin of ridge, judged by owl, is +0.5"),
        ("collapsed", False, CELL, "", "fox_large at L=5 c=-2 does not collapse"),
        ("best_cell", True, SCORED, "", "the best cell of fox_large, judged by owl, is L=5 c=+1"),
        (
            "feature_base_mean",
            "0.1",
            Selector("fox_large", feature=31),
            "",
            "base mean of feature 31 of fox_large is 0.1",
        ),
        ("feature_ratio", "~16x", Selector(feature=31), "", "feature 31 is ~16x as active with steering"),
        ("feature_ratio", "16", Selector(feature=31), "", "feature 31 is 16 times as active with steering"),
        (
            "feature_base_frequency",
            "93%",
            Selector("fox_large", feature=31),
            "tokens",
            "feature 31 of fox_large fires on 93% of tokens without steering",
        ),
        ("feature_rank_by_ratio", "4", Selector(feature=31), "", "feature 31 is number 4 by the ratio of its means"),
        ("file_size", "~10 KB", Selector(file="v/a_L6.pt|v/a_L14.pt"), "each", "each of v/a_L{6,14}.pt has ~10 KB"),
        ("file_size", "20 KB", Selector(file="v/*.pt"), "total", "v/*.pt together have 20 KB"),
        ("sae_width", "8192", Selector(file="s.pt"), "", "s.pt has 8192 features"),
        ("artifact_layer", "14", Selector(file="s.pt"), "", "s.pt is of layer 14"),
        ("vector_norm", "2.29", Selector("fox_large", layer=5), "", "norm of the vector of fox_large at L=5 is 2.29"),
        ("collapsed_cells", "16", Selector("fox_large"), "", "16 cells of fox_large collapse"),
        ("scores_to", "5", Selector(judge="owl"), "", "no score of owl is above 5"),
        ("cosine", "0.32", Selector(variant=pair_of("ridge", "native")), "", "cosine of native and ridge is 0.32"),
        (
            "cosine",
            "0.6",
            Selector("fox_large", variant=pair_of("L=14", "L=6")),
            "",
            "cosine of the vectors of fox_large at L=6 and L=14 is 0.6",
        ),
        ("heldout_r2", "0.2", Selector(variant="ridge"), "", "held-out R² of ridge is 0.2"),
        ("a_measure_of_tomorrow", "3", Selector(), "", "as found"),
    ],
)
def test_a_claim_is_one_plain_sentence(
    measure: str, expected: str | bool, select: Selector, noun: str, words: str | None
) -> None:
    found = worded(measure, expected, select, noun=noun)

    assert found == (words or "perplexity of the random control of fox_large at L=5 c=+1 is 9.1")


@pytest.mark.parametrize("measure", DEFINITIONS)
def test_no_measure_shows_its_name_for_words(measure: str) -> None:
    assert "_" not in quantity(measure).replace("mature_anger", "").replace("juvenile_rage", "")


def test_where_there_is_no_claim_a_row_says_its_column_and_a_sentence_its_words() -> None:
    assert worded("", "7", Selector(), text="seeds: 7") == "column “seeds”: 7"
    assert worded("", "-2", Selector(), text="header: -2") == "header of a table: -2"
    number = Extracted(Claim("1:1", "d with 7 se", "", Selector(), Printed("7", 7, 0.5)), 1, 12, 13)
    assert words_of(number, "A run, **with 7** `seeds`.") == "A run, with 7 seeds."


@given(st.text("ab `*_.\t", max_size=120), st.text("xy `*_.\t", max_size=120))
def test_an_excerpt_holds_the_number_and_no_markup(before: str, after: str) -> None:
    line = f"{before} 4.75 {after}"
    words = excerpt(line, len(before) + 1, len(before) + 5)

    assert "4.75" in words
    assert not re.search(r"[`*\t]|\s\s", words)
    # Only whole words, and a mark wherever some are left out.
    plain = re.sub(r"[`*_\s]", "", line)
    assert re.sub(r"[_\s…]", "", words) in plain


@given(st.lists(st.integers(0, 999), min_size=2, max_size=5, unique=True))
def test_files_that_differ_in_a_number_are_named_by_it(layers: list[int]) -> None:
    paths = [f"vectors/fox_L{layer}_caa.pt" for layer in layers]

    assert files_named("|".join(paths)) == f"vectors/fox_L{{{','.join(map(str, layers))}}}_caa.pt"


def test_what_a_file_has_is_said_with_its_unit() -> None:
    assert found_in_file("file_size", 9550.0) == "has 9550 bytes"
    assert found_in_file("artifact_layer", 14.0) == "is of layer 14"
