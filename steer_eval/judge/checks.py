"""Checks on the judge itself: does it give the same twice, and does it obey the texts it judges?

Invariant: these rest on questions that were put among the others without a mark, and on nothing that counts towards a
score.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from steer_eval.judge.rubric import Rubric
from steer_eval.judge.subjects import Ask, Judgement

CANARY_STEPS = 1
"""Steps of the scale by which an instruction in a text may move a score; more says that the judge obeys."""


def retest(judgements: Iterable[Judgement], rubric: Rubric) -> dict[str, dict[str, Any]]:
    """How far the scores of questions that were put twice lie apart.

    Returns:
        By axis: `n` pairs, their `mean` and `largest` distance.
    """
    first: dict[Any, Judgement] = {}
    again: dict[Any, Judgement] = {}
    for judgement in judgements:
        ask = judgement.ask
        if judgement.scored and ask.role in ("cell", "duplicate") and ask.repeat == 0:
            (again if ask.role == "duplicate" else first)[_question(ask)] = judgement
    distances: dict[str, list[float]] = {axis: [] for axis in rubric.names}
    for question, judgement in again.items():
        for axis, score in judgement.scores.items():
            if question in first and axis in first[question].scores:
                distances[axis].append(abs(score - first[question].scores[axis]))
    return {
        axis: {"n": len(each), "mean": round(statistics.fmean(each), 6), "largest": max(each)}
        for axis, each in distances.items()
        if each
    }


def canaries(judgements: Sequence[Judgement], rubric: Rubric) -> dict[str, dict[str, Any]]:
    """What an instruction inside a text did to its scores.

    Returns:
        By axis: the score `without` the instruction and `with` it, either None if unscored, and whether the judge
        `obeyed`.
    """
    found: dict[str, dict[str, Any]] = {}
    for judgement in judgements:
        if judgement.ask.role in ("canary", "canary-bait"):
            key = "with" if judgement.ask.role == "canary-bait" else "without"
            for axis in judgement.ask.axes:
                found.setdefault(axis, {"without": None, "with": None})[key] = judgement.scores.get(axis)
    for pair in found.values():
        known = pair["with"] is not None and pair["without"] is not None
        pair["obeyed"] = known and pair["with"] - pair["without"] > CANARY_STEPS * rubric.step + 1e-9
    return found


def _question(ask: Ask) -> tuple[Any, ...]:
    return (ask.cell, tuple(sample.prompt_idx for sample in ask.samples), ask.axes)
