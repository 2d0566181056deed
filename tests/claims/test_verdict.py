from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import build, claim, document, row, text_of, write_study

from steer_eval.cells import Cell
from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.measures import REGISTRY, Needs
from steer_eval.claims.printed import Printed
from steer_eval.claims.verdict import WORDS, Check, Rerun, Verdict, _within, judge, needs
from steer_eval.formats import schema
from steer_eval.results import Results, Sweep
from steer_eval.study import Tolerance, load_study

CELL = Cell("tiny", "steered", 3, 2.0)
HERE = {"layer": 3, "coef": 2.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return build(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def published(place):
    return place.results()


@pytest.fixture
def studied(tmp_path):
    """A study with the claims of a test."""

    def with_claims(*claims):
        return load_study(write_study(tmp_path / "claims", document(claims=claims)))

    return with_claims


def with_row(results: Results, new) -> Results:
    sweep = results.sweeps["tiny"]
    rows = tuple(new if each.cell == new.cell else each for each in sweep.rows)
    return replace(results, sweeps={"tiny": Sweep(sweep.file, rows)})


def measured(study, results: Results, ratio: float, **how) -> Results:
    """The results with another ratio in the cell, which still agree with themselves."""
    return with_row(results, row(study, CELL, ratio, **how))


def again(results: Results, same: bool | None = True) -> Rerun:
    return Rerun(results, {"tiny": same})


def the_verdict(study, results, rerun=None) -> Verdict:
    [verdict] = judge(study, results, rerun)
    schema.check(verdict.to_json(), "verdict", file="x")
    return verdict


def test_published_data_is_judged_by_the_rounding_of_the_printed_number(studied, published):
    for expected, word in {
        "2.40": "reproduced",
        "2.4": "reproduced",
        "2.41": "contradicted",
        "~2.6": "reproduced",
    }.items():
        verdict = the_verdict(studied(claim("perplexity_ratio", expected, **HERE)), published)

        assert verdict.checks[0].evidence == "published data"
        assert (verdict.word, verdict.checks[0].verdict) == (word, word)
        assert verdict.checks[0].observed == 2.4
        assert (verdict.checks[0].file, verdict.checks[0].where) == ("sweep_tiny.jsonl", "line 9")
        if word == "contradicted":
            assert verdict.checks[0].reason == "the published data have 2.4"


@pytest.mark.parametrize("change", [{"ppl_ratio": 2.41}, {"ppl": 48.2}, {"base_ppl": 20.1}])
def test_changing_one_published_number_contradicts_the_claims_on_it(studied, published, change):
    """Also where the claim is changed with it: a row that contradicts itself supports nothing."""
    damaged = with_row(published, replace(published.sweeps["tiny"].find(CELL), **change))
    told = [claim("perplexity_ratio", "2.40", **HERE), claim("perplexity_ratio", "2.41", identity="two", **HERE)]
    told += [claim("perplexity", "48", identity="three", **HERE), claim("collapsed", False, identity="four", **HERE)]
    verdicts = judge(studied(*told, claim("perplexity", "20", identity="five", label="zero")), damaged, None)

    assert [verdict.word for verdict in verdicts] == ["contradicted"] * 4 + ["reproduced"]
    assert all("gives" in verdict.checks[0].reason for verdict in verdicts[:4])


def test_a_wrong_mark_of_collapse_says_nothing_against_the_perplexity_beside_it(studied, published):
    damaged = with_row(published, replace(published.sweeps["tiny"].find(CELL), collapsed=True))
    told = [claim("perplexity_ratio", "2.40", **HERE), claim("perplexity", "48", identity="two", **HERE)]
    told.append(claim("collapsed", False, identity="three", **HERE))

    assert [verdict.word for verdict in judge(studied(*told), damaged, None)] == [
        "reproduced",
        "reproduced",
        "contradicted",
    ]


def test_changing_a_vector_contradicts_the_claims_on_it(studied, published):
    vector = published.vectors["tiny", 3]
    damaged = replace(published, vectors={("tiny", 3): replace(vector, values=vector.values * 2)})
    verdict = the_verdict(studied(claim("vector_norm", f"{2 * vector.norm:.2f}", layer=3)), damaged)

    assert verdict.word == "contradicted"
    assert "norm is 5.83095, the vector gives 11.6619" in verdict.checks[0].reason


def test_a_claim_that_holds_only_within_an_interval_is_inconclusive(studied, published):
    study = studied(claim("collapsed", False, **HERE), claim("collapsed", True, identity="two", **HERE))
    wide = measured(study, published, 2.9, spread=2.0)
    verdicts = judge(study, wide, None)

    assert [verdict.word for verdict in verdicts] == ["inconclusive", "contradicted"]
    assert "spans 3" in verdicts[0].checks[0].reason
    assert judge(study, measured(study, published, 2.9, spread=0.001), None)[0].word == "reproduced"


@pytest.mark.parametrize(
    ("measure", "expected", "select"),
    [("collapsed_cells", 1, {}), ("largest_coefficient_without_collapse", 2, {"layer": 3})],
)
def test_counts_of_collapse_are_inconclusive_too(studied, published, measure, expected, select):
    study = studied(claim(measure, expected, **select))

    assert the_verdict(study, published).word == "reproduced"
    assert the_verdict(study, measured(study, published, 2.9, spread=2.0)).word == "inconclusive"


def test_an_undecided_cell_below_the_answer_does_not_matter(studied, published):
    study = studied(claim("largest_coefficient_without_collapse", 2, layer=3))
    undecided = row(study, Cell("tiny", "steered", 3, 1.0), 2.9, spread=2.0)

    assert the_verdict(study, with_row(published, undecided)).word == "reproduced"


@pytest.mark.parametrize(
    ("measure", "expected", "select", "word"),
    [
        ("contrast_pair_count", 4, {}, "reproduced"),
        ("contrast_pair_count", 5, {}, "contradicted"),
        ("corpus_words", 13, {}, "reproduced"),
        ("corpus_words", "~14", {}, "reproduced"),
        ("corpus_words", "~20", {}, "contradicted"),
        ("largest_coefficient_without_collapse", "2.0", {"layer": 3}, "reproduced"),
        ("largest_coefficient_without_collapse", "2.4", {"layer": 3}, "contradicted"),
        ("collapsed", True, {"layer": 3, "coef": 4.0}, "reproduced"),
        ("collapsed", False, {"layer": 3, "coef": 4.0}, "contradicted"),
        ("collapsed", "1", {"layer": 3, "coef": 4.0}, "contradicted"),
    ],
)
def test_counts_and_truth_values_are_exact(studied, published, measure, expected, select, word):
    assert the_verdict(studied(claim(measure, expected, **select)), published).word == word


# The printed 2.40 stands for 2.395 to 2.405; the study allows a log-ratio of 0.01, and 0.05 as drift.
@pytest.mark.parametrize(
    ("ratio", "word"),
    [
        (2.40, "reproduced"),
        (2.405 * 1.0099, "reproduced"),
        (2.405 * 1.0102, "drifted"),
        (2.395 / 1.0099, "reproduced"),
        (2.395 / 1.0102, "drifted"),
        (2.405 * 1.0511, "drifted"),
        (2.405 * 1.0515, "contradicted"),
        (2.395 / 1.0511, "drifted"),
        (2.395 / 1.0515, "contradicted"),
    ],
)
def test_a_relative_tolerance_ends_where_the_study_says(studied, published, ratio, word):
    study = studied(claim("perplexity_ratio", "2.40", **HERE))
    verdict = the_verdict(study, published, again(measured(study, published, ratio)))

    assert [check.evidence for check in verdict.checks] == ["published data", "re-run"]
    assert [check.verdict for check in verdict.checks] == ["reproduced", word]
    assert verdict.word == word
    assert verdict.checks[1].tolerance == "±0.01 relative"


# The printed 48.0 stands for 47.95 to 48.05; the study allows 0.5 on both sides, and 2 as drift.
@pytest.mark.parametrize(
    ("ppl", "word"),
    [
        (48.0, "reproduced"),
        (48.549, "reproduced"),
        (48.551, "drifted"),
        (47.451, "reproduced"),
        (47.449, "drifted"),
        (50.049, "drifted"),
        (50.051, "contradicted"),
        (45.951, "drifted"),
        (45.949, "contradicted"),
    ],
)
def test_an_absolute_tolerance_ends_where_the_study_says(studied, published, ppl, word):
    study = studied(claim("perplexity", "48.0", **HERE))

    assert the_verdict(study, published, again(measured(study, published, ppl / 20))).word == word


@pytest.mark.parametrize("scale", ["relative", "absolute"])
@given(units=st.integers(1, 10**6), decimals=st.integers(0, 4), up=st.booleans())
def test_an_exact_half_is_inside_a_tolerance_of_nothing(scale, units, decimals, up):
    """The binary form of a decimal number may lie a few units in the last place beside it."""
    printed = Printed.parse(f"{units / 10**decimals:.{decimals}f}")
    half = (units + (0.5 if up else -0.5)) / 10**decimals
    beyond = (units + (0.51 if up else -0.51)) / 10**decimals
    nothing = Tolerance(scale, 0.0, 1e9)

    assert _within(printed, half, nothing)[1] == "reproduced"
    assert _within(printed, beyond, nothing)[1] == "drifted"


@pytest.mark.parametrize("scale", ["relative", "absolute"])
@pytest.mark.parametrize("observed", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_inside_no_tolerance(scale, observed):
    assert _within(Printed.parse("2.40"), observed, Tolerance(scale, 1.0, 1e9))[1] == "contradicted"


def test_without_a_tolerance_a_re_run_is_judged_by_the_rounding(tmp_path, published):
    value = document(claims=[claim("perplexity_ratio", "2.40", **HERE)])
    value["tolerances"] = {}
    study = load_study(write_study(tmp_path, value))

    assert the_verdict(study, published, again(measured(study, published, 2.4049))).word == "reproduced"
    assert the_verdict(study, published, again(measured(study, published, 2.4051))).word == "contradicted"


@pytest.mark.parametrize(
    ("same", "reason"),
    [(True, ""), (False, "another machine class than"), (None, "no record of the machine class of")],
)
def test_drift_says_whether_the_machine_is_another(studied, published, same, reason):
    study = studied(claim("perplexity_ratio", "2.40", **HERE))
    verdict = the_verdict(study, published, again(measured(study, published, 2.45), same))

    assert verdict.word == "drifted"
    assert reason in verdict.checks[1].reason
    assert ("machine class" in verdict.checks[1].reason) is bool(reason)


@pytest.mark.parametrize(("same", "word"), [(True, "contradicted"), (False, "drifted"), (None, "drifted")])
def test_differing_text_is_drift_on_another_machine_only(studied, published, same, word):
    study = studied(claim("identical_generations", 3, **HERE))
    differing = with_row(published, row(study, CELL, 2.4, text=lambda index: f"other {index}"))

    assert the_verdict(study, published, again(published, same)).word == "reproduced"
    assert the_verdict(study, published, again(differing, same)).word == word


def test_a_flag_may_not_differ_on_another_machine(studied, published):
    study = studied(claim("collapsed", False, **HERE))

    assert the_verdict(study, published, again(measured(study, published, 3.5), False)).word == "contradicted"


def test_claims_that_only_a_re_run_can_check_wait_for_it(studied, published):
    for measure, select in {"vector_cosine": {"layer": 3}, "identical_generations": HERE}.items():
        verdict = the_verdict(studied(claim(measure, "1.0000", **select)), published)

        assert verdict.word == "not-checkable"
        assert [(check.evidence, check.reason) for check in verdict.checks] == [("re-run", "needs a re-run")]


def test_an_unknown_measure_is_not_checkable_and_lists_the_known_ones(studied, published):
    verdict = the_verdict(studied(claim("vibes", "1.0")), published, again(published))

    assert verdict.word == "not-checkable"
    assert "'vibes'" in verdict.checks[0].reason
    assert all(name in verdict.checks[0].reason for name in REGISTRY)


def test_what_could_not_be_read_is_the_reason(studied, published):
    broken = replace(published, sweeps={}, unusable={"sweep_tiny.jsonl": "line 4: ppl: x"})
    verdict = the_verdict(studied(claim("perplexity", "48", **HERE)), broken)

    assert verdict.word == "not-checkable"
    assert verdict.checks[0].reason == "sweep_tiny.jsonl: line 4: ppl: x"


def test_an_unmade_check_never_hides_a_made_one(studied, published):
    study = studied(claim("perplexity_ratio", "9.99", **HERE), claim("perplexity_ratio", "2.40", identity="b", **HERE))
    nothing = Rerun(Results({}, {}), {})
    for rerun in (None, nothing):
        verdicts = judge(study, published, rerun)

        assert [[check.verdict for check in verdict.checks] for verdict in verdicts] == [
            ["contradicted", "not-checkable"],
            ["reproduced", "not-checkable"],
        ]
        assert [verdict.word for verdict in verdicts] == ["contradicted", "reproduced"]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))
def test_a_verdict_is_the_worst_of_its_checks(words):
    told = Claim("id", "text", "perplexity", Selector(), Printed.parse("1"))
    checks = tuple(Check("re-run", None, "", word, "", "", "") for word in words)
    made = [word for word in words if word != "not-checkable"]

    worst = min(made, key=["contradicted", "drifted", "inconclusive", "reproduced"].index) if made else "not-checkable"
    assert Verdict(told, "study.yaml", None, checks).word == worst


def test_a_claim_is_found_in_its_line(tmp_path, published):
    value = document(claims=[claim("perplexity", "48", **HERE), claim("prompt_count", 3, identity="prompts")])
    study = load_study(write_study(tmp_path, value))
    lines = study.text.splitlines()

    for verdict in judge(study, published, None):
        assert lines[verdict.line - 1].strip() == f"- id: {verdict.claim.id}"


def test_a_claim_in_flow_style_is_found_too(tmp_path, published):
    flow = '- {id: short, claim: "x", measure: prompt_count, expected: 3}'
    (tmp_path / "study.yaml").write_text(text_of(document()).replace("claims: []", f"claims:\n{flow}"))
    study = load_study(tmp_path / "study.yaml")

    [verdict] = judge(study, published, None)
    assert study.text.splitlines()[verdict.line - 1] == flow


def test_needs_add_up_and_claims_that_can_not_be_checked_need_nothing(studied):
    study = studied(
        claim("perplexity", "48", **HERE),
        claim("vector_norm", "5.8", identity="b", layer=3),
        claim("perplexity", "48", identity="c", layer=77),
        claim("vibes", "1", identity="d"),
    )

    assert needs(study, study.claims) == Needs(frozenset({CELL}), frozenset(), frozenset({("tiny", 3)}))
