"""Every measure of the registry, on a study whose numbers are known in advance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from studies import ANCHOR_RATIO, BASE_PPL, PROMPTS, RATIOS, build, ratio_of
from studies import row as sweep_row

from steer_eval.cells import Cell
from steer_eval.claims.claim import Selector, pair_of
from steer_eval.claims.diagnostic_facts import OF_MAPS, OF_ROWS
from steer_eval.claims.fact import IMPUTED, Fact, Facts
from steer_eval.claims.measures import REGISTRY, Case, NotCheckable
from steer_eval.formats.features import CHANGES
from steer_eval.results import Results, Sweep, SweepRow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return build(tmp_path_factory.mktemp("study"))


COPIED = {
    "base_perplexity": [(Selector("tiny"), 20.0)],
    "vector_width": [(Selector("tiny", layer=3), 4)],
    "artifact_layer": [(Selector(file="v.pt"), 3)],
    "applied_norm": [(Selector(variant="ridge"), 0.75)],
    "carried_norm": [(Selector(variant="ridge"), 0.16)],
    "carried_feature_norm": [(Selector(feature=7, variant="ridge"), 0.05)],
    "cosine": [(Selector(variant=pair_of("ridge", "native")), 0.32)],
    "heldout_r2": [(Selector(variant="ridge"), 0.2)],
    "heldout_correlation_mean": [(Selector(), 0.86)],
    "heldout_correlation_highest": [(Selector(), 0.98)],
    "heldout_correlation_lowest": [(Selector(), 0.52)],
    "fitted_correlation_mean": [(Selector(), 1.0)],
    "correlation_count": [(Selector(), 20)],
    "map_penalty": [(Selector(variant="ridge"), 10.0)],
    "prompts_per_cell": [(Selector("tiny"), 3)],
    "row_count": [(Selector(file="v.jsonl"), 12)],
    "file_size": [(Selector(file="v.pt"), 9550)],
    "lowest_score": [(Selector("tiny", judge="a"), 1.0)],
    "highest_score": [(Selector("tiny", judge="a"), 4.0)],
    "feature_coefficient": [(Selector("tiny", layer=3), 2.0)],
    "feature_prompts": [(Selector("tiny", layer=3), 40)],
    "sae_dead_share": [(Selector("tiny", layer=3), 1.25)],
    "sae_training_tokens": [(Selector("tiny", layer=3), 517864)],
    "sae_heldout_fvu": [(Selector("tiny", layer=3), 0.22)],
    "sae_l0": [(Selector("tiny", layer=3), 32.0)],
    "sae_heldout_tokens": [(Selector("tiny", layer=3), 41908)],
    "sae_clean_cross_entropy": [(Selector("tiny", layer=3), 3.75)],
    "sae_cross_entropy": [(Selector("tiny", layer=3), 4.1)],
    "sae_excess_cross_entropy": [(Selector("tiny", layer=3), 0.35)],
    "sae_recovered_cross_entropy": [(Selector("tiny", layer=3), 0.92)],
    "feature_effect": [(Selector("tiny", layer=3, feature=7), 1.6)],
    "feature_predicted": [(Selector("tiny", layer=3, feature=7), 1.2)],
    "feature_steered_token_frequency": [(Selector("tiny", layer=3, feature=7), 70.5)],
    "feature_base_token_frequency": [(Selector("tiny", layer=3, feature=7), 12.5)],
    **{
        f"feature_{change}{part}": [(Selector("tiny", layer=3, feature=7), number + place / 10)]
        for number, change in enumerate(CHANGES)
        for place, part in enumerate(("", "_low", "_high", "_q"))
        if (change, part) != ("delta", "")
    },
    "feature_discoveries": [
        (Selector("tiny", layer=3, variant=change), 100 + number) for number, change in enumerate(CHANGES)
    ],
    **{
        f"{measure}{part}": [
            (Selector("tiny", layer=3, variant=variant), part == "_exceeds_null" or number + place / 10)
            for number, variant in enumerate(("ridge", "plain ridge") if measure in OF_MAPS else (None, "plain"))
        ]
        for measure in (*OF_ROWS, *OF_MAPS)
        for place, part in enumerate(("", "_null", "_p", "_exceeds_null"))
    },
    "transfer_fitted_r2": [(Selector("tiny", layer=3, variant="ridge"), 0.99)],
    "transfer_norm_share": [(Selector("tiny", layer=3, variant="random"), 0.4)],
    "transfer_rows": [(Selector("tiny", layer=3), 541), (Selector("tiny", layer=3, variant="plain"), 30)],
    "transfer_split_half_cosine": [(Selector("tiny", layer=3, variant="source"), 0.91)],
}
"""Measures that only look a fact up."""


def published() -> Facts:
    """What two judges, a feature table, an SAE and two variants say."""
    cell = Selector("tiny", "steered", 3, 2.0)
    feature = Selector("tiny", layer=3, coef=2.0, feature=7)
    numbers = {
        "feature_delta": 1.5,
        "feature_base_mean": 0.5,
        "feature_steered_mean": 2.0,
        "feature_ratio": 4.0,
        "feature_steered_frequency": 100.0,
        "feature_base_frequency": 50.0,
    }
    scores = {"a": (3.5, 1.0, 4.0, 2.5), "b": (2.0, 1.5, 5.0, 0.5)}
    variant = Selector(file="judge_transfer.jsonl")
    table = {7: (1, 1, 2), 8: (2, 3, 3), 9: (3, 2, 1)}
    ranks = ("feature_rank", "feature_rank_by_delta", "feature_rank_by_ratio")
    margins = {(1, 1.0): 2.5, (1, 2.0): 1.0, (3, 1.0): 0.0}
    return Facts(
        [
            *(
                Fact(measure, replace(cell, judge=judge), value, f"judge_{judge}_tiny.jsonl", "line 1")
                for judge, values in scores.items()
                for measure, value in zip(("mature_anger", "juvenile_rage", "coherence", "margin"), values, strict=True)
            ),
            *(Fact(measure, feature, value, "features.json", "top_features[0]") for measure, value in numbers.items()),
            Fact("feature_count", Selector("tiny", layer=3), 1, "features.json", "top_features"),
            Fact("sae_width", Selector("tiny", layer=3), 16, "cfg.json", "d_sae"),
            Fact("sae_k", Selector("tiny", layer=3), 4, "cfg.json", "k"),
            Fact("mature_anger", replace(variant, variant="ridge"), 2.0, "judge_transfer.jsonl", "line 1"),
            Fact("mature_anger", replace(variant, variant="native"), 4.0, "judge_transfer.jsonl", "line 2"),
            Fact("mature_anger", replace(variant, variant="random"), 5.0, "judge_transfer.jsonl", "line 3", IMPUTED),
            *(
                Fact(measure, Selector("tiny", feature=which, file="features.json"), place, "features.json", "row")
                for which, places in table.items()
                for measure, place in zip(ranks, places, strict=True)
            ),
            *(
                Fact("feature_delta", Selector("tiny", feature=which, file="features.json"), -0.5, "features.json", "x")
                for which in (8, 9)
            ),
            *(
                Fact("margin", Selector("tiny", "steered", *cell, judge="a"), value, "judge_a_tiny.jsonl", "line 5")
                for cell, value in margins.items()
            ),
            Fact("margin", Selector("tiny", "steered", 3, 4.0, "a"), 4.0, "judge_a_tiny.jsonl", "line 9", IMPUTED),
            *(
                Fact("perplexity_ratio", Selector("tiny", "steered", *cell), value, "sweep_tiny.jsonl", "line 1")
                for cell, value in RATIOS.items()
            ),
            *(
                Fact(name, select, value, "some.json", name)
                for name, cases in COPIED.items()
                for select, value in cases
            ),
        ]
    )


@pytest.fixture(scope="module")
def results(place):
    return replace(place.results(), facts=published())


@pytest.fixture(scope="module")
def study(place):
    return place.study()


def edited(results: Results, cell: Cell, **changes: object) -> Results:
    sweep = results.sweeps[cell.model]
    rows = tuple(replace(row, **changes) if row.cell == cell else row for row in sweep.rows)
    return replace(results, sweeps={**results.sweeps, cell.model: Sweep(sweep.file, rows)})


def without(results: Results, cell: Cell) -> Results:
    sweep = results.sweeps[cell.model]
    rows = tuple(row for row in sweep.rows if row.cell != cell)
    return replace(results, sweeps={**results.sweeps, cell.model: Sweep(sweep.file, rows)})


def turned(results: Results, layer: int, angle: float) -> Results:
    """The published vector (3, 4, 0, L), turned in the plane of itself and (4, -3, 0, 0)."""
    vector = results.vectors["tiny", layer]
    other = np.array([4, -3, 0, 0]) * vector.norm / 5
    values = (math.cos(angle) * vector.values + math.sin(angle) * other).astype(np.float32)
    return replace(results, vectors={**results.vectors, ("tiny", layer): replace(vector, values=values)})


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
    ("name", "select"),
    [
        ("perplexity_ratio", Selector(layer=3, coef=2.0)),
        ("largest_coefficient_without_collapse", Selector(layer=3)),
        ("collapsed_cells", Selector()),
    ],
)
def test_a_missing_row_is_the_reason(study, results, name, select):
    gone = without(results, Cell("tiny", "steered", 3, 2.0))

    with pytest.raises(NotCheckable, match=r"sweep_tiny\.jsonl"):
        REGISTRY[name].observe(Case(study, select, gone))


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


@pytest.mark.parametrize("angle", [0.0, 0.1, 1.0, math.pi / 2, 3.0])
def test_the_cosine_is_that_of_the_angle(study, results, angle):
    case = Case(study, Selector(layer=3), turned(results, 3, angle), results)

    assert REGISTRY["vector_cosine"].observe(case).value == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_zero_vector_has_no_cosine(study, results):
    zero = replace(results.vectors["tiny", 3], values=np.zeros(4, dtype=np.float32))
    again = replace(results, vectors={**results.vectors, ("tiny", 3): zero})

    with pytest.raises(NotCheckable, match="norm 0"):
        REGISTRY["vector_cosine"].observe(Case(study, Selector(layer=3), again, results))


def _texts(row: SweepRow, change) -> dict[str, object]:
    return {"generations": tuple(change(text) for text in row.generations)}


def test_texts_count_as_the_same_up_to_the_first_near_tie(study, results):
    cell = Cell("tiny", "steered", 1, 2.0)
    published = results.sweeps["tiny"].find(cell)
    gens = [text.gen for text in published.generations]

    def observed(change):
        again = edited(results, cell, **_texts(published, change))
        return REGISTRY["identical_generations"].observe(Case(study, Selector(layer=1, coef=2.0), again, results))

    def differing(text, determined):
        return replace(text, gen=text.gen[:-1] + "#", determined=determined) if text.prompt_idx == 1 else text

    assert observed(lambda text: differing(text, None)).value == 2
    near_tie = observed(lambda text: differing(text, len(gens[1]) - 1))
    assert near_tie.value == 3
    assert "near-tie" in near_tie.note
    assert near_tie.note.endswith("prompts 1")
    assert observed(lambda text: differing(text, len(gens[1]))).value == 2
    # A shorter text is only the same if it ends at a near-tie.
    assert observed(lambda text: replace(text, gen=text.gen[:3])).value == 0
    assert observed(lambda text: replace(text, gen=text.gen[:3], determined=3)).value == 3
    assert observed(lambda text: replace(text, prompt="Another prompt.")).value == 0


def test_the_texts_that_differ_are_named(study, results):
    cell = Cell("tiny", "steered", 1, 2.0)
    texts = results.sweeps["tiny"].find(cell).generations

    def note(*again):
        measured = edited(results, cell, generations=again)
        return (
            REGISTRY["identical_generations"].observe(Case(study, Selector(layer=1, coef=2.0), measured, results)).note
        )

    other = [replace(text, gen="#" + text.gen) for text in texts]
    tied = replace(texts[1], gen=texts[1].gen[:-1] + "#", determined=len(texts[1].gen) - 1)
    assert note(*texts) == ""
    assert note(other[0], texts[1], other[2]) == "differing: prompts 0, 2"
    assert note(texts[0], tied, other[2]) == "same up to a near-tie of two tokens: prompts 1; differing: prompts 2"
    # A text that was not generated again differs too.
    assert note(texts[0], texts[2]) == "differing: prompts 1"


@pytest.mark.parametrize(
    ("name", "select", "cells", "texts", "vectors"),
    [
        ("perplexity", Selector(layer=3, coef=2.0), {Cell("tiny", "steered", 3, 2.0)}, set(), set()),
        ("identical_generations", Selector(label="anchor"), {Cell("tiny", "anchor", None, 0.0)}, True, set()),
        ("vector_cosine", Selector(layer=3), set(), set(), {("tiny", 3)}),
        ("contrast_pair_count", Selector(), set(), set(), set()),
        (
            "largest_coefficient_without_collapse",
            Selector(layer=3),
            {Cell("tiny", "steered", 3, coef) for coef in (1.0, 2.0, 4.0)},
            set(),
            set(),
        ),
        ("collapsed_cells", Selector(), {Cell("tiny", "steered", *place) for place in RATIOS}, set(), set()),
    ],
)
def test_a_re_run_measures_what_a_claim_needs(study, name, select, cells, texts, vectors):
    needs = REGISTRY[name].needs(study, select)

    assert needs.perplexity == cells
    assert needs.text == (cells if texts is True else texts)
    assert needs.vectors == vectors


def test_text_that_the_plan_does_not_generate_can_not_be_claimed(study):
    with pytest.raises(NotCheckable, match="generates no text"):
        REGISTRY["identical_generations"].needs(study, Selector(label="random", layer=1, coef=4.0))


@pytest.mark.parametrize(
    ("name", "select"),
    [
        ("collapsed", Selector(layer=3, coef=2.0)),
        ("collapsed_cells", Selector()),
        ("largest_coefficient_without_collapse", Selector(layer=3)),
    ],
)
@pytest.mark.parametrize(
    "deleted", [(), ("interval",), ("undecided",), ("interval", "undecided"), ("sentence_nll", "sentence_tokens")]
)
def test_deleting_evidence_does_not_decide_a_collapse(study, results, name, select, deleted):
    cell = Cell("tiny", "steered", 3, 2.0)
    wide = sweep_row(study, cell, 2.9, spread=2.0)
    changes = {field: getattr(wide, field) for field in wide.__dataclass_fields__ if field != "cell"}
    damaged = edited(results, cell, **{**changes, **dict.fromkeys(deleted)})

    assert f"of {cell} spans 3" in REGISTRY[name].observe(Case(study, select, damaged)).undecided


def test_the_measured_rows_are_the_planned_ones(study, results):
    assert all(row.ppl_ratio == ratio_of(row.cell) for row in results.sweeps["tiny"].rows)
