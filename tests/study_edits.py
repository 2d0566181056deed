"""Single edits of a synthetic study: its files by name, and ways to change them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from studies import (
    COEFFICIENTS,
    LAYERS,
    OnDisk,
    claim,
    document,
    environment,
    row,
    rows,
    vector,
    write_study,
)

from steer_eval.cells import Cell
from steer_eval.formats.vector import file_name, write_vector
from steer_eval.results_files import row_to_json, write_environments, write_sweep

STUDY = "persona/study.yaml"
SWEEP = "persona-data/sweep_tiny.jsonl"
PAIRS = "persona-data/contrast_pairs.jsonl"
PROMPTS = "persona-data/eval_prompts.jsonl"
CORPUS = "persona-data/perplexity_corpus.txt"
VECTOR = "persona/vectors/tiny_L3_caa.safetensors"
CELL = Cell("tiny", "steered", 3, 2.0)
LINE = 2 + len(COEFFICIENTS) + 3


def of_row(change: Callable[[dict], object], line: int = LINE) -> Callable[[OnDisk], None]:
    return lambda place: place.edit_line("sweep_tiny.jsonl", line, change)


def of_line(file: str, line: int, text: str) -> Callable[[OnDisk], None]:
    def change(place: OnDisk) -> None:
        lines = (place.data / file).read_text(encoding="utf-8").split("\n")
        lines[line - 1] = text
        (place.data / file).write_text("\n".join(lines), encoding="utf-8")

    return change


def of_file(file: str, content: bytes) -> Callable[[OnDisk], None]:
    return lambda place: (place.data / file).write_bytes(content)


def with_vector(**changes: object) -> Callable[[OnDisk], None]:
    """Write layer 3's vector with another value of its fields or of its provenance."""

    def change(place: OnDisk) -> None:
        good = vector("tiny", 3)
        values = changes.get("values", good.values)
        metadata = {key: part for key, part in changes.items() if key != "values"}
        write_vector(
            place.model / file_name("tiny", 3), replace(good, values=values, provenance={**good.provenance, **metadata})
        )

    return change


def undecided(place: OnDisk) -> None:
    study = place.study()
    changed = [row(study, CELL, 2.9, spread=2.0) if each.cell == CELL else each for each in rows(study, "tiny")]
    write_sweep(place.data, "tiny", changed)


def undecided_without(*fields: str) -> Callable[[OnDisk], None]:
    """An undecided collapse from whose row the evidence is deleted."""

    def change(place: OnDisk) -> None:
        undecided(place)
        of_row(lambda value: [value.pop(field) for field in fields])(place)

    return change


def remove_row(place: OnDisk, line: int = LINE) -> None:
    lines = (place.data / "sweep_tiny.jsonl").read_text(encoding="utf-8").split("\n")
    del lines[line - 1]
    (place.data / "sweep_tiny.jsonl").write_text("\n".join(lines), encoding="utf-8")


def repeat_row(place: OnDisk) -> None:
    with (place.data / "sweep_tiny.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row_to_json(place.results().sweeps["tiny"].find(CELL))) + "\n")


def two_widths(place: OnDisk) -> None:
    good = vector("tiny", 3)
    wide = replace(good, values=np.append(good.values, np.float32(0)))
    write_vector(place.model / file_name("tiny", 3), wide)


def unplanned_row(place: OnDisk) -> None:
    """A row for a layer that the study does not have, otherwise good, with its texts."""
    with (place.data / "sweep_tiny.jsonl").open("a", encoding="utf-8") as file:
        good = row_to_json(place.results().sweeps["tiny"].find(CELL))
        file.write(json.dumps({**good, "layer": 99}) + "\n")


def with_environment(**changes: str) -> Callable[[OnDisk], None]:
    return lambda place: write_environments(place.data, {"tiny": {**environment(), **changes}})


def pinned(sha256: str) -> Callable[[OnDisk], None]:
    """Let the model come from a package whose file has a checksum."""

    def change(place: OnDisk) -> None:
        value = document()
        package = {"package": "tiny", "version": "1.0", "file": "tiny.gguf", "sha256": sha256}
        value["models"]["tiny"]["source"] = {"pypi": package}
        write_study(place.model, value)

    return change


def templated(place: OnDisk) -> None:
    """Let the study have a chat template of its own."""
    value = document()
    value["models"]["tiny"]["chat_template"] = "{{ messages[0].content }}"
    write_study(place.model, value)


def with_claims(*claims: dict[str, Any]) -> Callable[[OnDisk], object]:
    """Let the study claim something, after a claim in which nothing is wrong."""
    good = claim("prompt_count", "3", identity="good")
    return lambda place: write_study(place.model, document(claims=[good, *claims]))


def with_tolerance(name: str) -> Callable[[OnDisk], None]:
    def change(place: OnDisk) -> None:
        value = document()
        value["tolerances"][name] = {**value["tolerances"]["perplexity_ratio"]}
        write_study(place.model, value)

    return change


def of_every_row(change: Callable[[dict], object]) -> Callable[[OnDisk], None]:
    def changed(place: OnDisk) -> None:
        for line in range(1, LAST):
            place.edit_line("sweep_tiny.jsonl", line, change)

    return changed


OTHER = "f" * 64
SUMS = ("sentence_nll", "sentence_tokens", "ppl_ratio_interval", "collapse_undecided")
LAST = 2 + 2 * len(LAYERS) * len(COEFFICIENTS) + 1
