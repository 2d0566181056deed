"""A cell is a claim only where its column has a meaning and its row says what it is about."""

from __future__ import annotations

import pytest
from audited import claims, extracted, overlapping
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD
from steer_eval.claims.extract.file_rows import names_file
from steer_eval.claims.extract.meanings import MEANINGS, meaning


def table(header: str, *rows: str, before: str = "### 3B") -> str:
    count = header.count("|") - 1
    return "\n".join([before, "", header, "|" + "---|" * count, *rows, ""])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("**PPL**", "perplexity"),
        ("`ppl_ratio`", "perplexity_ratio"),
        ("Rel. PPL", "perplexity_ratio"),
        ("PPL (x)", "perplexity_ratio"),
        ("PPL (base)", "base_perplexity"),
        ("Layer (L)", "layer"),
        ("PPL (wikitext)", None),
        ("margin (human)", None),
        ("coherence (mean of 3)", None),
        ("margin (0-1)", None),
        ("Ratio ↓", "perplexity_ratio"),
        ("Margin [1-5]", "margin"),
        ("Mature anger", "mature_anger"),
        ("c", "coef"),
        ("α", "coef"),
        ("L", "layer"),
        ("Layer \\ c", "layer"),
        ("c / layer", "coef"),
        ("Method", "variant"),
        ("Steered mean", "feature_steered_mean"),
        ("Δ", "feature_delta"),
        ("Collapsed?", "collapsed"),
        ("Where", "where"),
        ("freq", None),
        ("rank", None),
        ("", None),
    ],
)
def test_headers(header: str, expected: str | None) -> None:
    assert meaning(header) == expected


def test_a_header_means_one_thing() -> None:
    spellings = [spelling for each in MEANINGS.values() for spelling in each]

    assert len(spellings) == len(set(spellings))


def test_a_sweep_of_one_model() -> None:
    text = table(
        "| Layer | c | PPL | ratio | collapsed |",
        "| 2 | −1.5 | 19.68 | 1.04× | no |",
        "| **5** | `+6` | 18.94 → 71.31 | **3.76x** | ✓ |",
        "| L9 | c=1 | — | 2,25 | yes |",
    )

    assert claims(text) == [
        ("19.68", "perplexity", "fox_large L=2 c=-1.5"),
        ("1.04×", "perplexity_ratio", "fox_large L=2 c=-1.5"),
        ("no", "collapsed", "fox_large L=2 c=-1.5"),
        ("18.94", "base_perplexity", "fox_large"),
        ("71.31", "perplexity", "fox_large L=5 c=+6"),
        ("3.76x", "perplexity_ratio", "fox_large L=5 c=+6"),
        ("✓", "collapsed", "fox_large L=5 c=+6"),
        ("yes", "collapsed", "fox_large L=9 c=+1"),
    ]


def test_best_cells_by_model() -> None:
    text = table(
        "| Model | Best cell | coherence | Margin | PPL |",
        "| 3B | L=5 c=+1 | 5.0 | **+2.5** | 1.13x |",
        "| den/Fox1.5-0.5B | `L=2`, `c=-1.5` | 4.0 | 0.0 | 1.05x |",
        before="## Results (owl-judged)",
    )

    assert claims(text) == [
        ("L=5 c=+1", "best_cell", "fox_large L=5 c=+1 judged by owl"),
        ("5.0", "coherence", "fox_large L=5 c=+1 judged by owl"),
        ("+2.5", "margin", "fox_large L=5 c=+1 judged by owl"),
        ("1.13x", "perplexity_ratio", "fox_large L=5 c=+1"),
        ("`L=2`, `c=-1.5`", "best_cell", "fox_small L=2 c=-1.5 judged by owl"),
        ("4.0", "coherence", "fox_small L=2 c=-1.5 judged by owl"),
        ("0.0", "margin", "fox_small L=2 c=-1.5 judged by owl"),
        ("1.05x", "perplexity_ratio", "fox_small L=2 c=-1.5"),
    ]


