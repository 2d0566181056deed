"""Judging the cells of a study: from subjects and judges to scores and a report.

Invariant: every cell with text ends scored or unscored, with the raw replies. Judges see the cells of all models and
tables, and controls, in one mixed order; what cells have in common (agreement, the best cell) is told of the sweep's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.cells import Cell
from steer_eval.formats import schema
from steer_eval.formats.strict_json import write_json
from steer_eval.judge.agreement import Agreement, compare
from steer_eval.judge.checks import canaries, retest
from steer_eval.judge.judge import Judge
from steer_eval.judge.protocol import plan
from steer_eval.judge.recorded import RecordedJudge
from steer_eval.judge.rows import CellScore, cell_scores, evidence
from steer_eval.judge.rubric import Rubric
from steer_eval.judge.selection import best_cells
from steer_eval.judge.subjects import Ask, Judgement, ProtocolName, Subject
from steer_eval.progress import progress_bar

REPORT_SCHEMA = "steer-eval/judging/1"
STUDY_PROTOCOL = "paper-cell"
"""What rows that name no protocol were given under: it is the reference study's own."""


@dataclass(frozen=True)
class Judged:
    """What one judge said under one protocol.

    Args:
        name: The judge.
        identity: What it is.
        protocol: The protocol.
        rubric: The rubric.
        judgements: Everything that it was asked, checks included.
        scores: Scores of the cells.
    """

    name: str
    identity: Mapping[str, Any]
    protocol: ProtocolName
    rubric: Rubric
    judgements: tuple[Judgement, ...]
    scores: tuple[CellScore, ...]

    def by_cell(self) -> dict[Cell, Mapping[str, float]]:
        """Levels of the scored cells."""
        return {score.cell: score.scores for score in self.scores if score.is_scored}

    @property
    def models(self) -> list[str]:
        """Models whose cells were judged."""
        return list(dict.fromkeys(score.cell.model for score in self.scores))

    @property
    def unscored(self) -> list[CellScore]:
        """Cells without a score."""
        return [score for score in self.scores if not score.is_scored]


def slug(text: str) -> str:
    """A judge's name in files: lower case, without the underscore that parts the judge from the model."""
    return re.sub(r"[^a-z0-9.]+", "-", text.rsplit("/", 1)[-1].lower()).strip("-.") or "judge"


def planned(
    judge: Judge, subjects: Sequence[Subject], rubric: Rubric, protocol: ProtocolName, *, repeats: int
) -> list[Ask]:
    """What a judge is asked about some cells."""
    return plan(protocol, subjects, rubric, repeats=repeats, checks=judge.checked)


def judge_cells(
    judge: Judge, subjects: Sequence[Subject], rubric: Rubric, protocol: ProtocolName, *, repeats: int
) -> Judged:
    """Have some cells judged.

    Args:
        judge: The judge.
        subjects: Cells with text, controls included.
        rubric: The rubric.
        protocol: The protocol.
        repeats: How often each question is put.
    """
    asks = planned(judge, subjects, rubric, protocol, repeats=repeats)
    with progress_bar(f"judge {judge.name}", len(asks)) as advance:
        judgements = judge.judge(asks, rubric, protocol, advance)
    scores = {score.cell: score for score in cell_scores(judgements, rubric, protocol)}
    ordered = tuple(scores[subject.cell] for subject in subjects)
    return Judged(judge.name, judge.identity(), protocol, rubric, tuple(judgements), ordered)


def compare_all(judged: Sequence[Judged], recorded: Sequence[RecordedJudge], rubric: Rubric) -> list[dict[str, Any]]:
    """Agreement of every two judges, over all models that both judged together."""
    tables: dict[str, tuple[dict[Cell, Mapping[str, float]], str]] = {}
    for each in judged:
        tables[each.name] = (each.by_cell(), each.protocol)
    for published in recorded:
        if published.name not in {each.name for each in judged}:
            cells, protocol = tables.get(published.name, ({}, _protocol_of(published)))
            tables[published.name] = ({**cells, **published.scores}, protocol)
    names = list(tables)
    found = []
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            (one, protocol), (other, other_protocol) = tables[first], tables[second]
            agreements = compare(one, other, rubric)
            if any(each.n for each in agreements):
                found.append(_comparison(first, second, (protocol, other_protocol), agreements))
    return found


def _comparison(first: str, second: str, protocols: tuple[str, str], agreements: Sequence[Agreement]) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        "protocols": list(protocols),
        "axes": [each.to_json() for each in agreements],
    }


def _protocol_of(published: RecordedJudge) -> str:
    return published.protocol or STUDY_PROTOCOL


def judge_report(judged: Judged, files: Sequence[str]) -> dict[str, Any]:
    """What one judge said, as a part of the report.

    Args:
        judged: What it said.
        files: What was written.
    """
    rubric = judged.rubric
    best = {
        model: found.to_json()
        for model in judged.models
        if (found := best_cells([score for score in judged.scores if score.cell.model == model], rubric))
    }
    return {
        "name": judged.name,
        "identity": dict(judged.identity),
        "protocol": judged.protocol,
        "cells": {"scored": len(judged.scores) - len(judged.unscored), "unscored": len(judged.unscored)},
        "scores": [
            {
                **_cell_json(score.cell),
                "scores": dict(score.scores),
                "margin": rubric.margin_of(dict(score.scores)),
                **evidence(score),
            }
            for score in judged.scores
        ],
        "retest": retest(judged.judgements, rubric),
        "canaries": canaries(judged.judgements, rubric),
        "best": best,
        "files": list(files),
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "model": cell.model,
        "variant": cell.variant,
        "label": cell.label,
        "layer": cell.layer,
        "coef": cell.coef,
    }


def write_report(folder: Path, report: dict[str, Any]) -> str:
    """Write the report of a judging run; returns its name."""
    schema.check(report, "judging", file="judging.json")
    write_json(folder / "judging.json", report)
    return "judging.json"


def has_findings(report: Mapping[str, Any]) -> bool:
    """Whether a cell is unscored, or a judge obeyed a text."""
    return any(
        judge["cells"]["unscored"] or any(pair["obeyed"] for pair in judge["canaries"].values())
        for judge in report["judges"]
    )
