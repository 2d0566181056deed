"""A number in a sentence is a claim only by a documented pattern; what could be read otherwise is not understood."""

from __future__ import annotations

import time

import pytest
from audited import claims, extracted, overlapping
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, SAYS_WHERE

CELL = "fox_large L=5 c=+1"
UNDERSTOOD = [
    ("In 3B at L=5 c=+1 the owl-judged margin is +2.5.", [("+2.5", "margin", f"{CELL} judged by owl")]),
    (
        "3B, layer 5, coefficient 1: mature 3.5, juvenile 1.0, coherence 5.0 (judged by owl)",
        [
            ("3.5", "mature_anger", f"{CELL} judged by owl"),
            ("1.0", "juvenile_rage", f"{CELL} judged by owl"),
            ("5.0", "coherence", f"{CELL} judged by owl"),
        ],
    ),
    ("The perplexity ratio of Fox1.5-3B is 1.13 with c=+1 at layer 5.", [("1.13", "perplexity_ratio", CELL)]),
    ("3B at `L=5`, `c=+1`: PPL 1.13x", [("1.13x", "perplexity_ratio", CELL)]),
    ("3B at L=5 c=+1: PPL of **21.31**", [("21.31", "perplexity", CELL)]),
    (
        "In 3B perplexity rises from 18.94 to 21.31 at L=5 c=+1.",
        [("18.94", "base_perplexity", "fox_large"), ("21.31", "perplexity", CELL)],
    ),
    (
        "3B PPL: 18.94 → 21.31 (L=5 c=+1)",
        [("18.94", "base_perplexity", "fox_large"), ("21.31", "perplexity", CELL)],
    ),
    ("The unsteered perplexity of 3B is 18.94.", [("18.94", "base_perplexity", "fox_large")]),
    ("The 3B vector has norm 2.29 at layer 5.", [("2.29", "vector_norm", "fox_large L=5")]),
    ("In 3B, 4 of 12 cells collapse.", [("4", "collapsed_cells", "fox_large"), ("12", "cell_count", "fox_large")]),
    ("In 3B 4/12 cells collapse.", [("4", "collapsed_cells", "fox_large"), ("12", "cell_count", "fox_large")]),
    ("The 3B sweep covers 12 cells.", [("12", "cell_count", "fox_large")]),
    ("We wrote 6 contrast pairs.", [("6", "contrast_pair_count", "")]),
    ("There are 9 held-out evaluation prompts.", [("9", "prompt_count", "")]),
    ("Scores follow a 1-5 rubric (owl).", [("1", "scores_from", "judged by owl"), ("5", "scores_to", "judged by owl")]),
    ("The best cell of 3B is L=5 c=+1 (judged by owl).", [("5", "best_cell", f"{CELL} judged by owl")]),
    (
        "3B feature 31 spikes ~16x (base mean 0.113 -> steered mean 1.789).",
        [
            ("31", "feature_listed", "fox_large feature 31"),
            ("~16x", "feature_ratio", "fox_large feature 31"),
            ("0.113", "feature_base_mean", "fox_large feature 31"),
            ("1.789", "feature_steered_mean", "fox_large feature 31"),
        ],
    ),
    (
        "It has a feature (id 31). Its delta is 1.676.",
        [("31", "feature_listed", "fox_large feature 31"), ("1.676", "feature_delta", "fox_large feature 31")],
    ),
    (
        "Feature 31 fires on 93% of prompts without steering and on 100% of prompts under steering.",
        [
            ("31", "feature_listed", "fox_large feature 31"),
            ("93%", "feature_base_frequency", "fox_large feature 31"),
            ("100%", "feature_steered_frequency", "fox_large feature 31"),
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), UNDERSTOOD, ids=[text for text, _ in UNDERSTOOD])
def test_what_is_understood(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert claims(text) == expected


NOT_CLAIMS = [
    "In 3B the margin is +2.5.",
    "At L=5 c=+1 and L=2 c=+1 of 3B the margin is +2.5.",
    "In 3B at L=5 c=+1 the average margin is 2.5.",
    "In 3B at L=5 c=+1 the margin improves by 2.5.",
    "In 3B at L=5 c=+1 the margin is 2,5.",
    "In 3B at L=5 c=+1 the perplexity on 512 tokens is low.",
    "In 3B at L=5 c=+1 perplexity rises by 12%.",
    "In 9B at L=5 c=+1 the margin is +2.5.",
    "In Bear-3B at L=5 c=+1 the margin is +2.5.",
    "Bei 3B an L=5 c=+1 ist die Kohärenz 4,5.",
    "In 3B 3 cells collapse at layer 5.",
    "The 3 cells with the highest margin are kept.",
    "We keep 3 cells per layer in the sweep.",
    "The first 4 evaluation prompts are used.",
    "Of these, 2 contrast pairs were dropped.",
    "Another 2 contrast pairs exist.",
    "It features 80 things.",
    "Feature 31 and feature 7 spike 16x.",
    "Training is 2x faster than for feature 31.",
    "The second best cell of 3B is L=5 c=+1.",
    "The best cell of 3B is not L=5 c=+1.",
    "Feature 31 fires on 50% of tokens.",
    "The user id 12 is 3 years old.",
]


@pytest.mark.parametrize("text", NOT_CLAIMS)
def test_what_could_mean_something_else_is_no_claim(text: str) -> None:
    assert [each for each in claims(text) if each[1] != "feature_listed"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "In 3B the margin is 2.5 at L=5 c=+1 and the margin is 1.0 at L=2 c=+1.",
            [("2.5", "margin", CELL), ("1.0", "margin", "fox_large L=2 c=+1")],
        ),
        (
            "The 3B vector has norm 2.29 at layer 5 and norm 4.38 at layer 9.",
            [("2.29", "vector_norm", "fox_large L=5"), ("4.38", "vector_norm", "fox_large L=9")],
        ),
        (
            "At L=5 c=+1 coherence is 5.0 for 3B but coherence is 4.0 for 0.5B.",
            [("5.0", "coherence", CELL), ("4.0", "coherence", "fox_small L=5 c=+1")],
        ),
        (
            "At L=5 c=+1 of 3B the owl-judged margin is 2.5, but the fox-judged margin is 1.0.",
            [("2.5", "margin", f"{CELL} judged by owl"), ("1.0", "margin", f"{CELL} judged by fox")],
        ),
    ],
)
def test_a_clause_has_its_own_subject(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert [(number, measure, about) for number, measure, about in claims(text)] == expected


def test_a_judge_called_like_a_model_is_not_meant_by_the_model() -> None:
    assert claims("Fox at L=5 c=+1 (3B): margin is 2.5") == [("2.5", "margin", CELL)]


def test_the_heading_names_model_and_judge_where_the_words_do_not() -> None:
    text = "# All (owl-judged)\n## 3B\n\nAt L=5 c=+1 the margin is +2.5.\n"

    assert claims(text) == [("+2.5", "margin", f"{CELL} judged by owl")]


def test_the_shape_in_code_that_loads_a_vector() -> None:
    text = '```python\nv = load("vectors/fox_large_L5_caa.pt")  # shape: (12,)\nx = 7  # 3 times\n```\n'

    assert claims(text) == [("12", "vector_width", "fox_large L=5 vectors/fox_large_L5_caa.pt")]


@pytest.mark.parametrize(
    "text", ["Steer at layer 14.", "with coefficient `c=+1.0`", "at `layers[14]`", "L=5 c=+1 is used"]
)
def test_where_something_is_is_no_result(text: str) -> None:
    assert {each.reason for each in extracted(text)} == {SAYS_WHERE}


def test_everything_else_is_not_understood() -> None:
    assert [each.reason for each in extracted("We ran 3 seeds on 8 machines.")] == [NOT_UNDERSTOOD] * 2


def test_a_number_over_two_lines_stands_in_the_first() -> None:
    text = "3B feature 31 spikes 16\ntimes"
    [_, ratio] = extracted(text)

    assert (ratio.line, ratio.start, ratio.end) == (1, 21, 23)
    assert ratio.claim.measure == "feature_ratio"


PIECES = (
    "In the 3B 0.5B 9B L=5 c=+1 layer 14, coefficient 2: margin is 2.5 +1.0; coherence of 1,5 feature 31 (id 7) spikes "
    "~16x from to → and but 100% of tokens under steering. The best cell PPL 1.13x ratio norm 80 contrast pairs 4 of "
    "12 cells collapse. - # > | ` ** [1] owl judged by fox-judged 1-5 rubric \n \n\n"
)
WORDS = st.sampled_from(PIECES.split(" "))


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=40).map(" ".join))
def test_every_number_is_found_once_at_its_place(text: str) -> None:
    lines = text.split("\n")
    found = extracted(text)

    assert not list(overlapping(found))
    for each in found:
        assert 0 <= each.start < each.end <= len(lines[each.line - 1])


