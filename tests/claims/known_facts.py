"""Facts of a synthetic study that are known in advance: what judges, a feature table, an SAE and variants say."""

from __future__ import annotations

from dataclasses import replace

from studies import RATIOS

from steer_eval.claims.claim import Selector, pair_of
from steer_eval.claims.diagnostic_facts import OF_MAPS, OF_ROWS
from steer_eval.claims.fact import IMPUTED, Fact, Facts
from steer_eval.formats.features import CHANGES

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
