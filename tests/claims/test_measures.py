"""Every measure of the registry, on a study whose numbers are known in advance."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from claims.known_facts import COPIED
from studies import ANCHOR_RATIO, BASE_PPL, PROMPTS, RATIOS, build, ratio_of

from steer_eval.claims.claim import Selector
from steer_eval.claims.measures import REGISTRY, Case, NotCheckable
from steer_eval.results import Results

VALUES = {
    "vector_norm": [(Selector(layer=3), math.sqrt(34)), (Selector("tiny", layer=1), math.sqrt(26))],
    "vector_cosine": [(Selector(layer=3), 1.0)],
    "perplexity_ratio": [
        (Selector(layer=3, coef=2.0), 2.4),
        (Selector("tiny", "random", 1, 4.0), 1.05),
        (Selector(label="anchor"), ANCHOR_RATIO),
        (Selector(label="zero"), 1.0),
    ],
    "perplexity": [(Selector(layer=3, coef=4.0), 5 * BASE_PPL), (Selector(label="zero"), BASE_PPL)],
    "collapsed": [(Selector(layer=3, coef=4.0), True), (Selector(layer=1, coef=4.0), False)],
    "largest_coefficient_without_collapse": [
        (Selector(layer=1), 4.0),
        (Selector(layer=3), 2.0),
        (Selector(label="random", layer=3), 4.0),
    ],
    "collapsed_cells": [(Selector(), sum(ratio > 3 for ratio in RATIOS.values())), (Selector(label="random"), 0)],
    "identical_generations": [(Selector(layer=1, coef=2.0), len(PROMPTS)), (Selector(label="anchor"), len(PROMPTS))],
    # Of a comparison: tests/comparison/test_measures.py.
    "texts_equal_to_unsteered": [(Selector(label="anchor"), 0), (Selector(label="zero"), len(PROMPTS))],
    "contrast_pair_count": [(Selector(), 4)],
    "prompt_count": [(Selector(), 3)],
    "corpus_words": [(Selector(), 13)],
    "mature_anger": [(Selector("tiny", layer=3, coef=2.0, judge="a"), 3.5)],
    "juvenile_rage": [(Selector("tiny", layer=3, coef=2.0, judge="b"), 1.5)],
    "coherence": [(Selector("tiny", layer=3, coef=2.0, judge="a"), 4.0)],
    "margin": [(Selector("tiny", layer=3, coef=2.0, judge="a"), 2.5)],
    "feature_delta": [(Selector("tiny", feature=7), 1.5)],
    "feature_base_mean": [(Selector("tiny", feature=7), 0.5)],
    "feature_steered_mean": [(Selector("tiny", feature=7), 2.0)],
    "feature_ratio": [(Selector("tiny", feature=7), 4.0)],
    "feature_steered_frequency": [(Selector("tiny", feature=7), 100.0)],
    "feature_base_frequency": [(Selector("tiny", feature=7), 50.0)],
    "feature_count": [(Selector("tiny"), 1)],
    "sae_width": [(Selector("tiny"), 16)],
    "sae_k": [(Selector("tiny"), 4)],
    "highest_mature_anger": [(Selector(file="judge_transfer.jsonl", variant="r*"), 2.0)],
    **COPIED,
    "feature_rank": [(Selector("tiny", feature=8), 2)],
    "feature_rank_by_delta": [(Selector("tiny", feature=8), 3)],
    "feature_rank_by_ratio": [(Selector("tiny", feature=9), 1)],
    "ranked_by_delta": [(Selector("tiny", file="features.json"), False)],
    "best_cell": [
        (Selector("tiny", layer=3, coef=2.0, judge="a"), True),
        (Selector("tiny", layer=1, coef=2.0, judge="a"), False),
        (Selector("tiny", layer=3, coef=2.0, judge="b"), True),
        (Selector("tiny", layer=1, coef=2.0, judge="a", rule="margin < 2"), True),
    ],
    "tied_best_cells": [(Selector("tiny", judge="a"), 2), (Selector("tiny", judge="a", rule="margin < 2"), 1)],
    "highest_margin": [(Selector("tiny", judge="a"), 2.5), (Selector("tiny", judge="a", rule="margin <= 0"), 0.0)],
    "cells_passing": [
        (Selector("tiny", judge="a", rule="margin > 0"), 3),
        (Selector("tiny", judge="a", rule="margin >= 2.5 and perplexity_ratio < 2"), 1),
        (Selector("tiny", rule="perplexity_ratio > 3"), sum(ratio > 3 for ratio in RATIOS.values())),
    ],
    "features_passing": [
        (Selector("tiny", file="features.json", rule="feature_delta < 0"), 2),
        (Selector("tiny", file="features.json", rule="feature_ratio >= 16"), 0),
    ],
    "sae_passes": [
        (Selector("tiny", layer=3, rule="sae_heldout_fvu <= 0.25 and sae_dead_share < 2"), True),
        (Selector("tiny", layer=3, rule="sae_heldout_fvu <= 0.2"), False),
    ],
    "cell_count": [(Selector(), 8), (Selector(label="random"), 8), (Selector(label="zero"), 1)],
}


NOTED = {
    "highest_mature_anger",
    "ranked_by_delta",
    "best_cell",
    "tied_best_cells",
    "highest_margin",
    "cells_passing",
    "features_passing",
    "sae_passes",
}
"""Measures that always say more than their value."""


def test_every_measure_has_a_known_value():
    assert set(VALUES) == set(REGISTRY)


@pytest.mark.parametrize(
    ("name", "select", "value"),
    [pytest.param(name, *case, id=f"{name} {case[0]}") for name, cases in VALUES.items() for case in cases],
)
def test_the_value_is_the_known_one(study, results, name, select, value):
    observation = REGISTRY[name].observe(Case(study, select, results, results))

    assert observation.value == pytest.approx(value, rel=1e-7)
    assert isinstance(observation.value, bool) is (REGISTRY[name].unit == "truth value")
    assert (observation.undecided, observation.conflict) == ("", "")
    assert bool(observation.note) is (name in NOTED)
    assert observation.file


@pytest.mark.parametrize(
    ("name", "select", "note"),
    [
        (
            "highest_mature_anger",
            Selector(file="judge_transfer.jsonl", variant="r*"),
            "the highest of 1, of ridge; left out, having a score and no text: random",
        ),
        (
            "best_cell",
            Selector("tiny", layer=1, coef=1.0, judge="a"),
            "2 cells have the highest margin 2.5: L=1 c=+1, L=3 c=+2",
        ),
        ("highest_margin", Selector("tiny", judge="b"), "the highest margin is 0.5, of L=3 c=+2"),
        ("ranked_by_delta", Selector(file="features.json"), "feature 8 in place 2 has delta -0.5"),
        ("cells_passing", Selector("tiny", judge="a", rule="margin > 0"), "of 4 judged cells"),
        (
            "features_passing",
            Selector(file="features.json", rule="feature_delta < 0"),
            "of 3 listed features: feature 8 (-0.5), feature 9 (-0.5)",
        ),
    ],
)
def test_ties_and_what_is_left_out_are_named(study, results, name, select, note):
    assert REGISTRY[name].observe(Case(study, select, results)).note.endswith(note)


@pytest.mark.parametrize(
    ("name", "select", "why"),
    [
        ("best_cell", Selector("tiny", layer=3, coef=2.0), "names none of the judges a, b"),
        ("best_cell", Selector("tiny", layer=3, coef=4.0, judge="a"), r"no text of L=3 c=\+4 was judged"),
        ("cells_passing", Selector("tiny", judge="a"), "states no rule"),
        ("cells_passing", Selector("tiny", judge="a", rule="beauty > 3"), "is no rule"),
        ("highest_margin", Selector("tiny", judge="a", rule="margin > 9"), "passes margin > 9"),
        ("highest_mature_anger", Selector(variant="rand*"), "none of them has a text to judge"),
        ("ranked_by_delta", Selector(file="others.json"), "fits 0 feature tables"),
        ("features_passing", Selector(file="features.json"), "states no rule"),
        ("features_passing", Selector(file="features.json", rule="margin > 1"), "is no rule"),
        ("sae_passes", Selector("tiny", layer=3), "states no rule"),
        ("sae_passes", Selector("tiny", layer=3, rule="margin > 1"), "is no rule"),
        ("feature_discoveries", Selector("tiny", layer=3), "fits 4 numbers"),
        ("transfer_heldout_r2", Selector("tiny", layer=3), "has no transfer heldout r2 of tiny"),
    ],
)
def test_what_a_rule_or_a_table_leaves_open_is_the_reason(study, results, name, select, why):
    with pytest.raises(NotCheckable, match=why):
        REGISTRY[name].observe(Case(study, select, results))


@pytest.mark.parametrize("name", REGISTRY)
def test_every_measure_is_documented(name):
    measure = REGISTRY[name]

    assert measure.name == name
    assert measure.definition
    assert measure.unit
    assert measure.evidence


@pytest.mark.parametrize("name", REGISTRY)
def test_every_measure_says_why_it_can_not_be_taken(study, name):
    select = Selector(layer=1, coef=2.0)
    empty = Results({}, {}, unusable={})

    with pytest.raises(NotCheckable, match="not measured"):
        REGISTRY[name].observe(Case(study, select, empty, empty))


@pytest.mark.parametrize(
    ("name", "select", "why"),
    [
        ("perplexity", Selector(), "fits 8 cells"),
        ("perplexity", Selector(layer=9, coef=1.0), "fits 0 cells"),
        ("vector_norm", Selector(), "names no layer"),
        ("largest_coefficient_without_collapse", Selector(), "names no layer"),
        ("largest_coefficient_without_collapse", Selector(label="zero", layer=1), "no zero cells"),
    ],
)
def test_a_selector_that_fits_no_single_thing_is_the_reason(study, results, name, select, why):
    with pytest.raises(NotCheckable, match=why):
        REGISTRY[name].observe(Case(study, select, results, results))
    with pytest.raises(NotCheckable, match=why):
        REGISTRY[name].needs(study, select)


def test_with_several_models_the_claim_must_name_one(tmp_path):
    place = build(tmp_path, models=("tiny", "other"))
    case = Case(place.study(), Selector(label="zero"), place.results())

    with pytest.raises(NotCheckable, match="names none of the models tiny, other"):
        REGISTRY["perplexity"].observe(case)
    named = replace(case, select=Selector("other", "zero"))
    assert REGISTRY["perplexity"].observe(named).file == "sweep_other.jsonl"


def test_the_measured_rows_are_the_planned_ones(study, results):
    assert all(row.ppl_ratio == ratio_of(row.cell) for row in results.sweeps["tiny"].rows)
