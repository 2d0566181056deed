"""What measuring in another precision than float32 changes.

Invariant: the drift is measured, on a fixed sample of the same cells and prompts, never assumed; whoever reads a sweep
in bfloat16 finds it beside the machine that it was measured on.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from steer_eval.measure import Bench, measure
from steer_eval.results import SweepRow

RATIO_CELLS = 12
TEXT_CELLS = 6
TEXT_PROMPTS = 5

_Item = TypeVar("_Item")


def drift(rows: Sequence[SweepRow], reference: Bench) -> dict[str, Any]:
    """How far measurements are from float32.

    Args:
        rows: What was measured, in another precision.
        reference: The same model in float32, with the same vectors, texts and journal.

    Returns:
        The largest and the median relative difference of perplexity ratios over a sample of steered cells, and how many
        of a sample of texts are identical; None where the sample is empty.
    """
    steered = [row for row in rows if row.cell.label == "steered"]
    sample = evenly(steered, RATIO_CELLS)
    speaking = evenly([row for row in steered if row.generations], TEXT_CELLS)
    short = replace(reference, prompts=reference.prompts[:TEXT_PROMPTS])
    cells = list(dict.fromkeys(row.cell for row in (*sample, *speaking)))
    exact = {row.cell: row for row in measure(short, cells, [row.cell for row in speaking])}
    differences = [abs(row.ppl_ratio / exact[row.cell].ppl_ratio - 1) for row in sample]
    pairs = [
        (mine.gen, theirs.gen)
        for row in speaking
        for mine, theirs in zip(row.generations, exact[row.cell].generations, strict=False)
    ]
    return {
        "against": reference.lm.dtype,
        "ratio_cells": len(differences),
        "ratio_largest": max(differences, default=None),
        "ratio_median": statistics.median(differences) if differences else None,
        "texts": len(pairs),
        "texts_identical": sum(mine == theirs for mine, theirs in pairs),
    }


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most so many items, from all parts of a sequence alike."""
    count = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]
