"""Single edits of a whole study: its files by name, the rows of its comparison, and ways to change them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from studies import OnDisk, write_study
from whole_studies import FEATURES, QUALITY, sae, whole_document

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


def without(path: str) -> Callable[[OnDisk], None]:
    def removed(place: OnDisk) -> None:
        target = place.model / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()

    return removed


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


OF_MANIFESTS = {"checksum", "manifest-size", "file-absent", "file-unlisted"}


def found(place: OnDisk) -> list[tuple[str, str, str]]:
    """What is wrong, but for manifests, which are those of the clean study."""
    return sorted(
        (finding.rule, finding.file.removeprefix(f"{place.model.parent}/"), finding.where)
        for finding in validate(place.repositories(), with_cards=False).findings
        if finding.severity != "note" and finding.rule not in OF_MANIFESTS
    )