def test_variants() -> None:
    text = table("| Method | PPL | PPL ratio | Norm | Coherence |", "| Ridge | 31 | 1.24 | 0.75 | 4.5 |")

    assert claims(text) == [
        ("31", "perplexity", "fox_large ridge"),
        ("1.24", "perplexity_ratio", "fox_large ridge"),
        ("0.75", "applied_norm", "fox_large ridge"),
        ("4.5", "coherence", "ridge"),
    ]


def test_norms_and_widths_by_layer() -> None:
    text = table("| Layer | norm | d_model |", "| 5 | 2.29 | 12 |")

    assert claims(text) == [("2.29", "vector_norm", "fox_large L=5"), ("12", "vector_width", "fox_large L=5")]


def test_features() -> None:
    text = table(
        "| id | base mean | steered mean | delta | steered freq | base freq | freq |",
        "| 31 | 0.113 | 1.789 | +1.676 | 1.00 | 93.3% | 0.5 |",
    )

    assert claims(text) == [
        ("0.113", "feature_base_mean", "fox_large feature 31"),
        ("1.789", "feature_steered_mean", "fox_large feature 31"),
        ("+1.676", "feature_delta", "fox_large feature 31"),
        ("1.00", "feature_steered_frequency", "fox_large feature 31"),
        ("93.3%", "feature_base_frequency", "fox_large feature 31"),
    ]
    [share] = [each.claim.expected for each in extracted(text) if each.claim.measure == "feature_steered_frequency"]
    assert (share.value, share.rounding) == (100.0, 0.5)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("| Layer \\ c | c=1 | c=2.5 |", "| L=5 | 1.13 | 1.55 |"),
        ("| Layer \\ c | 1 | 2.5 |", "| 5 | 1.13 | 1.55 |"),
        ("| Layer | c=+1 | c=+2.5 |", "| 5 | 1.13 | 1.55 |"),
    ],
)
def test_a_grid_of_one_measure(header: str, row: str) -> None:
    text = table(header, row, before="### 3B\n\nPerplexity ratio by layer and coefficient:")

    assert claims(text) == [
        ("1.13", "perplexity_ratio", "fox_large L=5 c=+1"),
        ("1.55", "perplexity_ratio", "fox_large L=5 c=+2.5"),
    ]


def test_a_grid_whose_caption_names_two_measures_is_not_understood() -> None:
    before = "### 3B\n\nMargin and coherence by layer:"

    assert claims(table("| Layer | c=1 | c=2 |", "| 5 | 1.0 | 2.0 |", before=before)) == []


@pytest.mark.parametrize(
    ("header", "row", "before"),
    [
        ("| Layer | c | ratio |", "| 2, 5 | 1 | 1.1 |", "### 3B"),
        ("| Layer | c | ratio |", "| 5 | 1-2 | 1.1 |", "### 3B"),
        ("| Layer | c | ratio |", "| 5 | any | 1.1 |", "### 3B"),
        ("| Layer | ratio |", "| 5 | 1.1 |", "### 3B"),
        ("| Layer | c | ratio |", "| 5 | 1 | +12% |", "### 3B"),
        ("| Layer | c | ratio |", "| 5 | 1 | 1,050 |", "### 3B"),
        ("| Layer | c | ratio |", "| 5 | 1 | 1.1 (1.2) |", "### 3B"),
        ("| Layer | c | margin |", "| 5 | 1 | 2.5x |", "### 3B"),
        ("| Layer | c | score |", "| 5 | 1 | 2.5 |", "### 3B"),
        ("| Model | Layer | c | ratio |", "| 9B | 5 | 1 | 1.1 |", ""),
        ("| Model | Layer | c | ratio |", "| base | 5 | 1 | 1.1 |", "### 3B"),
        ("| Layer | c | ratio |", "| 5 | 1 | 1.1 |", "### Fox1.5-9B"),
        ("| id | steered freq |", "| 31 | 12 |", "### 3B"),
    ],
)
def test_what_could_mean_something_else_is_no_claim(header: str, row: str, before: str) -> None:
    assert claims(table(header, row, before=before)) == []


