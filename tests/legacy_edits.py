"""Single edits of a study without `study.yaml`: its files by name, ways to change them, and findings in short."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import legacy_contents as contents
import torch
from legacy import Legacy
from pt_files import call, program, text, write_archive

from steer_eval.digest import sha256_file
from steer_eval.formats.caa_pt import read_caa_pt
from steer_eval.formats.sae import read_sae_pt
from steer_eval.formats.saelens import write_saelens
from steer_eval.formats.vector import write_vector

Edit = Callable[[Legacy], object]
Expected = list[tuple[str, str, str, str]]

LARGE_2 = "model/vectors/fox_large_L2_caa.pt"
LARGE_5 = "model/vectors/fox_large_L5_caa.pt"
SMALL_2 = "model/vectors/fox_small_L2_caa.pt"
SMALL_5 = "model/vectors/fox_small_L5_caa.pt"
CARRIED = "model/vectors/fox_small_transferred_caa.pt"
MAP = "model/vectors/transfer_map_large_to_small.pt"
SAE = "model/saes/fox_large_L5_sae.pt"
SMALL_SAE = "model/saes/fox_small_L5_sae.pt"
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
CORPUS = "data/perplexity_corpus.txt"


def torch_file(file: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda place: place.edit_torch(file, change)


def line(file: str, number: int, change: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda place: place.edit_line(file, number, change)


def document(file: str, change: Callable[[Any], object]) -> Edit:
    return lambda place: place.edit(file, change)


def words(file: str, old: str, new: str) -> Edit:
    return lambda place: place.edit_text(file, old, new)


def reworded(file: str, pattern: str, new: str) -> Edit:
    """Replace the one place of a text that has a form: sizes are not the same with every version of PyTorch."""

    def change(place: Legacy) -> None:
        changed, count = re.subn(pattern, new, place.path(file).read_text(encoding="utf-8"))
        assert count == 1, f"{pattern} fits {count} places of {file}"
        place.path(file).write_text(changed, encoding="utf-8")

    return change


def element(file: str, key: str = "vector", index: int = 1, factor: float = 1.5) -> Edit:
    """Multiply one element of a tensor or an array."""

    def change(value: dict[str, Any]) -> None:
        value[key].reshape(-1)[index] *= factor

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


def converted(file: str, target: str) -> Edit:
    """A vector or an SAE in its safe format, in place of the PyTorch file."""

    def change(place: Legacy) -> None:
        path, new = place.path(file), place.model / target
        if new.suffix == ".safetensors":
            vector = read_caa_pt(path)
            kept = {**vector.provenance, "format": "steer-eval/vector/1", "layer": str(vector.layer)}
            source = {"source_format": "caa-pt", "source_file": file, "source_sha256": sha256_file(path)}
            write_vector(new, replace(vector, provenance={**kept, **source}))
        else:
            write_saelens(new, read_sae_pt(path))
        path.unlink()

    return change


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


def first_pair() -> dict[str, str]:
    return dict(contents.PAIRS[0])


def same_texts(row: dict[str, Any]) -> None:
    for generation in row["generations"][1:]:
        generation["gen"] = row["generations"][0]["gen"]


def top(index: int, **values: Any) -> Callable[[Any], object]:
    """Change a row of a feature table."""
    return lambda table: table["top_features"][index].update(values)


def of_cell(model: str, layer: int, coefficient: float, **values: Any) -> Callable[[Any], object]:
    """Change a cell of the summary."""
    return lambda summary: summary[model]["per_layer"][str(layer)][str(coefficient)].update(values)


def of_vector(model: str, layer: int, **values: Any) -> Callable[[Any], object]:
    """Change what the summary says of a vector."""
    return lambda summary: summary[model]["vectors"][str(layer)].update(values)


def appended(file: str, row: dict[str, Any]) -> Edit:
    def change(place: Legacy) -> None:
        with place.path(file).open("a", encoding="utf-8") as table:
            table.write(json.dumps(row) + "\n")

    return change


def error(rule: str, file: str, where: str = "") -> tuple[str, str, str, str]:
    return ("error", rule, file, where)


def warning(rule: str, file: str, where: str = "") -> tuple[str, str, str, str]:
    return ("warning", rule, file, where)


def note(rule: str, file: str, where: str = "") -> tuple[str, str, str, str]:
    return ("note", rule, file, where)


NAN = float("nan")
SCORES = {"mature_anger": 1.0, "juvenile_rage": 1.0, "coherence": 1.0}
CELL, PLACE = 6, "large.per_layer.5.1.0"
"""The line of the cell L=5 c=1 in a sweep of the large model, and its place in the summary."""
