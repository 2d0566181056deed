"""What measuring in another precision than float32 changes.

Invariant: the drift is measured, on a fixed sample of the same cells, prompts and pairs, never assumed; whoever reads a
sweep or a vector in bfloat16 finds it beside the machine that it was measured on.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from steer_eval.contrast import ContrastPair
from steer_eval.extract import pair_differences, steering_vectors
from steer_eval.formats.containment import inside
from steer_eval.formats.vector import SteeringVector, file_name, write_vector
from steer_eval.measure import Bench, measure
from steer_eval.model import LanguageModel
from steer_eval.results import SweepRow

RATIO_CELLS = 12
TEXT_CELLS = 6
TEXT_PROMPTS = 5
VECTOR_PAIRS = 16

DRIFT = "drift"
"""Where it stands in the provenance of a vector, as JSON."""

_Item = TypeVar("_Item")


def drift(rows: Sequence[SweepRow], reference: Bench) -> dict[str, Any]:
    """How far measurements are from float32.

    Args:
        rows: What was measured, in another precision.
        reference: The same model in float32, with the same vectors, texts and journal.

    Returns:
        The largest and the median relative difference of perplexity ratios over a sample of steered cells (None where
        it is empty), how many of a sample of texts are identical, and how many cells of either sample collapse in one
        of the two precisions only. A text of a cell that collapses in float32, and so has none there, is not identical.
    """
    steered = [row for row in rows if row.cell.label == "steered"]
    sample = evenly(steered, RATIO_CELLS)
    speaking = evenly([row for row in steered if row.generations], TEXT_CELLS)
    short = replace(reference, prompts=reference.prompts[:TEXT_PROMPTS])
    cells = list(dict.fromkeys(row.cell for row in (*sample, *speaking)))
    exact = {row.cell: row for row in measure(short, cells, [row.cell for row in speaking])}
    differences = [abs(row.ppl_ratio / exact[row.cell].ppl_ratio - 1) for row in sample]
    texts = [(row.cell, text) for row in speaking for text in row.generations[:TEXT_PROMPTS]]
    spoken = {(row.cell, text.prompt_idx): text.gen for row in exact.values() for text in row.generations}
    collapsed = {row.cell: row.collapsed for row in (*sample, *speaking)}
    return {
        "against": reference.lm.dtype,
        "ratio_cells": len(differences),
        "ratio_largest": max(differences, default=None),
        "ratio_median": statistics.median(differences) if differences else None,
        "texts": len(texts),
        "texts_identical": sum(text.gen == spoken.get((cell, text.prompt_idx)) for cell, text in texts),
        "collapse_differs": sum(exact[cell].collapsed != found for cell, found in collapsed.items()),
    }


def vector_drift(
    lm: LanguageModel,
    reference: LanguageModel,
    pairs: Sequence[ContrastPair],
    layers: Collection[int],
    *,
    memory: int | None = None,
) -> dict[int, dict[str, Any]]:
    """How far vectors are from float32.

    Vectors of the same few pairs are compared. A mean over more pairs has less of what rounding adds, so the drift of
    the whole vectors is hardly larger than this.

    Args:
        lm: The model, in another precision.
        reference: The same model in float32.
        pairs: All contrast pairs; a sample of them is read by both.
        layers: Which layers.
        memory: Bytes that batches may take; None for half of what is free.

    Returns:
        By layer the cosine of the two vectors and the relative difference of their norms; None where a vector is zero.
    """
    sample = evenly(pairs, VECTOR_PAIRS)
    ours, exact = (
        steering_vectors(pair_differences(model, sample, sorted(layers), memory=memory)) for model in (lm, reference)
    )
    return {
        layer: {"against": reference.dtype, "pairs": len(sample), **_apart(ours[layer], exact[layer])}
        for layer in sorted(layers)
    }


def _apart(ours: Tensor, exact: Tensor) -> dict[str, float | None]:
    first, second = ours.double(), exact.double()
    norms = float(first.norm()), float(second.norm())
    if not all(norms):
        return {"cosine": None, "norm": None}
    return {"cosine": float(first @ second) / (norms[0] * norms[1]), "norm": abs(norms[0] / norms[1] - 1)}


def state_vector_drift(
    folder: Path, name: str, vectors: Mapping[int, SteeringVector], measured: Mapping[int, dict[str, Any]]
) -> None:
    """Write into the provenance of vector files how far they are from float32.

    Args:
        folder: The repo or run directory that they were written to.
        name: The model's name in the study.
        vectors: The vectors, by layer.
        measured: What `vector_drift` found, by layer.
    """
    for layer, found in measured.items():
        stated = {**vectors[layer].provenance, DRIFT: json.dumps(found, sort_keys=True)}
        write_vector(inside(folder, file_name(name, layer)), replace(vectors[layer], provenance=stated))


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most so many items, from all parts of a sequence alike."""
    count = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]
