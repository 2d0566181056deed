"""Mistakes in a comparison, in files beside an SAE and in diagnostics, each with the one finding that it gives.

The rules comparison-edits, comparison-no-op, comparison-sweep, sae-activity, sae-quality and transfer-diagnostics, and
those of sweeps as far as a comparison is held to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from studies import OnDisk, write_study
from whole_studies import FEATURES, QUALITY, sae, whole, whole_document

from steer_eval.cells import Cell
from steer_eval.comparison.cells import comparison_cells
from steer_eval.formats.saelens import write_saelens
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.formats.transfer import read_transfer_map, read_transferred, write_transfer_map, write_transferred
from steer_eval.sae.feature_activity import FeatureActivity, read_feature_activity, write_feature_activity
from steer_eval.validate import validate

COMPARED = "persona-data/comparison_tiny.jsonl"
TABLE = "persona/saes/tiny_L3_features.json"
ACTIVITY = "persona/saes/tiny/layers.3/activity.safetensors"
QUALITY_FILE = "persona/saes/tiny_L3_quality.json"
TRANSFER = "transfer/tiny_L3_to_tiny_L1"
DIAGNOSTICS = f"persona/{TRANSFER}_diagnostics.json"
METHODS = (
    "unsteered", "addition", "rotation", "stack", "features", "anchor", "anchor+addition", "patch", "patch-identity",
    "carried-ridge", "carried-procrustes",
)  # fmt: skip


def line_of(variant: str, label: str = "steered") -> int:
    """Line of a method's row: each but the unsteered model and the no-op is followed by its control."""
    lines = {}
    for method in METHODS:
        for kind in ("steered",) if method in ("unsteered", "patch-identity") else ("steered", "random"):
            lines[method, kind] = len(lines) + 1
    return lines[variant, label]


def of_row(
    variant: str, change: Callable[[dict[str, Any]], object], label: str = "steered"
) -> Callable[[OnDisk], None]:
    return lambda place: place.edit_line("comparison_tiny.jsonl", line_of(variant, label), change)


def edit(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda row: row["edits"][0].update(values)


def without_row(place: OnDisk) -> None:
    file = place.data / "comparison_tiny.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n")
    del lines[line_of("rotation", "random") - 1]
    file.write_text("\n".join(lines), encoding="utf-8")


def repeated_row(place: OnDisk) -> None:
    file = place.data / "comparison_tiny.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n")
    file.write_text("\n".join([*lines[:-1], lines[1], ""]), encoding="utf-8")


def of_json(file: str, change: Callable[[Any], object]) -> Callable[[OnDisk], None]:
    def changed(place: OnDisk) -> None:
        path = place.model / file.removeprefix("persona/")
        value = read_json(path)
        change(value)
        write_json(path, value)

    return changed


def of_activity(change: Callable[[torch.Tensor, torch.Tensor], object]) -> Callable[[OnDisk], None]:
    def changed(place: OnDisk) -> None:
        folder = place.model / "saes/tiny/layers.3"
        activity = read_feature_activity(folder, FEATURES)
        change(activity.maximum, activity.frequency)
        write_feature_activity(folder, activity, tokens=3600)

    return changed


def shorter_activity(place: OnDisk) -> None:
    """With a comparison, whose clamped features are then not known any more."""
    folder = place.model / "saes/tiny/layers.3"
    activity = read_feature_activity(folder, FEATURES)
    write_feature_activity(folder, FeatureActivity(activity.maximum[:-2], activity.frequency[:-2]), tokens=3600)


def activity_alone(place: OnDisk) -> None:
    folder = place.model / "saes/other/layers.3"
    activity = read_feature_activity(place.model / "saes/tiny/layers.3", FEATURES)
    write_feature_activity(folder, activity, tokens=3600)


def quality_beside(**changes: Any) -> Callable[[OnDisk], None]:
    return lambda place: write_json(place.model / QUALITY_FILE.removeprefix("persona/"), {**QUALITY, **changes})


def another_sae(place: OnDisk) -> None:
    good = sae()
    write_saelens(place.model / "saes/tiny/layers.3", replace(good, w_dec=1.5 * good.w_dec))


def turned_vectors(place: OnDisk) -> None:
    """What is carried, and its record, changed together, so that only the diagnostics are left to say so."""
    path = place.model / f"{TRANSFER}_vectors.safetensors"
    good, maps = read_transferred(path), read_transfer_map(place.model / f"{TRANSFER}.safetensors")
    turn = np.linalg.qr(np.random.Generator(np.random.Philox(9)).standard_normal((4, 4)))[0].astype(np.float32)
    carried = {**good.carried, "ridge": good.carried["ridge"] @ turn}
    write_transferred(path, replace(good, carried=carried))
    write_transfer_map(place.model / f"{TRANSFER}.safetensors", replace(maps, ridge=maps.ridge @ turn))


