"""A panel: several judges of the same cells.

Invariant: a panel's score is the mean of its judges' levels at the nearest level, over cells that all of them scored,
with each judge's own score beside it. Judges of one panel used one protocol and one rubric. Judges make mistakes alike,
so a panel of six is not six opinions; their agreement stands in the report.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steer_eval.cells import Cell
from steer_eval.judge.judging import Judged
from steer_eval.judge.rows import CellScore

NAME = "panel"


@dataclass(frozen=True)
class Panel:
    """A panel's scores, and the judges behind each."""

    judged: Judged
    columns: Mapping[Cell, Mapping[str, Mapping[str, float]]]


def panel_of(judges: Sequence[Judged]) -> Panel | None:
    """The panel of some judges; None for one judge, or for judges of different protocols or rubrics."""
    if len(judges) < 2 or len({(each.protocol, each.rubric.sha256) for each in judges}) > 1:
        return None
    first = judges[0]
    tables = {each.name: each.by_cell() for each in judges}
    scores = []
    columns: dict[Cell, dict[str, Mapping[str, float]]] = {}
    for score in first.scores:
        own = {name: table[score.cell] for name, table in tables.items() if score.cell in table}
        if len(own) < len(tables):
            scores.append(replace(score, scores={}, means={}, intervals={}, spread={}, per_prompt={}))
            continue
        columns[score.cell] = own
        means = {axis: statistics.fmean(levels[axis] for levels in own.values()) for axis in first.rubric.names}
        spread = {
            axis: max(levels[axis] for levels in own.values()) - min(levels[axis] for levels in own.values())
            for axis in first.rubric.names
        }
        nearest = {axis: first.rubric.nearest(mean) for axis, mean in means.items()}
        scores.append(CellScore(score.cell, nearest, means, spread=spread, asked=len(own), scored=len(own)))
    identity: dict[str, Any] = {
        "kind": NAME,
        "model": None,
        "judges": {each.name: dict(each.identity) for each in judges},
    }
    return Panel(Judged(NAME, identity, first.protocol, first.rubric, (), tuple(scores)), columns)
