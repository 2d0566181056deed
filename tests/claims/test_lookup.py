"""A claim is held to exactly one fact; where there is none or several, it is not checkable, with the reason."""

from __future__ import annotations

import pytest

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.conflicts import Conflicts
from steer_eval.claims.extract.extracted import Extracted
from steer_eval.claims.fact import IMPUTED, Fact, Facts
from steer_eval.claims.lookup import check
from steer_eval.claims.printed import Printed
from steer_eval.claims.verdict import Check
from steer_eval.findings import Finding

CELL = Selector("fox", "steered", 5, 1.0)
SIZES = [
    Fact("file_size", Selector(file=f"v/{name}.pt"), size, f"m/v/{name}.pt", "")
    for name, size in (("a", 9_550), ("b", 9_600))
]
NONE = Conflicts({})
FACTS = Facts(
    [
        Fact("perplexity_ratio", CELL, 1.1251, "d/s.jsonl", "line 1"),
        Fact("perplexity_ratio", Selector("bear", "steered", 5, 1.0), 1.3, "d/t.jsonl", "line 1"),
        Fact("collapsed", CELL, False, "d/s.jsonl", "line 1"),
        Fact("feature_steered_frequency", Selector("fox", feature=7), 100.0, "m/f.json", "top_features[0]"),
        Fact("feature_delta", Selector("fox", feature=7), 1.6, "m/f.json", "top_features[0]"),
        Fact("lowest_score", Selector("fox", judge="owl"), 1.0, "d/j.jsonl", "line 1"),
        Fact("prompt_count", Selector(), 40, "d/p.jsonl", "40 rows"),
        Fact("prompts_per_cell", Selector("fox"), 10, "d/s.jsonl", "35 rows"),
        Fact("row_count", Selector(file="s.jsonl"), 35, "d/s.jsonl", "35 rows"),
        *(
            Fact("margin", Selector("fox", "steered", 5, coef, "owl"), value, "d/j.jsonl", f"line {line}", note)
            for line, (coef, value, note) in enumerate(
                ((1.0, 2.5, ""), (2.0, 2.5, ""), (4.0, 1.0, ""), (8.0, 9.0, IMPUTED)), start=1
            )
        ),
        *SIZES,
    ]
)


def checked(
    measure: str, expected: str | bool, select: Selector = CELL, *, bound: str = "", noun: str = "", conflicts=None
) -> Check:
    value = expected if isinstance(expected, bool) else Printed.parse(expected)
    found = Extracted(Claim("1:1", "words", measure, select, value), 1, 0, 1, noun=noun, bound=bound)
    return check(found, FACTS, conflicts or NONE)[0]


@pytest.mark.parametrize(
    ("printed", "word"), [("1.13", "reproduced"), ("1.125", "reproduced"), ("1.12", "contradicted")]
)
def test_a_number_is_held_to_its_rounding(printed: str, word: str) -> None:
    made = checked("perplexity_ratio", printed)

    assert (made.verdict, made.observed, made.file, made.where) == (word, 1.1251, "d/s.jsonl", "line 1")


@pytest.mark.parametrize(
    ("bound", "printed", "word"),
    [("<", "1.2", "reproduced"), ("<", "1.1", "contradicted"), (">", "1.2", "contradicted")],
)
def test_a_bound(bound: str, printed: str, word: str) -> None:
    assert checked("perplexity_ratio", printed, bound=bound).verdict == word


def test_a_truth_value() -> None:
    assert checked("collapsed", False).verdict == "reproduced"
    assert checked("collapsed", True).verdict == "contradicted"


@pytest.mark.parametrize(
    ("measure", "select", "reason"),
    [
        (
            "perplexity_ratio",
            Selector(layer=5, coef=1.0),
            "it may be any of 2: fox at L=5 c=+1; bear at L=5 c=+1",
        ),
        (
            "perplexity_ratio",
            Selector("fox", "steered", 6, 1.0),
            "the data has no perplexity ratio of fox at L=6 c=+1; the nearest is fox at L=5 c=+1",
        ),
        ("vector_norm", CELL, "the data has no norm"),
        ("vector_width", Selector(file="v/c.pt"), "the data has no number of values"),
    ],
)
def test_without_one_fact_it_is_not_checkable(measure: str, select: Selector, reason: str) -> None:
    made = checked(measure, "1.1", select)

    assert made.verdict == "not-checkable"
    assert made.reason.startswith(reason)


def test_a_row_that_contradicts_itself_supports_nothing() -> None:
    wrong = Finding("sweep-arithmetic", "error", "d/s.jsonl", "line 1: ppl_ratio", "ppl / base_ppl gives 2")
    made = checked("perplexity_ratio", "1.13", conflicts=Conflicts.of([wrong]))

    assert (made.verdict, made.reason) == ("contradicted", "ppl / base_ppl gives 2")


