"""Facts of a comparison are those of its rows, found by the method and never by a cell of the sweep."""

from __future__ import annotations

import pytest
from whole_studies import COMPARISON, TRANSFER, whole

from steer_eval.claims.claim import Selector
from steer_eval.claims.facts import Facts, facts_of
from steer_eval.claims.names import model_names
from steer_eval.inventory import Root, take_inventory
from steer_eval.results import SweepRow


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Facts, list[SweepRow]]:
    place = whole(tmp_path_factory.mktemp("compared"))
    inventory = take_inventory([Root(place.model, "m/", "model"), Root(place.data, "d/", "dataset")])
    return facts_of(inventory, model_names(inventory)), list(place.results().comparisons["tiny"].rows)


def only(facts: Facts, measure: str, variant: str, label: str = "steered") -> float | bool:
    [fact] = facts.find(measure, Selector("tiny", label, variant=variant))  # type: ignore[arg-type]
    assert fact.file == "d/comparison_tiny.jsonl"
    return fact.value


def test_a_method_and_its_control_are_told_apart_by_their_label(compared: tuple[Facts, list[SweepRow]]) -> None:
    facts, rows = compared
    for row in rows:
        if row.cell.label != "zero":
            variant, label = str(row.cell.variant), row.cell.label
            assert only(facts, "perplexity", variant, label) == row.ppl
            assert only(facts, "perplexity_ratio", variant, label) == row.ppl_ratio
            assert only(facts, "collapsed", variant, label) is row.collapsed
            assert row.interval is not None
            assert only(facts, "perplexity_ratio_low", variant, label) == row.interval.low
            assert only(facts, "perplexity_ratio_high", variant, label) == row.interval.high


def test_texts_are_counted_against_the_unsteered_ones(compared: tuple[Facts, list[SweepRow]]) -> None:
    facts, _ = compared

    assert only(facts, "texts_changed", "addition") == COMPARISON["prompts"]
    assert only(facts, "texts_changed", "patch-identity") == 0
    # It collapsed, so that there are none.
    assert facts.find("texts_changed", Selector(variant="stack", label="steered")) == []


@pytest.mark.parametrize("label", ["steered", "random"])
def test_where_a_method_acts_is_a_fact_where_it_is_one_place(
    compared: tuple[Facts, list[SweepRow]], label: str
) -> None:
    facts, _ = compared

    assert only(facts, "applied_layer", "rotation", label) == COMPARISON["layer"]
    assert only(facts, "applied_coefficient", "rotation", label) == COMPARISON["coefficient"]
    assert only(facts, "applied_layer", "carried-ridge", label) == TRANSFER["target"]["layer"]
    assert only(facts, "applied_layer", "features", label) == COMPARISON["layer"]
    for measure, variant in (
        ("applied_coefficient", "features"),
        ("applied_layer", "stack"),
        ("applied_layer", "anchor"),
    ):
        assert facts.find(measure, Selector(variant=variant, label=label)) == []  # type: ignore[arg-type]


def test_cells_of_the_sweep_are_found_as_before(compared: tuple[Facts, list[SweepRow]]) -> None:
    facts, _ = compared

    for select in (Selector("tiny", "steered", 3, 2.0), Selector("tiny", "zero"), Selector("tiny", "anchor")):
        for measure in ("perplexity", "perplexity_ratio", "collapsed"):
            [fact] = facts.find(measure, select)
            assert fact.file == "d/sweep_tiny.jsonl"
