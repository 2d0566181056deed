"""Mistakes in files beside an SAE and in diagnostics, each with the findings that it gives.

The rules feature-sae, sae-activity, sae-quality, transfer-diagnostics and transfer-licence.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from rules.whole_study_edits import (
    ACTIVITY,
    COMPARED,
    DIAGNOSTICS,
    QUALITY_FILE,
    TABLE,
    activity_alone,
    another_sae,
    found,
    line_of,
    of_activity,
    of_json,
    of_test,
    planned,
    quality_beside,
    shorter_activity,
    turned_vectors,
)
from studies import OnDisk
from whole_studies import whole

MISTAKES: dict[str, tuple[Callable[[OnDisk], object], list[tuple[str, str, str]]]] = {
    "activity of fewer features": (
        shorter_activity,
        [("sae-activity", ACTIVITY, "maximum"), ("comparison-unchecked", COMPARED, f"line {line_of('features')}")],
    ),
    "a feature that fires and has no activation": (
        of_activity(lambda maximum, _: maximum.__setitem__(0, 0.0)),
        [("sae-activity", ACTIVITY, "frequency")],
    ),
    "activity without an SAE": (
        activity_alone,
        [("sae-activity", "persona/saes/other/layers.3/activity.safetensors", "")],
    ),
    "another quality": (quality_beside(held_out_fvu=0.1), [("sae-quality", QUALITY_FILE, "held_out_fvu")]),
    "another norm of a decoder row": (
        of_json(
            TABLE,
            lambda table: table["top_features"][0].update(
                decoder_norm=2 * table["top_features"][0]["decoder_norm"],
                effect=2 * table["top_features"][0]["effect"],
            ),
        ),
        [("feature-sae", TABLE, "top_features[0].decoder_norm")],
    ),
    "another prediction": (
        of_json(TABLE, lambda table: table["top_features"][2].update(predicted=0.5)),
        [("feature-sae", TABLE, "top_features[2].predicted")],
    ),
    "more features than the SAE has": (
        of_json(TABLE, lambda table: table.update(n_features=13)),
        [("feature-sae", TABLE, "n_features")],
    ),
    "diagnostics of another layer": (
        of_json(DIAGNOSTICS, lambda value: value["source"].update(layer=2)),
        [("transfer-diagnostics", DIAGNOSTICS, "source"), ("transfer-diagnostics", DIAGNOSTICS, "source.layer")],
    ),
    "diagnostics of other weights": (
        of_json(DIAGNOSTICS, lambda value: value["target"].update(weights_sha256="f" * 64)),
        [("transfer-diagnostics", DIAGNOSTICS, "target.weights_sha256")],
    ),
    "diagnostics of another text": (
        of_json(DIAGNOSTICS, lambda value: value.update(text_sha256="f" * 64)),
        [("transfer-diagnostics", DIAGNOSTICS, "text_sha256")],
    ),
    "diagnostics of other pairs": (
        of_json(DIAGNOSTICS, lambda value: value["pairs"].update(sha256="f" * 64)),
        [("transfer-diagnostics", DIAGNOSTICS, "pairs.sha256")],
    ),
    "diagnostics of another model": (
        of_json(DIAGNOSTICS, lambda value: value["target"].update(base_model="lab/other-base")),
        [("transfer-diagnostics", DIAGNOSTICS, "target.base_model")],
    ),
    "another number of rows": (
        of_test("protocols.recommended", n_rows=61),
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.recommended.n_rows")],
    ),
    "another penalty": (
        of_test("protocols.recommended.maps.ridge.settings", alpha=77.0),
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.recommended.maps.ridge.settings.alpha")],
    ),
    "another plan": (planned(transfers__words=300), [("transfer-diagnostics", DIAGNOSTICS, "plan")]),
    "another share of the norm": (
        of_test("protocols.recommended.maps.procrustes", carried_norm_share=3.0),
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.recommended.maps.procrustes.carried_norm_share")],
    ),
    "a p-value between two counts": (
        of_test("protocols.plain.svcca", p=0.12),
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.plain.svcca.p")],
    ),
    "a p-value that does not fit the bound": (
        of_test("protocols.recommended.debiased_cka", value=0.9, null_95=0.1, p=0.5),
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.recommended.debiased_cka.p")],
    ),
    "a low p-value below the bound": (
        of_test("protocols.recommended.debiased_cka", value=0.1, null_95=0.9, p=0.05),
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.recommended.debiased_cka.p")],
    ),
    "a share of no number of pairs": (
        of_test("protocols.plain.maps.ridge.retrieval", value=0.3, null_95=0.3),
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.plain.maps.ridge.retrieval.value")],
    ),
    "another chance": (
        of_test("protocols.plain.maps.ridge.retrieval", chance=0.3),
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.plain.maps.ridge.retrieval.chance")],
    ),
    "vectors that were carried otherwise": (
        turned_vectors,
        [("transfer-diagnostics", DIAGNOSTICS, "protocols.recommended.maps.ridge.cosine_to_native.value")],
    ),
}


@pytest.mark.parametrize(("make", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found_where_it_is(tmp_path, make, expected):
    place = whole(tmp_path)
    make(place)

    assert found(place) == sorted(expected)


def test_a_longer_decoder_is_another_sae(tmp_path):
    """Its table has other norms, and what was clamped was another SAE's."""
    place = whole(tmp_path)
    another_sae(place)

    rules = {(rule, where.rpartition(".")[2]) for rule, _, where in found(place)}
    assert rules == {("feature-sae", "decoder_norm"), ("comparison-edits", "sae_sha256")}


def test_the_share_of_dead_features_is_that_of_the_activity(tmp_path):
    """What is clamped follows from the activity too."""
    place = whole(tmp_path)
    of_activity(lambda maximum, frequency: (maximum.__setitem__(0, 0.0), frequency.__setitem__(0, 0.0)))(place)

    wrong = found(place)
    assert ("sae-activity", ACTIVITY, "frequency") in wrong
    assert {rule for rule, _, _ in wrong} <= {"sae-activity", "comparison-edits"}


def test_the_study_is_good_yaml(tmp_path):
    text = (whole(tmp_path).model / "study.yaml").read_text(encoding="utf-8")

    assert yaml.safe_load(text)["comparisons"][0]["stack"] == [1, 3]
