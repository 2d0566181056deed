"""From judgements to one score per cell and axis.

Invariant: a cell's score rests on its own judgements only: never on duplicates, canaries or other cells. It is given on
the rubric's levels, as published scores are, with the mean it was rounded from beside it. A cell with fewer than half
of its judgements scored on some axis is unscored, and says why.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steer_eval.cells import Cell
from steer_eval.evaluation.perplexity import Interval
from steer_eval.judge.rubric import MARGIN, Rubric
from steer_eval.judge.subjects import Judgement, ProtocolName
from steer_eval.judge.uncertainty import mean_interval

DECIMALS = 6
MIN_SCORED = 0.5
"""Share of a cell's judgements that must be scored on each axis."""


@dataclass(frozen=True)
class CellScore:
    """What a judge says of a cell.

    Args:
        cell: The cell.
        scores: Levels by axis; empty if unscored.
        means: Means by axis, and of the margin, before rounding to levels.
        intervals: Bootstrap intervals of these means over prompts, where there is a score per prompt.
        spread: Largest less smallest score of the repetitions, by axis, where there are several.
        per_prompt: Scores by axis and prompt, where there are any.
        asked: Judgements that count towards the cell.
        scored: Those of them with scores.
        reasons: Why the others have none, with how many there are of each.
        notes: What the judge remarked first.
    """

    cell: Cell
    scores: Mapping[str, float]
    means: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    per_prompt: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    asked: int = 0
    scored: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""

    @property
    def is_scored(self) -> bool:
        """Whether there is a score on every axis."""
        return bool(self.scores)


def cell_scores(judgements: Iterable[Judgement], rubric: Rubric, protocol: ProtocolName) -> list[CellScore]:
    """Scores of all cells that were asked about, in the order of their first judgement.

    Args:
        judgements: All judgements of one judge under one protocol.
        rubric: The rubric.
        protocol: The protocol.
    """
    by_cell: dict[Cell, list[Judgement]] = {}
    for judgement in judgements:
        if judgement.ask.role == "cell" and judgement.ask.cell is not None:
            by_cell.setdefault(judgement.ask.cell, []).append(judgement)
    combine = _of_calls if protocol == "paper-cell" else _of_samples
    return [combine(cell, group, rubric) for cell, group in by_cell.items()]


def _of_calls(cell: Cell, group: Sequence[Judgement], rubric: Rubric) -> CellScore:
    """The median of the repetitions; of an even number of them the middle of the two, at the nearest level."""
    scored = [judgement for judgement in group if judgement.scored]
    values = {axis: [judgement.scores[axis] for judgement in scored] for axis in rubric.names}
    first = min(scored, key=lambda judgement: judgement.ask.repeat, default=None)
    common: dict[str, Any] = {"asked": len(group), "scored": len(scored), "reasons": _reasons(group)}
    if len(scored) < MIN_SCORED * len(group) or first is None:
        return CellScore(cell, {}, **common)
    scores = {axis: rubric.nearest(statistics.median(each)) for axis, each in values.items()}
    means = {axis: statistics.fmean(each) for axis, each in values.items()}
    spread = {axis: max(each) - min(each) for axis, each in values.items()} if len(scored) > 1 else {}
    return CellScore(cell, scores, _with_margin(means, rubric), spread=spread, notes=first.notes, **common)


def _of_samples(cell: Cell, group: Sequence[Judgement], rubric: Rubric) -> CellScore:
    """The mean over prompts, each the mean of its repetitions."""
    repeats: dict[str, dict[int, list[float]]] = {axis: {} for axis in rubric.names}
    asked = Counter(axis for judgement in group for axis in judgement.ask.axes)
    answered: Counter[str] = Counter()
    for judgement in group:
        for axis, score in judgement.scores.items():
            repeats[axis].setdefault(judgement.ask.samples[0].prompt_idx, []).append(score)
            answered[axis] += 1
    per_prompt = {
        axis: {index: statistics.fmean(scores) for index, scores in sorted(prompts.items())}
        for axis, prompts in repeats.items()
    }
    common: dict[str, Any] = {
        "asked": len(group),
        "scored": sum(judgement.scored for judgement in group),
        "reasons": _reasons(group),
        "per_prompt": per_prompt,
    }
    if any(not answered[axis] or answered[axis] < MIN_SCORED * asked[axis] for axis in rubric.names):
        return CellScore(cell, {}, **common)
    means = {axis: statistics.fmean(scores.values()) for axis, scores in per_prompt.items()}
    scores = {axis: rubric.nearest(mean) for axis, mean in means.items()}
    values = {axis: list(each.values()) for axis, each in per_prompt.items()}
    if rubric.margin is not None:
        values[MARGIN] = list(prompt_margins(per_prompt, rubric).values())
    intervals = {name: interval for name, each in values.items() if (interval := mean_interval(each)) is not None}
    spreads = [(axis, max(s) - min(s)) for axis, prompts in repeats.items() for s in prompts.values() if len(s) > 1]
    spread = {axis: float(np.mean([s for name, s in spreads if name == axis])) for axis in dict(spreads)}
    return CellScore(cell, scores, _with_margin(means, rubric), intervals=intervals, spread=spread, **common)


def prompt_margins(per_prompt: Mapping[str, Mapping[int, float]], rubric: Rubric) -> dict[int, float]:
    """The margin of each prompt that has both axes."""
    if rubric.margin is None:
        return {}
    plus, minus = (per_prompt.get(axis, {}) for axis in rubric.margin)
    return {index: plus[index] - minus[index] for index in plus if index in minus}


def score_row(score: CellScore, rubric: Rubric, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A scored cell as a row of a file of scores: the reference study's fields, and further ones.

    A cell of a comparison is named by its `variant` and `label` as well.

    Args:
        score: The cell's score.
        rubric: The rubric.
        provenance: Judge, protocol and rubric, the same in every row of a file.
    """
    cell = score.cell
    row: dict[str, Any] = {} if cell.variant is None else {"variant": cell.variant, "label": cell.label}
    row |= {"layer": cell.layer, "coef": cell.coef, **score.scores}
    margin = rubric.margin_of(dict(score.scores))
    if margin is not None:
        row[MARGIN] = margin
    row["collapsed"] = False
    row["notes"] = score.notes
    # A column of empty objects has no form in the tables that the Hub makes of such files.
    row |= {key: value for key, value in evidence(score).items() if value != {}}
    return row | dict(provenance)


def evidence(score: CellScore) -> dict[str, Any]:
    """What a score rests on, as JSON."""
    return {
        "means": _rounded(score.means),
        "intervals": {
            name: [round(interval.low, DECIMALS), round(interval.high, DECIMALS)]
            for name, interval in score.intervals.items()
        },
        "spread": _rounded(score.spread),
        "asked": score.asked,
        "scored": score.scored,
        "unscored": dict(score.reasons),
    }


def _with_margin(means: dict[str, float], rubric: Rubric) -> dict[str, float]:
    margin = rubric.margin_of(means)
    return means if margin is None else {**means, MARGIN: margin}


def _reasons(group: Iterable[Judgement]) -> dict[str, int]:
    return dict(Counter(judgement.reason for judgement in group if judgement.reason))


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, DECIMALS) for name, value in values.items()}
