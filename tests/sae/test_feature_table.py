from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from some_saes import random_sae

from steer_eval.formats import schema
from steer_eval.formats.features import RowStatistics
from steer_eval.formats.features import table_of as read_table
from steer_eval.sae.contexts import Context
from steer_eval.sae.feature_statistics import Activity, paired_change
from steer_eval.sae.feature_table import Conditions, feature_table, ranked

FEATURES, PROMPTS, D_IN = 64, 24, 12
PLANTED = 41


def some_activity(seed: int, *, planted: float = 0.0) -> Activity:
    random = np.random.default_rng(seed)
    tokens = random.integers(5, 30, size=PROMPTS)
    firing = random.binomial(tokens[:, None], 0.15, size=(PROMPTS, FEATURES))
    if planted:
        firing[:, PLANTED] = tokens
    means = firing / tokens[:, None] * random.uniform(0.5, 1.5, size=(PROMPTS, FEATURES))
    means[:, PLANTED] += planted
    return Activity(means, firing, tokens)


def conditions(*, planted: float = 0.0) -> Conditions:
    return Conditions(
        base=some_activity(0),
        steered=some_activity(1, planted=planted),
        forced=some_activity(2),
        random=some_activity(3),
        random_forced=some_activity(4),
    )


def table_of(given: Conditions, **settings):
    vector = np.linspace(-1, 1, D_IN).astype(np.float32)
    sae = random_sae(D_IN, FEATURES, 4)
    table = feature_table(sae, given, vector, **{"coefficient": 2.0, "top": 10, "seed": 0, **settings})
    schema.check(table, "features", file="table.json")
    return table


def test_a_planted_feature_is_first_and_the_only_discovery():
    table = table_of(conditions(planted=30.0))

    first = table["top_features"][0]
    assert first["feature_id"] == PLANTED
    assert first["delta_q"] <= 0.05
    assert first["delta_interval"][0] > 25
    assert table["discoveries"]["delta"] <= 2
    # It is in the text: reading the same text under the edit does not show it.
    assert first["forced_delta_q"] > 0.05
    assert first["random_delta_q"] > 0.05


def test_identical_conditions_have_no_change():
    base = some_activity(0)

    table = table_of(Conditions(base, base, base, base, base))

    assert table["discoveries"] == {"delta": 0, "forced_delta": 0, "random_delta": 0, "random_forced_delta": 0}
    for row in table["top_features"]:
        assert row["delta"] == row["forced_delta"] == row["effect"] == 0
        assert row["delta_interval"] is None
        assert row["delta_q"] == 1


def test_every_number_is_that_of_a_direct_computation():
    given, sae = conditions(), random_sae(D_IN, FEATURES, 4)
    vector = np.linspace(-1, 1, D_IN).astype(np.float32)

    table = table_of(given, coefficient=-1.5, seed=4)

    delta = given.steered.means.mean(axis=0) - given.base.means.mean(axis=0)
    norms = np.linalg.norm(sae.w_dec.numpy(), axis=1)
    order = sorted(range(FEATURES), key=lambda feature: -abs(delta[feature]) * norms[feature])
    assert [row["feature_id"] for row in table["top_features"]] == order[:10]
    change = paired_change(given.base.means, given.forced.means, seed=4)
    for row in table["top_features"]:
        feature = row["feature_id"]
        assert row["delta"] == pytest.approx(delta[feature], rel=1e-6)
        assert row["effect"] == pytest.approx(abs(delta[feature]) * norms[feature], rel=1e-6)
        assert row["steered_freq"] == pytest.approx((given.steered.firing[:, feature] > 0).mean())
        tokens = given.base.tokens.sum()
        assert row["base_token_freq"] == pytest.approx(given.base.firing[:, feature].sum() / tokens)
        expected = -1.5 * float(vector.astype(np.float64) @ sae.w_enc[:, feature].double().numpy())
        assert row["predicted"] == pytest.approx(expected, rel=1e-6)
        assert row["forced_delta_interval"] == pytest.approx([change.low[feature], change.high[feature]], rel=1e-6)
        assert row["forced_delta_q"] == pytest.approx(change.q[feature])


def test_features_are_ranked_by_what_they_do_to_the_residual_stream():
    given, sae = conditions(planted=1.0), random_sae(D_IN, FEATURES, 4)
    sae.w_dec[PLANTED] = 0

    assert PLANTED not in ranked(sae, given, top=FEATURES - 1)
    sae.w_dec[PLANTED, 0] = 1e6
    assert ranked(sae, given, top=1) == [PLANTED]


def test_without_texts_of_the_random_direction_its_columns_are_left_out():
    table = table_of(replace(conditions(), random=None))

    assert "random_delta" not in table["top_features"][0]
    assert "random_delta" not in table["discoveries"]
    assert "random_forced_delta" in table["top_features"][0]


def test_contexts_stand_in_their_rows():
    feature = table_of(conditions(planted=30.0))["top_features"][0]["feature_id"]

    table = table_of(conditions(planted=30.0), contexts={feature: (Context("a ", "b", " c", 1.5),)})

    assert table["top_features"][0]["contexts"] == [{"before": "a ", "token": "b", "after": " c", "activation": 1.5}]
    assert table["top_features"][1]["contexts"] == []


def test_an_interval_that_few_prompts_do_not_give_is_withheld():
    every = conditions(planted=30.0)
    given = {name: each for name, each in vars(every).items() if each is not None}
    few = {name: Activity(each.means[:2], each.firing[:2], each.tokens[:2]) for name, each in given.items()}

    table = table_of(replace(every, **few))

    read = table_statistics(table)
    first = table["top_features"][0]
    assert first["feature_id"] == PLANTED
    assert first["delta_interval"] is None
    assert read.changes["delta"].low is read.changes["delta"].high is None
    assert read.changes["delta"].q == first["delta_q"]
    assert all(row["random_forced_delta_interval"] is None for row in table["top_features"])


def table_statistics(table) -> RowStatistics:
    statistics = read_table(table).rows[0].statistics
    assert statistics is not None
    return statistics


def test_the_random_texts_of_some_prompts_stand_against_the_unsteered_ones_of_the_same_prompts():
    whole, some = conditions(), [1, 4, 5, 6, 9, 10, 13, 14, 17, 20, 22]
    random = whole.random
    partial = replace(
        whole, random=Activity(random.means[some], random.firing[some], random.tokens[some]), pushed=tuple(some)
    )

    table, before = table_of(partial), table_of(whole)

    change = paired_change(whole.base.means[some], random.means[some], seed=0)
    assert (table["n_prompts"], table["n_random_prompts"]) == (PROMPTS, len(some))
    assert "n_random_prompts" not in before
    for row, other in zip(table["top_features"], before["top_features"], strict=True):
        feature = row["feature_id"]
        assert row["random_delta"] == pytest.approx(change.delta[feature], rel=1e-6)
        assert row["random_delta_q"] == pytest.approx(change.q[feature], rel=1e-6)
        assert row["delta_q"] == other["delta_q"]
        assert row["random_forced_delta"] == other["random_forced_delta"]
