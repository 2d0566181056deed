"""The best cell, without picking the luckiest.

Invariant: the best cell is one of the sweep's steered cells, never a control or a method of a comparison. A tie is a
tie: all cells of the highest margin are named. The margin of a cell that was chosen for it is too high on the prompts
it was chosen on; so where there are scores per prompt, the choice is made on one half of the prompts and reported on
the other, both ways.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steer_eval.cells import Cell
from steer_eval.judge.rows import CellScore, prompt_margins
from steer_eval.judge.rubric import Rubric

_CLOSE = 1e-9


@dataclass(frozen=True)
class HalfChoice:
    """A choice on one half of the prompts.

    Args:
        chosen: The best cells on that half.
        there: Their margin on it.
        elsewhere: Their mean margin on the other half.
    """

    chosen: tuple[Cell, ...]
    there: float
    elsewhere: float


@dataclass(frozen=True)
class Best:
    """The best cells of a model.

    Args:
        margin: The highest margin.
        cells: All cells that have it.
        halves: Choices on even and on odd prompts; empty without scores per prompt.
    """

    margin: float
    cells: tuple[Cell, ...]
    halves: tuple[HalfChoice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "margin": self.margin,
            "cells": [_place(cell) for cell in self.cells],
            "halves": [
                {
                    "chosen": [_place(cell) for cell in half.chosen],
                    "there": round(half.there, 6),
                    "elsewhere": round(half.elsewhere, 6),
                }
                for half in self.halves
            ],
        }


def best_cells(scores: Sequence[CellScore], rubric: Rubric) -> Best | None:
    """The steered cells of a sweep that have the highest margin; None without a margin or a scored cell.

    Args:
        scores: Scores of one model's cells.
        rubric: The rubric.
    """
    scored = [s for s in scores if s.is_scored and s.cell.label == "steered" and s.cell.variant is None]
    if rubric.margin is None or not scored:
        return None
    margins = {score.cell: rubric.margin_of(dict(score.scores)) or 0.0 for score in scored}
    highest = max(margins.values())
    cells = tuple(cell for cell, margin in margins.items() if margin >= highest - _CLOSE)
    by_prompt = {score.cell: prompt_margins(score.per_prompt, rubric) for score in scored}
    shared = sorted(set.intersection(*(set(prompts) for prompts in by_prompt.values())))
    if len(shared) < 2:
        return Best(highest, cells)
    halves = (shared[::2], shared[1::2])
    choices = []
    for here, other in (halves, halves[::-1]):
        means = {cell: statistics.fmean(prompts[index] for index in here) for cell, prompts in by_prompt.items()}
        top = max(means.values())
        chosen = tuple(cell for cell, mean in means.items() if mean >= top - _CLOSE)
        elsewhere = statistics.fmean(by_prompt[cell][index] for cell in chosen for index in other)
        choices.append(HalfChoice(chosen, top, elsewhere))
    return Best(highest, cells, tuple(choices))


def _place(cell: Cell) -> dict[str, Any]:
    return {"layer": cell.layer, "coef": cell.coef}
