"""An SAE and its table held to the plan that asks for them, as values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from some_saes import random_sae
from whole_studies import SAE, whole_document

from steer_eval.formats.features import FeatureRow, FeatureTable, TableStatistics
from steer_eval.formats.strict_json import write_jsonl
from steer_eval.sae.belongs import off_plan, recorded_of_plan, recorded_text, table_off_plan
from steer_eval.sae.plan import FeaturePlan, sae_plan
from steer_eval.sae.text import HubText, OfflineText, source_digest
from steer_eval.study import load_study

PLAN = sae_plan(SAE)


@pytest.fixture
def reference(tmp_path):
    (tmp_path / "study.yaml").write_text(json.dumps(whole_document()))
    return load_study(tmp_path / "study.yaml").models["tiny"]


def sae(**recorded):
    made = random_sae(4, PLAN.features, PLAN.k, layer=PLAN.layer)
    said = {**recorded_of_plan(PLAN), "dtype": "float32", **recorded}
    return replace(made, provenance={key: value for key, value in said.items() if value is not None})


def places(made, reference, folder, plan=PLAN):
    return [wrong.where for wrong in off_plan(made, plan, reference, folder)]


def test_the_one_that_was_trained_by_the_plan_is_good(reference, tmp_path):
    assert places(sae(), reference, tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"features": 13}, "d_sae"),
        ({"k": 2}, "k"),
        ({"layer": 1}, "metadata.hook_name"),
        ({"recipe": "plain"}, "metadata.steer_eval.recipe"),
        ({"seed": 7}, "metadata.steer_eval.seed"),
        ({"tokens": 2000}, "metadata.steer_eval.tokens"),
        ({"context": 16}, "metadata.steer_eval.context"),
        ({"text": OfflineText("neutral-sentences")}, "metadata.steer_eval.text"),
        ({"text": HubText("lab/text", "0" * 40)}, "metadata.steer_eval.text"),
    ],
)
def test_each_setting_of_the_plan_counts(reference, tmp_path, changes, where):
    other = replace(PLAN, **changes)

    assert places(sae(), reference, tmp_path, other) == [where]


def test_the_model_and_its_dtype_count(reference, tmp_path):
    assert places(sae(), replace(reference, base_model="lab/other"), tmp_path) == ["metadata.model_name"]
    assert places(sae(), replace(reference, dtype="bfloat16"), tmp_path) == ["metadata.steer_eval.dtype"]


def test_a_text_that_the_study_carries_counts_to_the_letter_where_it_is_there(reference, tmp_path):
    write_jsonl(tmp_path / "documents.jsonl", [{"text": "The old door."}])
    made = sae(text_sha256=source_digest(PLAN.text, tmp_path))
    assert places(made, reference, tmp_path) == []

    write_jsonl(tmp_path / "documents.jsonl", [{"text": "The new door."}])
    assert places(made, reference, tmp_path) == ["metadata.steer_eval.text_sha256"]

    (tmp_path / "documents.jsonl").unlink()
    assert places(made, reference, tmp_path) == []


def test_one_that_was_trained_elsewhere_is_held_to_what_it_has(reference, tmp_path):
    made = replace(random_sae(4, 13, PLAN.k, layer=PLAN.layer), provenance={})

    assert places(made, reference, tmp_path) == ["d_sae"]


def test_a_recorded_text_says_which_it_is():
    texts = [
        OfflineText("wikipedia-sample"),
        OfflineText("neutral-sentences"),
        HubText("lab/text", "0" * 40),
        PLAN.text,
    ]

    assert len({recorded_text(text) for text in texts}) == len(texts)
    assert recorded_text(texts[0]) == '{"OfflineText": {"name": "wikipedia-sample"}}'


def table(rows, statistics):
    row = FeatureRow(0, 1.0, 1.0, 0.0, 1.0, 0.0)
    return FeatureTable("lab/tiny-base", 3, 48, 5, (row,) * rows, statistics)


@pytest.mark.parametrize(
    ("plan", "rows", "statistics", "expected"),
    [
        (FeaturePlan(48.0, 6, 2), 6, TableStatistics(12, {}, {}, 2), []),
        (FeaturePlan(48.0, 20, 2), 12, TableStatistics(12, {}, {}, 2), []),
        (FeaturePlan(2.0, 6, 2), 6, TableStatistics(12, {}, {}, 2), ["coef"]),
        (FeaturePlan(48.0, 5, 2), 6, TableStatistics(12, {}, {}, 2), ["top_features"]),
        (FeaturePlan(48.0, 6, 3), 6, TableStatistics(12, {}, {}, 2), ["statistics.seed"]),
        (FeaturePlan(48.0, 6, 3), 6, None, []),
        (FeaturePlan(48.0, 7, 3), 6, None, ["top_features"]),
    ],
)
def test_a_table_is_that_of_its_plan(plan, rows, statistics, expected):
    assert [wrong.where for wrong in table_off_plan(table(rows, statistics), plan)] == expected
