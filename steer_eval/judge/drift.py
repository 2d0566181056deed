"""Two drifts, told apart: of the judge, and of the texts.

Invariant: published texts are judged first. What a new judge says of them against what was published is the judge's
drift; what the same judge says of new texts against the published ones is the drift of the texts. Neither is ever read
off a comparison in which both changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steer_eval.cells import Cell
from steer_eval.judge.agreement import compare
from steer_eval.judge.judging import Judged
from steer_eval.judge.recorded import RecordedJudge
from steer_eval.judge.rows import prompt_margins
from steer_eval.judge.rubric import Rubric
from steer_eval.judge.uncertainty import equivalence

BOUND = 1.0
"""Margin difference that counts as the same: with ten prompts a cell, no smaller one can be told."""


def judge_drift(published: Judged, recorded: Sequence[RecordedJudge], rubric: Rubric) -> list[dict[str, Any]]:
    """A judge on published texts against each published judge of them.

    One of the same name is compared too: what a name stands for at an endpoint changes.

    Args:
        published: The new judge's scores of the published texts.
        recorded: The published judges.
        rubric: The rubric.
    """
    return [
        {
            "judge": published.name,
            "published": each.name,
            "model": each.model,
            "imputed": each.imputed,
            "axes": [found.to_json() for found in compare(each.scores, published.by_cell(), rubric)],
        }
        for each in recorded
    ]


def generation_drift(published: Judged, again: Judged, rubric: Rubric, *, bound: float = BOUND) -> dict[str, Any]:
    """The same judge on new texts against the published ones.

    Args:
        published: Its scores of the published texts.
        again: Its scores of the new ones.
        rubric: The rubric.
        bound: Margin difference that counts as the same.

    Returns:
        Agreement over cells and, where there are scores per prompt, a test of equivalence for each cell. The same texts
        need no test: nothing of them has drifted, whatever the judge says.
    """
    before = {score.cell: score for score in published.scores}
    texts, new_texts = _texts(published), _texts(again)
    cells = []
    for score in again.scores:
        old = before.get(score.cell)
        if old is None or not old.per_prompt or not score.per_prompt:
            continue
        earlier, later = prompt_margins(old.per_prompt, rubric), prompt_margins(score.per_prompt, rubric)
        differences = [later[index] - earlier[index] for index in sorted(set(later) & set(earlier))]
        if differences:
            same = texts[score.cell] == new_texts[score.cell]
            cells.append(
                {
                    "model": score.cell.model,
                    "variant": score.cell.variant,
                    "label": score.cell.label,
                    "layer": score.cell.layer,
                    "coef": score.cell.coef,
                    **equivalence(differences, bound).to_json(),
                    "same_texts": same,
                    **({"verdict": "reproduced"} if same else {}),
                }
            )
    axes = [found.to_json() for found in compare(published.by_cell(), again.by_cell(), rubric)]
    return {"judge": again.name, "axes": axes, "cells": cells}


def _texts(judged: Judged) -> dict[Cell, dict[int, str]]:
    """The judged texts of each cell, by prompt."""
    texts: dict[Cell, dict[int, str]] = {}
    for judgement in judged.judgements:
        cell = judgement.ask.cell
        if cell is not None and judgement.ask.role == "cell":
            texts.setdefault(cell, {}).update({sample.prompt_idx: sample.text for sample in judgement.ask.samples})
    return texts


def in_short(report: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Both drifts of a judging run, for the report of the re-run that they are about.

    Args:
        report: The report of judging (`schemas/judging.schema.json`).
        file: Where all of it is, in the same folder.
    """
    return {
        "file": file,
        "judges": [{key: judge[key] for key in ("name", "protocol", "cells")} for judge in report["judges"]],
        "judge_drift": report["judge_drift"],
        "generation_drift": report["generation_drift"],
    }