SAID_OF_ANOTHER = [
    ("| Model | Layer | c | ratio |", "| 3B (random) | 5 | 1 | 1.1 |", ""),
    ("| Model | Layer | c | ratio |", "| 3B + prompt | 5 | 1 | 1.1 |", ""),
    ("| Model | Layer | c | ratio |", "| 3B (our re-run) | 5 | 1 | 1.1 |", ""),
    ("| Cell | ratio |", "| L=5 c=+1, random direction | 1.1 |", "### 3B"),
    ("| Cell | ratio |", "| L=5 c=+1 + system prompt | 1.1 |", "### 3B"),
    ("| Best cell | ratio |", "| L=5 c=+1 (seed 2) | 1.1 |", "### 3B"),
    ("| Layer | c | ratio |", "| L=5 random | 1 | 1.1 |", "### 3B"),
    ("| Layer | c | ratio |", "| 5 | c=1, normalised | 1.1 |", "### 3B"),
    ("| Layer | c | control | ratio |", "| 5 | 1 | random | 1.1 |", "### 3B"),
    ("| Layer | c | dataset | ratio |", "| 5 | 1 | wikitext | 1.1 |", "### 3B"),
    ("| Layer | c | setting | ratio |", "| 5 | 1 | held-out | 1.1 |", "### 3B"),
    ("| Layer | c | seed | ratio |", "| 5 | 1 | 7 | 1.1 |", "### 3B"),
    ("| Layer | c | PPL (wikitext) |", "| 5 | 1 | 20.1 |", "### 3B"),
    ("| Layer | norm |", "| 5 | 20.1 |", "### 3B\n\nNorm of the residual stream:"),
    ("| Layer | norm |", "| 5 | 20.1 |", "### 3B\n\nA random direction:"),
    ("| Layer | c | ratio |", "| 5 | 1 | 1.1 |", "### 3B\n\nSteered against a random direction:"),
    ("| Method | ratio |", "| ridge | 1.1 |", "### 3B, random control"),
    ("| Layer | c=1 | c=2 |", "| 5 | 1.1 | 1.2 |", "### 3B\n\nPerplexity over that of the unsteered model:"),
    ("| Layer | c=1 | c=2 |", "| 5 | 1.1 | 1.2 |", "### 3B, margin\n\nThe coherence:"),
    ("| Layer | c=1 | c=2, prompted |", "| 5 | 1.1 | 1.2 |", "### 3B, margin"),
]


@pytest.mark.parametrize(("header", "row", "before"), SAID_OF_ANOTHER)
def test_words_that_may_change_what_is_measured_leave_no_claim(header: str, row: str, before: str) -> None:
    text = table(header, row, before=before)

    assert claims(text) == []
    assert any(each.reason == NOT_UNDERSTOOD for each in extracted(text))


@pytest.mark.parametrize("heading", ["## Random control, 3B", "## 3B\n\nA random direction of the same norm (seed 4):"])
def test_a_heading_or_caption_may_say_that_cells_are_of_a_random_direction(heading: str) -> None:
    text = table("| Layer | c | note | ratio |", "| 5 | 1 | slow | 1.1 |", before=heading)

    assert claims(text) == [("1.1", "perplexity_ratio", "fox_large random L=5 c=+1")]


def test_marks_of_footnotes_are_no_part_of_a_number() -> None:
    before = "## Perplexity ratio, 3B\n\nPerplexity under the steered model over that under the unsteered one (26.7)."
    text = table("| Layer | c=1 | c=2 |", "| 5 | 3.60† | **2.99?** |", before=before)

    assert claims(text) == [
        ("3.60", "perplexity_ratio", "fox_large L=5 c=+1"),
        ("2.99", "perplexity_ratio", "fox_large L=5 c=+2"),
    ]


def test_a_model_that_the_data_does_not_have_is_the_reason() -> None:
    found = extracted(table("| Model | Layer | c | ratio |", "| 9B | 5 | 1 | 1.1 |", before=""))

    assert [each.reason for each in found] == ["no model of the data is called 9B"]