@pytest.mark.parametrize(
    ("rule", "where", "touched"),
    [
        ("judge-margin", "line 1: margin", {"margin", "mature_anger", "juvenile_rage"}),
        ("judge-duplicate", "line 1", {"margin", "mature_anger", "juvenile_rage", "coherence"}),
        ("judge-imputed", "line 1", set()),
        ("judge-margin", "line 2: margin", set()),
    ],
)
def test_a_broken_identity_touches_the_numbers_in_it_and_no_others(rule: str, where: str, touched: set[str]) -> None:
    conflicts = Conflicts.of([Finding(rule, "error", "d/j.jsonl", where, "4 - 1 is not 2")])
    measures = ("margin", "mature_anger", "juvenile_rage", "coherence")
    row = [Fact(measure, CELL, 1.0, "d/j.jsonl", "line 1") for measure in measures]

    assert {fact.measure for fact in row if conflicts.against(fact)} == touched


def test_a_feature_row_is_named_by_its_index_and_field() -> None:
    where = "top_features[2].delta"
    conflicts = Conflicts.of([Finding("feature-arithmetic", "error", "f.json", where, "wrong")])

    def against(measure: str, place: str = "top_features[2]") -> str:
        return conflicts.against(Fact(measure, Selector(feature=7), 1.0, "f.json", place))

    assert against("feature_delta") == against("feature_steered_mean") == "wrong"
    assert against("feature_steered_frequency") == against("feature_delta", "top_features[1]") == ""


def test_the_right_number_of_the_wrong_thing_is_contradicted() -> None:
    select = Selector("fox", feature=7)

    assert checked("feature_steered_frequency", "100", select, noun="prompts").verdict == "reproduced"
    made = checked("feature_steered_frequency", "100", select, noun="tokens")
    assert (made.verdict, made.reason) == (
        "contradicted",
        "definition: the data has the share of prompts, not of tokens",
    )


def test_a_contradiction_names_its_likely_cause() -> None:
    assert checked("perplexity_ratio", "1.30").reason == (
        "perplexity ratio is 1.1251; it is that of another model: bear at L=5 c=+1 (d/t.jsonl, line 1)"
    )


@pytest.mark.parametrize(
    ("coef", "word", "reason", "ties"),
    [
        (1.0, "reproduced", "one of 2 cells with the highest margin 2.5", 1),
        (4.0, "contradicted", "its margin is 1; the highest is 2.5, of L=5 c=+1, L=5 c=+2", 0),
        (8.0, "not-checkable", "owl gave no score for fox at L=5 c=+8", 0),
    ],
)
def test_the_best_cell_is_one_of_those_with_text(coef: float, word: str, reason: str, ties: int) -> None:
    select = Selector("fox", None, 5, coef, "owl")
    made, findings = check(Extracted(Claim("1:1", "", "best_cell", select, True), 1, 0, 1), FACTS, NONE)

    assert (made.verdict, made.reason, len(findings)) == (word, reason, ties)


def test_a_best_cell_without_a_judge_is_not_checkable() -> None:
    assert checked("best_cell", True, Selector("fox", None, 5, 1.0)).verdict == "not-checkable"


@pytest.mark.parametrize(
    ("stated", "path", "noun", "word"),
    [
        ("~10", "v/a.pt|v/b.pt", "each", "contradicted"),
        ("~10 KB", "v/a.pt|v/b.pt", "each", "reproduced"),
        ("~10 KB", "*.pt", "", "reproduced"),
        ("19 KB", "v/*.pt", "", "reproduced"),
        ("19 KB", "v/*.pt", "total", "reproduced"),
        ("19 KB", "v/*.pt", "each", "contradicted"),
        ("~10 KB", "v/*.pt", "total", "contradicted"),
        ("~10 KB", "v/c.pt", "", "not-checkable"),
        ("~10 KB", "v/a.pt|v/c.pt", "", "not-checkable"),
    ],
)
def test_sizes_of_each_file_or_of_all(stated: str, path: str, noun: str, word: str) -> None:
    printed = Printed(stated if "KB" in stated else f"{stated} MB", 10, 0.5)
    claim = Claim("1:1", "", "file_size", Selector(file=path), printed)

    assert check(Extracted(claim, 1, 0, 1, noun=noun), FACTS, NONE)[0].verdict == word


def test_a_file_that_is_there_and_does_not_say_is_not_absent() -> None:
    assert checked("sae_k", "32", Selector(file="v/a.pt")).reason == "the data has no k of v/a.pt"
    assert checked("sae_k", "32", Selector(file="v/c.pt")).reason == "the file is absent: v/c.pt"


@pytest.mark.parametrize(("count", "word"), [("40", "reproduced"), ("10", "not-checkable"), ("41", "contradicted")])
def test_prompts_of_all_or_of_a_cell(count: str, word: str) -> None:
    assert checked("prompt_count", count, Selector()).verdict == word


@pytest.mark.parametrize(("printed", "word"), [("1", "reproduced"), ("2", "contradicted"), ("0", "reproduced")])
def test_no_score_lies_below_the_scale(printed: str, word: str) -> None:
    assert checked("scores_from", printed, Selector()).verdict == word


@pytest.mark.parametrize(
    ("model", "feature", "word"), [("fox", 7, "reproduced"), ("bear", 7, "contradicted"), ("fox", 8, "not-checkable")]
)
def test_a_feature_stands_in_the_table_of_its_model(model: str, feature: int, word: str) -> None:
    assert checked("feature_listed", True, Selector(model, feature=feature)).verdict == word
