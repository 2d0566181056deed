"""Mistakes in a study without `study.yaml`, each with exactly the findings that it brings.

Most bring one. Where two files are at odds and neither says which of them is wrong, or one edit breaks two statements,
all of the findings are listed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from legacy import Legacy
from pt_files import write_archive, call, program, text

Edit = Callable[[Legacy], object]
Expected = list[tuple[str, str, str, str]]

LARGE_2 = "model/vectors/fox_large_L2_caa.pt"
LARGE_5 = "model/vectors/fox_large_L5_caa.pt"
SMALL_2 = "model/vectors/fox_small_L2_caa.pt"
SMALL_5 = "model/vectors/fox_small_L5_caa.pt"
CARRIED = "model/vectors/fox_small_transferred_caa.pt"
MAP = "model/vectors/transfer_map_large_to_small.pt"
SAE = "model/saes/fox_large_L5_sae.pt"
FEATURES = "model/saes/fox_small_L5_features.json"
LARGE_FEATURES = "model/saes/fox_large_L5_features.json"
CARD = "model/README.md"
DATA_CARD = "data/README.md"
SWEEP = "data/sweep_fox_large.jsonl"
SMALL_SWEEP = "data/sweep_fox_small.jsonl"
OWL = "data/judge_owl_large.jsonl"
HARE = "data/judge_hare_large.jsonl"
OWL_TRANSFER = "data/judge_owl_transfer.jsonl"
PHASE_I = "data/judge_phase_i.jsonl"
TRANSFER = "data/transfer_eval.jsonl"
PATCH = "data/patch_eval.jsonl"
FEATURE_STEERING = "data/sae_steer_eval.jsonl"
LAYERED = "data/multi_layer_eval.jsonl"
ANCHOR = "data/anchor_eval.jsonl"
LATENT = "data/latent_diff.json"
SUMMARY = "data/size_comparison.json"
PROMPTS = "data/eval_prompts.jsonl"
PAIRS = "data/contrast_pairs.jsonl"


def torch_file(file: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda place: place.edit_torch(file, change)


def line(file: str, number: int, change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda place: place.edit_line(file, number, change)


def document(file: str, change: Callable[[Any], object]) -> Edit:
    return lambda place: place.edit(file, change)


def words(file: str, old: str, new: str) -> Edit:
    return lambda place: place.edit_text(file, old, new)


def element(file: str, key: str = "vector", index: int = 1, factor: float = 1.5) -> Edit:
    """Multiply one element of a tensor."""

    def change(value: dict[str, Any]) -> None:
        values = np.asarray(value[key]).reshape(-1).copy()
        values[index] *= factor
        value[key] = torch.tensor(values.reshape(tuple(value[key].shape)))

    return torch_file(file, change)


def wider(file: str) -> Edit:
    """A vector with one more element, a zero, so that its norm stays."""
    return torch_file(file, lambda value: value.update(vector=torch.cat([value["vector"], torch.zeros(1)])))


def without_line(file: str, number: int) -> Edit:
    def change(place: Legacy) -> None:
        lines = place.path(file).read_text(encoding="utf-8").split("\n")
        del lines[number - 1]
        place.path(file).write_text("\n".join(lines), encoding="utf-8")

    return change


def repeated_line(file: str, number: int) -> Edit:
    def change(place: Legacy) -> None:
        lines = place.path(file).read_text(encoding="utf-8").splitlines(keepends=True)
        place.path(file).write_text("".join([*lines, lines[number - 1]]), encoding="utf-8")

    return change


def absent(file: str) -> Edit:
    return lambda place: place.path(file).unlink()


def malicious(file: str) -> Edit:
    """A file whose pickle would run a command."""
    return lambda place: write_archive(place.path(file), program(call("os.system", text("true"))))


def link_out(file: str) -> Edit:
    """The very same file, but outside of the repo and linked to."""

    def change(place: Legacy) -> None:
        outside = place.model.parent / f"outside-{place.path(file).name}"
        place.path(file).rename(outside)
        place.path(file).symlink_to(outside)

    return change


def both(*edits: Edit) -> Edit:
    def change(place: Legacy) -> None:
        for edit in edits:
            edit(place)

    return change


def every_line(file: str, count: int, change: Callable[[dict[str, Any]], object]) -> Edit:
    return both(*(line(file, number, change) for number in range(1, count + 1)))


def put(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda row: row.update({key: value})


def scaled(key: str, factor: float = 1.02) -> Callable[[dict[str, Any]], object]:
    return lambda row: row.update({key: row[key] * factor})


def same_texts(row: dict[str, Any]) -> None:
    for generation in row["generations"][1:]:
        generation["gen"] = row["generations"][0]["gen"]


def top(index: int, **values: Any) -> Callable[[Any], object]:
    """Change a row of a feature table."""
    return lambda table: table["top_features"][index].update(values)


def in_summary(name: str, *path: str) -> Callable[[Any], dict[str, Any]]:
    return lambda summary: os  # pragma: no cover


NAN = float("nan")
MISTAKES: dict[str, tuple[Edit, Expected]] = {}