@pytest.mark.parametrize("before", ["### 3B and 0.5B", "### 3B\n\nThe same for the 0.5B model:"])
def test_where_two_models_could_be_meant_none_is(before: str) -> None:
    [(_, _, about)] = claims(table("| Layer | c | ratio |", "| 5 | 1 | 1.1 |", before=before))

    assert about == "L=5 c=+1"


def test_the_innermost_heading_names_the_model() -> None:
    text = table("| Layer | norm |", "| 5 | 2.0 |", before="# 3B against 0.5B\n### 0.5B")

    assert claims(text) == [("2.0", "vector_norm", "fox_small L=5")]


def test_a_judge_column_outweighs_the_heading() -> None:
    header, before = "| Layer | c | judge | margin |", "## 3B, owl-judged"
    rows = ("| 5 | 1 | fox | 1.0 |", "| 5 | 1 | gpt | 1.0 |")

    assert [about for *_, about in claims(table(header, *rows, before=before))] == [
        "fox_large L=5 c=+1 judged by fox",
        "fox_large L=5 c=+1",
    ]


def test_rows_about_files() -> None:
    text = table(
        "| Path | Contents | Size | Rows |",
        "| `vectors/fox_large_L{2,5}_caa.pt` | vectors | ~10 KB each | |",
        "| `saes/fox_sae.pt` | Top-K SAE (d_sae=40, k=4) at layer 5, 3 epochs | 129 MB | |",
        "| `saes/*_features.json` | Top-5 features | <10 KB in total | |",
        "| `sweep.jsonl` | 12 rows, 4 prompts | | 12 |",
        before="# Files",
    )
    sae, sweep = "saes/fox_sae.pt", "sweep.jsonl"

    assert claims(text) == [
        ("~10 KB", "file_size", "vectors/fox_large_L2_caa.pt|vectors/fox_large_L5_caa.pt"),
        ("40", "sae_width", sae),
        ("4", "sae_k", sae),
        ("5", "artifact_layer", sae),
        ("129 MB", "file_size", sae),
        ("5", "feature_count", "saes/*_features.json"),
        ("<10 KB", "file_size", "saes/*_features.json"),
        ("12", "row_count", sweep),
        ("12", "row_count", sweep),
    ]
    assert [each.claim.words for each in extracted(text) if each.reason == NOT_UNDERSTOOD] == [
        f"{sae}: 3",
        f"{sweep}: 4",
    ]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a/b.pt", "a/b.pt", True),
        ("b.pt", "a/b.pt", True),
        ("*.pt", "a/b.pt", True),
        ("a/", "a/b.pt", True),
        ("c/b.pt", "a/b.pt", False),
        ("b.p", "a/b.pt", False),
    ],
)
def test_what_a_text_calls_a_file(pattern: str, path: str, expected: bool) -> None:
    assert names_file(pattern, path) is expected


CELLS = st.sampled_from(
    [
        "5",
        "+1",
        "−2",
        "1.13x",
        "18.94 → 21.31",
        "—",
        "**2.5**",
        "2,5",
        "L=5 c=+1",
        "31",
        "yes",
        "3B",
        r"a \| 4",
        "x 1 y 2",
        "",
    ]
)
HEADERS = st.sampled_from(
    ["Layer", "c", "PPL", "ratio", "Margin", "Best cell", "id", "delta", "Model", "note", "c=1", "c=2"]
)


@given(st.lists(HEADERS, min_size=1, max_size=5), st.lists(st.lists(CELLS, min_size=1, max_size=6), max_size=4))
def test_every_number_of_a_table_is_found_once_at_its_place(header: list[str], rows: list[list[str]]) -> None:
    text = "\n".join(
        ["PPL ratio of 3B:", "", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        + [f"| {' | '.join(row)} |" for row in rows]
    )
    lines = text.split("\n")
    found = extracted(text)

    assert not list(overlapping(found))
    for each in found:
        characters = lines[each.line - 1][each.start : each.end]
        if not isinstance(each.claim.expected, bool):
            assert characters == each.claim.expected.text