def planned(**changes: Any) -> Callable[[OnDisk], None]:
    def changed(place: OnDisk) -> None:
        document = whole_document()
        for path, value in changes.items():
            part, key = path.split("__")
            document[part][0][key] = value
        write_study(place.model, document)

    return changed


def of_test(path: str, **values: Any) -> Callable[[OnDisk], None]:
    def change(document: Any) -> None:
        for part in path.split("."):
            document = document[part]
        document.update(values)

    return of_json(DIAGNOSTICS, change)


ADDED = f"line {line_of('addition')}"
MISTAKES: dict[str, tuple[Callable[[OnDisk], object], list[tuple[str, str, str]]]] = {
    "a control that is absent": (without_row, [("sweep-missing", COMPARED, "")]),
    "a row that stands twice": (repeated_row, [("sweep-duplicate", COMPARED, "line 21")]),
    "a wrong ratio": (
        of_row("rotation", lambda row: row.update(ppl_ratio=1.4)),
        [("sweep-arithmetic", COMPARED, f"line {line_of('rotation')}: ppl_ratio")],
    ),
    "a wrong interval": (
        of_row("rotation", lambda row: row["ppl_ratio_interval"].__setitem__(1, 2.9)),
        [("sweep-arithmetic", COMPARED, f"line {line_of('rotation')}: ppl_ratio_interval[1]")],
    ),
    "a wrong mark of collapse": (
        of_row("rotation", lambda row: row.update(collapsed=True, generations=[])),
        [("sweep-arithmetic", COMPARED, f"line {line_of('rotation')}: collapsed")],
    ),
    "a base that is not that of the place": (
        of_row("patch", lambda row: row.update(base_ppl=21.0, ppl_ratio=row["ppl"] / 21.0)),
        [("sweep-arithmetic", COMPARED, f"line {line_of('patch')}: base_ppl")],
    ),
    "a collapsed cell with a text": (
        of_row(
            "stack",
            lambda row: row.update(
                generations=[{"prompt_idx": 0, "prompt": "The lift is broken again.", "gen": "x", "n_tokens": 1}]
            ),
        ),
        [("sweep-texts", COMPARED, f"line {line_of('stack')}: generations")],
    ),
    "a text that is absent": (
        of_row("rotation", lambda row: row["generations"].pop()),
        [("sweep-texts", COMPARED, f"line {line_of('rotation')}: generations")],
    ),
    "another prompt": (
        of_row("rotation", lambda row: row["generations"][1].update(prompt="Hello.")),
        [("sweep-prompt", COMPARED, f"line {line_of('rotation')}: generations")],
    ),
    "another layer": (of_row("addition", edit(layer=1)), [("comparison-edits", COMPARED, f"{ADDED}: edits[0].layer")]),
    "another coefficient": (
        of_row("addition", edit(coefficient=3.0)),
        [("comparison-edits", COMPARED, f"{ADDED}: edits[0].coefficient")],
    ),
    "another norm": (
        of_row("stack", edit(norm=5.0)),
        [("comparison-edits", COMPARED, f"line {line_of('stack')}: edits[0].norm")],
    ),
    "a control that is the method": (
        of_row("addition", edit(vector_sha256="f" * 64), "random"),
        [("comparison-edits", COMPARED, f"line {line_of('addition', 'random')}: edits[0].vector_sha256")],
    ),
    "other features": (
        of_row("features", lambda row: row["edits"][0].update(features=row["edits"][0]["features"][::-1])),
        [("comparison-edits", COMPARED, f"line {line_of('features')}: edits[0].features")],
    ),
    "another activation": (
        of_row("features", lambda row: row["edits"][0]["values"].__setitem__(0, 9.0)),
        [("comparison-edits", COMPARED, f"line {line_of('features')}: edits[0].values")],
    ),
    "an edit that is absent": (
        of_row("stack", lambda row: row["edits"].pop()),
        [("comparison-edits", COMPARED, f"line {line_of('stack')}: edits")],
    ),
    "a patch from elsewhere": (
        of_row("patch", edit(source="random")),
        [("comparison-edits", COMPARED, f"line {line_of('patch')}: edits[0].source")],
    ),
    "another anchor": (
        of_row("anchor", lambda row: row.update(system_prompt="Be kind.")),
        [("sweep-anchor", COMPARED, f"line {line_of('anchor')}: system_prompt")],
    ),
    "a control with other words": (
        of_row("anchor", lambda row: row.update(system_prompt="Be firm."), "random"),
        [("sweep-anchor", COMPARED, f"line {line_of('anchor', 'random')}: system_prompt")],
    ),
    "a system prompt where there is none": (
        of_row("rotation", lambda row: row.update(system_prompt="Be firm.")),
        [("sweep-anchor", COMPARED, f"line {line_of('rotation')}: system_prompt")],
    ),
    "an identity that changes a text": (
        of_row("patch-identity", lambda row: row["generations"][1].update(gen="Else.")),
        [("comparison-no-op", COMPARED, f"line {line_of('patch-identity')}: prompt 1")],
    ),
    "activity of fewer features": (shorter_activity, [("sae-activity", ACTIVITY, "maximum")]),
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
OF_MANIFESTS = {"checksum", "manifest-size", "file-absent", "file-unlisted"}


def found(place: OnDisk) -> list[tuple[str, str, str]]:
    """What is wrong, but for manifests, which are those of the clean study."""
    return sorted(
        (finding.rule, finding.file.removeprefix(f"{place.model.parent}/"), finding.where)
        for finding in validate(place.repositories(), with_cards=False).findings
        if finding.severity != "note" and finding.rule not in OF_MANIFESTS
    )


def test_the_lines_are_those_of_the_plan(tmp_path):
    cells = comparison_cells(whole(tmp_path).study(), "tiny")

    assert [line_of(cell.variant, "random" if cell.label == "random" else "steered") for cell in cells] == list(
        range(1, len(cells) + 1)
    )


@pytest.mark.parametrize(("make", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found_where_it_is(tmp_path, make, expected):
    place = whole(tmp_path)
    make(place)

    assert found(place) == sorted(expected)


def test_a_row_of_no_planned_method_is_named(tmp_path):
    place = whole(tmp_path)
    document = whole_document()
    del document["comparisons"][0]["features"]
    write_study(place.model, document)

    lines = [line_of("features"), line_of("features", "random")]
    assert found(place) == [("sweep-unplanned", COMPARED, f"line {line}") for line in lines]


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


def test_one_cell_has_one_perplexity(tmp_path):
    place = whole(tmp_path)
    results = place.results()
    other = next(row for row in results.comparisons["tiny"].rows if row.cell.variant == "rotation")
    fields = ("ppl", "ppl_ratio", "ppl_ratio_interval", "sentence_nll", "collapse_undecided")
    lines = (place.data / "comparison_tiny.jsonl").read_text(encoding="utf-8").splitlines()
    values = json.loads(lines[other.line - 1])
    of_row("addition", lambda row: row.update({key: values[key] for key in fields}))(place)

    assert found(place) == [("comparison-sweep", COMPARED, f"{ADDED}: ppl")]


@pytest.mark.parametrize("variant", ["addition", "anchor"])
def test_one_cell_has_one_text_per_prompt(tmp_path, variant):
    place = whole(tmp_path)
    of_row(variant, lambda row: row["generations"][1].update(gen="Another text."))(place)

    assert found(place) == [("comparison-sweep", COMPARED, f"line {line_of(variant)}: prompt 1")]


def test_texts_of_one_cell_may_part_at_a_near_tie(tmp_path):
    place = whole(tmp_path)
    of_row("addition", lambda row: row["generations"][1].update(gen="Another text.", determined=0))(place)

    assert found(place) == []


def test_an_identity_that_costs_something_is_none(tmp_path):
    place = whole(tmp_path)
    lines = (place.data / "comparison_tiny.jsonl").read_text(encoding="utf-8").splitlines()
    values = json.loads(lines[line_of("patch") - 1])
    fields = ("ppl", "ppl_ratio", "ppl_ratio_interval", "sentence_nll", "collapse_undecided")
    of_row("patch-identity", lambda row: row.update({key: values[key] for key in fields}))(place)

    assert found(place) == [("comparison-no-op", COMPARED, f"line {line_of('patch-identity')}: ppl_ratio")]


def test_a_comparison_that_is_planned_and_absent_is_an_error(tmp_path):
    place = whole(tmp_path)
    (place.data / "comparison_tiny.jsonl").unlink()

    assert found(place) == [("table", COMPARED, "")]


def test_a_bad_row_does_not_hide_the_others(tmp_path):
    place = whole(tmp_path)
    of_row("rotation", lambda row: row.update(ppl=-1.0))(place)

    wrong = found(place)
    assert ("table", COMPARED, f"line {line_of('rotation')}: ppl") in wrong
    assert {(rule, file) for rule, file, _ in wrong} == {("table", COMPARED), ("sweep-missing", COMPARED)}


def test_the_norms_are_those_of_the_vectors(tmp_path):
    """By hand: |v| is sqrt(25 + 9) at layer 3, and a stack injects 2 |v| in two equal shares."""
    rows = {row.cell: row for row in whole(tmp_path).results().comparisons["tiny"].rows}
    norm = float(np.sqrt(34))

    [added] = rows[Cell("tiny", "steered", 3, 2.0, "addition")].edits
    assert added["norm"] == pytest.approx(2 * norm, rel=1e-6)
    for label in ("steered", "random"):
        edits = rows[Cell("tiny", label, None, 2.0, "stack")].edits
        assert [each["norm"] for each in edits] == pytest.approx([norm, norm], rel=1e-6)


def test_the_study_is_good_yaml(tmp_path):
    text = (whole(tmp_path).model / "study.yaml").read_text(encoding="utf-8")

    assert yaml.safe_load(text)["comparisons"][0]["stack"] == [1, 3]