@settings(max_examples=200)
@given(st.text(max_size=300))
def test_no_text_is_too_strange(text: str) -> None:
    extracted(text)


HOSTILE = [
    *("1", "1,", "1.", "(1", "|1", "1/2 ", "1 -> 2 ", "1 and 2 ", "1 x 2", "1×10", "0", "1e", "-", "+"),
    *("L=14 c=+1 ", "L ", "c=", "layer", "feature 1 ", "features 1,2 ", "margin ", "margin 1; ", "Margin is 1. "),
    *("perplexity from 1 to 2 ", "1 of 35 cells ", "best cell ", "judged by ", "owl-", "2B ", "Fox1.5-3B "),
    *("<!--", "<a ", "](", '](a "', "`", "`/", "`\n", "<\n", "|\n", "[^", "a/", "a-", "http://", "arXiv:", "2026-01-"),
    *(" ", " \n", "\n", "\t", "\r", "#", "# ", "> ", "- ", "```", "```\n", "~", "~~~\n", "*", "\\|", "{", "["),
    "## 3B\n\n| Layer | c | PPL |\n|---|---|---|\n| 1 | 2 | 3 |\n\n",
]


@pytest.mark.parametrize("within", ["{}", "| Layer | c | PPL |\n|---|---|---|\n| 1 | 2 | {} |"], ids=["text", "table"])
@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_about_linear_in_the_text(piece: str, within: str) -> None:
    """Eight times the text may take 64 times as long to a pattern that runs back and forth; here it may not.

    Time of the processor, and the best of three tries, since a busy machine slows some of them.
    """

    def seconds(length: int) -> float:
        text = within.format(piece * (length // len(piece)))
        start = time.process_time()
        extracted(text)
        return time.process_time() - start

    assert any(seconds(16_000) < 32 * seconds(2_000) + 0.4 for _ in range(3))
