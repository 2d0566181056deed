"""Facts of SAEs and feature tables, from documents whose numbers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measured_documents import FEATURE, QUALITY, TABLE
from some_saes import random_sae

from steer_eval.claims.claim import Selector
from steer_eval.claims.conflicts import Conflicts
from steer_eval.claims.fact import Facts
from steer_eval.claims.facts import facts_of
from steer_eval.claims.names import ModelNames
from steer_eval.claims.sae_facts import feature_facts, quality_facts
from steer_eval.findings import Finding
from steer_eval.formats import schema
from steer_eval.formats.features import table_of
from steer_eval.formats.saelens import write_saelens
from steer_eval.formats.strict_json import write_json
from steer_eval.inventory import Root, take_inventory

NAMES = ModelNames({"tiny": "lab/tiny-base"})
SAE = Selector("tiny", layer=2)


def of_quality(quality: dict[str, Any]) -> dict[str, float]:
    schema.check(quality, "sae_quality", file="quality")
    return {fact.measure: float(fact.value) for fact in quality_facts(quality, SAE, "cfg.json", "quality.")}


def test_an_sae_says_how_good_it_is() -> None:
    assert of_quality(QUALITY) == {
        "sae_heldout_fvu": 0.2184,
        "sae_l0": 31.5,
        "sae_heldout_tokens": 900,
        "sae_clean_cross_entropy": 3.75,
        "sae_cross_entropy": 4.0,
        "sae_excess_cross_entropy": 0.25,
        "sae_training_tokens": 9000,
        "sae_dead_share": 1.25,
        "sae_recovered_cross_entropy": 0.95,
    }


def test_what_was_not_measured_again_is_no_fact() -> None:
    again = {key: value for key, value in QUALITY.items() if key not in ("dead_share", "training_tokens")}

    assert of_quality(QUALITY).keys() - of_quality(again).keys() == {"sae_dead_share", "sae_training_tokens"}
    # Where the mean in its place costs nothing there is nothing to win back.
    assert "sae_recovered_cross_entropy" not in of_quality({**QUALITY, "cross_entropy_mean_ablation": 3.75})
    assert list(quality_facts({}, SAE, "cfg.json")) == []


def test_a_feature_has_each_change_with_its_noise() -> None:
    schema.check(TABLE, "features", file="table")
    facts = Facts(feature_facts(table_of(TABLE), SAE, "f.json"))

    def value(measure: str, **select: Any) -> float:
        [fact] = facts.find(measure, replace(SAE, **select))
        return float(fact.value)

    for change in ("delta", "forced_delta", "random_delta", "random_forced_delta"):
        low, high = FEATURE[f"{change}_interval"]
        numbers = [value(f"feature_{change}{part}", feature=7) for part in ("", "_low", "_high", "_q")]
        assert numbers == [FEATURE[change], low, high, FEATURE[f"{change}_q"]]
        assert value("feature_discoveries", variant=change) == TABLE["discoveries"][change]
    assert value("feature_predicted", feature=7) == 1.25
    assert value("feature_effect", feature=7, coef=2.0) == 3.0
    assert value("feature_steered_token_frequency", feature=7) == 75.0
    assert value("feature_base_token_frequency", feature=7) == 12.5
    assert value("feature_base_frequency", feature=7) == 50.0
    assert value("feature_prompts") == 8


def test_a_table_without_statistics_has_no_facts_of_them() -> None:
    plain = {key: value for key, value in TABLE.items() if key not in ("format", "statistics", "discoveries")}
    facts = Facts(feature_facts(table_of(plain), SAE, "f.json"))

    assert facts.find("feature_delta", Selector())
    assert not facts.find("feature_forced_delta", Selector())
    assert not facts.find("feature_discoveries", Selector())


def published(folder: Path, quality: str | None) -> Facts:
    sae = random_sae(12, 96, 4)
    provenance = {} if quality is None else {"method": "top-k", "quality": quality}
    write_saelens(folder / "saes/tiny/layers.2", replace(sae, provenance=provenance))
    return facts_of(take_inventory([Root(folder, "m/", "model")]), NAMES)


def test_the_facts_of_a_folder_name_the_place_in_its_settings(tmp_path: Path) -> None:
    [fact] = published(tmp_path, json.dumps(QUALITY)).find("sae_heldout_fvu", SAE)

    assert (fact.value, fact.file) == (0.2184, "m/saes/tiny/layers.2/cfg.json")
    assert fact.where == "metadata.steer_eval.quality.held_out_fvu"
    assert fact.note == "over 900 held-out tokens, without attention sinks"


@pytest.mark.parametrize("quality", [None, "no JSON", "{}", json.dumps({**QUALITY, "held_out_fvu": -1})])
def test_an_sae_that_does_not_say_it_has_no_such_facts(tmp_path: Path, quality: str | None) -> None:
    facts = published(tmp_path, quality)

    assert not facts.find("sae_heldout_fvu", Selector())
    assert facts.find("sae_width", Selector())


def test_of_two_files_of_one_name_that_of_the_model_repo_counts(tmp_path: Path) -> None:
    for role, delta in (("model", 1.5), ("dataset", 2.5)):
        row = {**FEATURE, "delta": delta}
        write_json(tmp_path / role / "saes/tiny_L2_features.json", {**TABLE, "top_features": [row]})
    write_json(tmp_path / "dataset/saes/tiny_L2_quality.json", {**QUALITY, "held_out_fvu": 0.5})
    published(tmp_path / "model", json.dumps(QUALITY))
    roots = [Root(tmp_path / role, f"{role}/", role) for role in ("model", "dataset")]
    facts = facts_of(take_inventory(roots), NAMES)

    assert [fact.value for fact in facts.find("feature_delta", Selector())] == [1.5]
    assert [fact.value for fact in facts.find("sae_heldout_fvu", Selector())] == [0.2184]


@pytest.mark.parametrize(
    ("rule", "where", "touched"),
    [
        ("feature-statistics", "top_features[0].effect", {"feature_effect"}),
        (
            "feature-statistics",
            "top_features[0].random_delta_interval",
            {"feature_random_delta", "feature_random_delta_low", "feature_random_delta_high", "feature_random_delta_q"},
        ),
        ("feature-statistics", "top_features[0].base_token_freq", {"feature_base_token_frequency"}),
        ("feature-sae", "top_features[0].predicted", {"feature_predicted"}),
        ("feature-statistics", "discoveries.forced_delta", {"feature_discoveries"}),
    ],
)
def test_a_finding_touches_the_numbers_that_take_part_in_it(rule: str, where: str, touched: set[str]) -> None:
    against = Conflicts.of([Finding(rule, "error", "f.json", where, "it does not add up")]).against
    facts = [*feature_facts(table_of(TABLE), SAE, "f.json")]

    assert {fact.measure for fact in facts if against(fact)} == touched
    assert sum(bool(against(fact)) for fact in facts) == len(touched)


@pytest.mark.parametrize(("rule", "prefix"), [("sae-provenance", "metadata.steer_eval.quality."), ("sae-quality", "")])
def test_a_wrong_difference_touches_what_it_is_the_difference_of(rule: str, prefix: str) -> None:
    facts = [*quality_facts(QUALITY, SAE, "cfg.json", prefix)]

    def touched(key: str) -> set[str]:
        against = Conflicts.of([Finding(rule, "error", "cfg.json", f"{prefix}{key}", "no")]).against
        return {fact.measure for fact in facts if against(fact)}

    assert touched("excess_cross_entropy") == {
        "sae_clean_cross_entropy",
        "sae_cross_entropy",
        "sae_excess_cross_entropy",
        "sae_recovered_cross_entropy",
    }
    assert touched("held_out_l0") == {"sae_l0"}
