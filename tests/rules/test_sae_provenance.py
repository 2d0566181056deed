"""What an SAE records of its training, and what the study plans of it and its table, checked without a model."""

from __future__ import annotations

import json

import pytest
from rules.whole_study_edits import TABLE, found, planned
from whole_studies import whole

from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.validate import validate

FILE = "persona/saes/tiny/layers.3/cfg.json"


def wrong(tmp_path, **recorded: str | None) -> set[tuple[str, str, str]]:
    place = whole(tmp_path)
    path = place.model / FILE.removeprefix("persona/")
    config = read_json(path)
    said = {**config["metadata"]["steer_eval"], **recorded}
    config["metadata"]["steer_eval"] = {key: value for key, value in said.items() if value is not None}
    write_json(path, config)
    return {finding for finding in found(place) if finding[0] == "sae-provenance"}


@pytest.mark.parametrize("method", ["top-k", None])
@pytest.mark.parametrize("said", ["abc", "-1", "nan", "0"])
def test_a_sink_threshold_is_a_norm(tmp_path, said, method):
    """Also of an SAE that was trained elsewhere, as commands compute with it."""
    expected = {("sae-provenance", FILE, "metadata.steer_eval.sink_norm")}

    assert wrong(tmp_path, sink_norm=said, method=method) == expected


@pytest.mark.parametrize("said", ["inf", "100", None])
def test_one_that_leaves_no_token_out_is_good(tmp_path, said):
    assert wrong(tmp_path, sink_norm=said) == set()


@pytest.mark.parametrize("quality", [None, "{}", "nope", json.dumps({"held_out_fvu": "x"})])
def test_an_sae_of_ours_says_how_good_it_is(tmp_path, quality):
    [(_, file, where)] = wrong(tmp_path, quality=quality)

    assert file == FILE
    assert where.startswith("metadata.steer_eval.quality")


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("features", 16, "d_sae"),
        ("k", 2, "k"),
        ("recipe", "plain", "metadata.steer_eval.recipe"),
        ("seed", 7, "metadata.steer_eval.seed"),
        ("tokens", 2000, "metadata.steer_eval.tokens"),
        ("context", 16, "metadata.steer_eval.context"),
        ("text", {"offline": "wikipedia-sample"}, "metadata.steer_eval.text"),
    ],
)
def test_an_sae_is_held_to_its_plan(tmp_path, key, value, where):
    place = whole(tmp_path)
    planned(**{f"saes__{key}": value})(place)

    assert found(place) == [("sae-provenance", FILE, where)]


def test_one_of_another_width_is_named_with_both(tmp_path):
    place = whole(tmp_path)
    planned(saes__features=16)(place)

    [wrong] = [each for each in validate(place.repositories()).findings if each.rule == "sae-provenance"]
    assert (wrong.severity, wrong.expected, wrong.observed) == ("error", 16, 12)
    assert "sae train" in wrong.fix


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"coefficient": 1, "top": 6}, "coef"),
        ({"coefficient": 2, "top": 7}, "top_features"),
        ({"coefficient": 2, "top": 6, "seed": 1}, "statistics.seed"),
    ],
)
def test_a_feature_table_is_held_to_its_plan(tmp_path, table, where):
    place = whole(tmp_path)
    planned(saes__table=table)(place)

    assert found(place) == [("feature-sae", TABLE, where)]
