"""Every fact is a number of one place in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from legacy import BASE_PPL, FEATURES, build, features, judged_cells, ratio, sweep, transfer_eval

from steer_eval.claims.claim import Selector
from steer_eval.claims.facts import DEFINITIONS, Facts, facts_of, judge_of
from steer_eval.claims.names import model_names
from steer_eval.inventory import Root, take_inventory


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    place = build(tmp_path_factory.mktemp("facts"))
    return facts_in(place.model, place.data)


def facts_in(model: Path, data: Path) -> Facts:
    inventory = take_inventory([Root(model, "m/", "model"), Root(data, "d/", "dataset")])
    return facts_of(inventory, model_names(inventory))


def one(facts: Facts, measure: str, select: Selector) -> tuple[float | bool, str, str]:
    [fact] = facts.find(measure, select)
    return fact.value, fact.file, fact.where


def test_cells(facts: Facts) -> None:
    cell = Selector("fox_small", "steered", 5, 1.0)
    expected = ratio("small", 5, 1.0)

    assert one(facts, "perplexity_ratio", cell) == (pytest.approx(expected), "d/sweep_fox_small.jsonl", "line 6")
    assert one(facts, "base_perplexity", cell)[0] == BASE_PPL["small"]
    assert one(facts, "collapsed", cell)[0] is False


def test_counts(facts: Facts) -> None:
    collapsed = sum(row["collapsed"] for row in sweep("large"))

    assert one(facts, "cell_count", Selector("fox_large"))[0] == 12
    assert one(facts, "collapsed_cells", Selector("fox_large"))[0] == collapsed
    assert one(facts, "contrast_pair_count", Selector())[0] == 6
    assert one(facts, "prompt_count", Selector())[0] == 9
    assert one(facts, "prompts_per_cell", Selector("fox_large"))[0] == 4


def test_scores_have_their_judge_and_the_margin_is_computed_where_it_is_absent(facts: Facts) -> None:
    row = next(row for row in judged_cells("hare", "large") if (row["layer"], row["coef"]) == (5, 1.0))
    cell = Selector("fox_large", "steered", 5, 1.0, "hare")

    assert one(facts, "coherence", cell)[0] == row["coherence"]
    assert one(facts, "margin", cell)[0] == row["mature_anger"] - row["juvenile_rage"]


def test_variants_are_of_the_model_whose_unsteered_perplexity_they_have(facts: Facts) -> None:
    [ridge] = [row for row in transfer_eval() if row["label"] == "ridge"]

    assert one(facts, "perplexity_ratio", Selector("fox_small", variant="ridge")) == (
        ridge["ppl_ratio"],
        "d/transfer_eval.jsonl",
        "line 2",
    )
    assert one(facts, "applied_norm", Selector(variant="ridge"))[0] == ridge["norm"]
    assert facts.find("perplexity_ratio", Selector("fox_large", variant="ridge")) == []
    assert facts.find("perplexity", Selector(variant="patch_ridge")) == []


def test_scores_of_variants_have_the_judge_that_the_file_names(facts: Facts) -> None:
    judges = {fact.select.judge for fact in facts.find("margin", Selector(variant="ridge"))}

    assert judges == {"owl", None}


def test_variants_never_pass_for_cells(facts: Facts) -> None:
    """A steered cell of a model is a row of its sweep, whatever else was measured there."""
    for measure in ("perplexity", "perplexity_ratio", "margin"):
        found = facts.find(measure, Selector("fox_small", "steered", 5, 1.0))
        assert {fact.select.variant for fact in found} == {None}


def test_features(facts: Facts) -> None:
    row = features("large")["top_features"][1]
    select = Selector("fox_large", feature=FEATURES[1])

    assert one(facts, "feature_delta", select) == (
        pytest.approx(row["delta"]),
        "m/saes/fox_large_L5_features.json",
        "top_features[1]",
    )
    assert one(facts, "feature_ratio", select)[0] == pytest.approx(row["steered_mean"] / row["base_mean"])
    assert one(facts, "feature_steered_frequency", select)[0] == pytest.approx(100 * row["steered_freq"])


def test_what_files_record_of_themselves(facts: Facts) -> None:
    vector, sae = Selector(file="vectors/fox_large_L5_caa.pt"), Selector(file="saes/fox_large_L5_sae.pt")

    assert one(facts, "artifact_layer", vector)[0] == 5
    assert one(facts, "vector_width", vector)[0] == 12
    assert one(facts, "sae_width", sae)[0] == 40
    assert one(facts, "sae_k", sae)[0] == 4
    assert one(facts, "artifact_layer", sae)[0] == 5


def test_every_measure_is_defined_and_defined_ones_exist(facts: Facts) -> None:
    assert set(facts.measures()) == set(DEFINITIONS)


def test_near_differs_in_one_part(facts: Facts) -> None:
    near = facts.near("perplexity", Selector("fox_small", "steered", 5, 99.0))

    assert {fact.select.coef for fact in near} == {-1.5, 1.0, 2.5, 6.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("judge_owl_large.jsonl", ("owl", "fox_large")),
        ("judge_owl_v2_fox_small.jsonl", ("owl_v2", "fox_small")),
        ("judge_owl_medium.jsonl", None),
        ("judge_large.jsonl", None),
    ],
)
def test_judge_and_model_of_a_file(name: str, expected: tuple[str, str] | None) -> None:
    assert judge_of(name, ["fox_large", "fox_small"]) == expected
