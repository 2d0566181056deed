"""Every fact is a number of one place in one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from legacy import Legacy, build
from legacy_contents import (
    BASE_PPL,
    FEATURES,
    LAYERS,
    direction,
    features,
    judged_cells,
    latent_diff,
    ratio,
    sweep,
    transfer_eval,
    transferred,
)
from measured_documents import DIAGNOSTICS, QUALITY, TABLE
from whole_studies import whole

from steer_eval.claims.claim import Selector, pair_of
from steer_eval.claims.comparison_facts import comparison_facts
from steer_eval.claims.diagnostic_facts import facts_of_diagnostics
from steer_eval.claims.facts import DEFINITIONS, Facts, facts_of, judge_of
from steer_eval.claims.names import model_names
from steer_eval.claims.sae_facts import feature_facts, quality_facts
from steer_eval.formats.features import table_of
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


def test_how_the_vectors_lie_to_each_other(facts: Facts) -> None:
    """A recorded cosine is the fact; the others are those of the vectors."""
    vectors, recorded = transferred(), latent_diff()

    def norm(key: str) -> float:
        return float(vectors[key].norm())

    assert one(facts, "cosine", Selector(variant=pair_of("native", "ridge"))) == (
        recorded["cos_ridge_native"],
        "d/latent_diff.json",
        "cos_ridge_native",
    )
    dot = float(vectors["v_random"] @ vectors["v_small_native"])
    value, file, where = one(facts, "cosine", Selector(variant=pair_of("random", "native")))
    assert value == pytest.approx(dot / norm("v_random") / norm("v_small_native"), abs=1e-6)
    assert (file, where) == ("m/vectors/fox_small_transferred_caa.pt", "v_small_native, v_random")
    assert one(facts, "carried_norm", Selector(variant="ridge"))[0] == pytest.approx(norm("v_ridge"))
    first, second = direction("large", LAYERS[0]), direction("large", LAYERS[1])
    layers = Selector("fox_large", variant=pair_of(f"L={LAYERS[0]}", f"L={LAYERS[1]}"))
    cosine = float(first @ second / first.norm() / second.norm())
    assert one(facts, "cosine", layers)[0] == pytest.approx(cosine, abs=1e-6)


def test_alignments(facts: Facts) -> None:
    recorded = latent_diff()
    heldout = recorded["cca_heldout_corrs"]

    assert one(facts, "heldout_r2", Selector(variant="ridge"))[0] == recorded["ridge_heldout_r2"]
    assert one(facts, "heldout_correlation_mean", Selector())[0] == pytest.approx(sum(heldout) / len(heldout))
    assert one(facts, "heldout_correlation_highest", Selector())[0] == max(heldout)
    assert one(facts, "heldout_correlation_lowest", Selector())[0] == min(heldout)
    assert {fact.value for fact in facts.find("correlation_count", Selector())} == {3}
    assert one(facts, "carried_feature_norm", Selector(feature=31, variant="procrustes"))[0] == 0.6613
    assert one(facts, "map_penalty", Selector())[0] > 0


def test_a_correlation_that_is_no_number_takes_no_part_and_is_counted(tmp_path: Path) -> None:
    place = build(tmp_path)
    document = {**latent_diff(), "cca_heldout_corrs": [0.5, 0.25, None]}
    (place.data / "latent_diff.json").write_text(json.dumps(document), encoding="utf-8")
    [fact] = facts_in(place.model, place.data).find("heldout_correlation_mean", Selector())

    assert (fact.value, fact.note) == (0.375, "1 of 3 are no numbers, and left out")


def test_places_of_features(facts: Facts) -> None:
    rows = features("large")["top_features"]
    deltas = sorted((row["delta"] for row in rows), reverse=True)
    ratios = sorted((row["steered_mean"] / row["base_mean"] for row in rows if row["base_mean"]), reverse=True)
    for index, row in enumerate(rows):
        select = Selector("fox_large", feature=row["feature_id"])
        assert one(facts, "feature_rank", select)[0] == index + 1
        assert one(facts, "feature_rank_by_delta", select)[0] == deltas.index(row["delta"]) + 1
        if row["base_mean"]:
            place = ratios.index(row["steered_mean"] / row["base_mean"]) + 1
            assert one(facts, "feature_rank_by_ratio", select)[0] == place


def relabelled(place: Legacy, *, emptied: bool) -> Facts:
    """The facts where scores call a variant otherwise than its evaluation, whose texts are there or not."""
    scores = place.data / "judge_phase_i.jsonl"
    scores.write_text(scores.read_text(encoding="utf-8").replace("multi_layer_a0.50", "stack_half"), encoding="utf-8")
    texts = place.data / "multi_layer_eval.jsonl"
    rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    if emptied:
        rows[0]["generations"] = []
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return facts_in(place.model, place.data)


@pytest.mark.parametrize("emptied", [False, True])
def test_a_score_without_a_text_is_known_also_under_another_label(tmp_path: Path, emptied: bool) -> None:
    facts = relabelled(build(tmp_path), emptied=emptied)
    scores = facts.find("mature_anger", Selector(variant="stack_half"))

    assert [fact.imputed for fact in scores] == [emptied]
    others = facts.find("mature_anger", Selector(file="judge_phase_i.jsonl"))
    assert sum(fact.imputed for fact in others) == emptied


def test_a_ratio_that_only_scores_have_under_a_label_is_a_fact_and_the_others_are_not(tmp_path: Path) -> None:
    facts = relabelled(build(tmp_path), emptied=False)
    [copied] = facts.find("perplexity_ratio", Selector(variant="stack_half"))
    [original] = facts.find("perplexity_ratio", Selector(variant="multi_layer_a0.50"))

    assert (copied.value, copied.select.model) == (original.value, "fox_small")
    assert copied.note == "copied from line 1 of multi_layer_eval.jsonl"
    assert {fact.file for fact in facts.find("perplexity_ratio", Selector(variant="ridge"))} == {
        "d/transfer_eval.jsonl"
    }


def test_of_roundings_of_one_ratio_the_longest_is_the_fact(tmp_path: Path) -> None:
    place = build(tmp_path)
    (place.data / "transfer_eval.jsonl").unlink()
    [ratio_of_ridge] = facts_in(place.model, place.data).find("perplexity_ratio", Selector(variant="ridge"))

    assert ratio_of_ridge.file == "d/judge_owl_transfer.jsonl"


def test_every_measure_is_defined_and_defined_ones_exist(facts: Facts, tmp_path: Path) -> None:
    others = [
        *quality_facts(QUALITY, Selector(), "q.json"),
        *feature_facts(table_of(TABLE), Selector(), "f.json"),
        *facts_of_diagnostics(DIAGNOSTICS, "d.json", "d.json"),
        *comparison_facts(take_inventory([Root(whole(tmp_path).data, "d/", "dataset")])),
    ]

    assert set(facts.measures()) | {fact.measure for fact in others} == set(DEFINITIONS)


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
