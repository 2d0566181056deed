"""What judging leaves on disk: which cells stand in which file, and what their rows say.

Invariant: scores of a sweep's cells and those of a comparison's never stand in one file. The sweep's file holds the
scored steered cells alone, so that it reads like a published one; the comparison's holds methods and their controls,
each row with its `variant` and `label`. Scores of somebody else, or of another protocol or rubric, are never written
over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from steer_eval.cells import Cell
from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.containment import inside
from steer_eval.formats.strict_json import read_jsonl, write_jsonl
from steer_eval.judge.file_names import SCHEMAS, Table, judgements_file, scores_file, table_of
from steer_eval.judge.judge import Judge
from steer_eval.judge.judging import Judged
from steer_eval.judge.protocol import VERSIONS
from steer_eval.judge.rows import CellScore, score_row
from steer_eval.judge.rubric import STUDY_AXES, Rubric
from steer_eval.judge.subjects import ProtocolName, judgement_to_json


def check_place(folder: Path, judge: Judge, cells: Iterable[Cell], protocol: ProtocolName, rubric: Rubric) -> None:
    """Refuse to write over scores of somebody else, or of another protocol or rubric.

    Args:
        folder: Where files go.
        judge: The judge.
        cells: What it judges.
        protocol: The protocol.
        rubric: The rubric.

    Raises:
        SteerEvalError: A file of that name holds other scores.
        FormatError: It can't be read.
    """
    ours = (judge.name, judge.identity().get("model"), protocol, rubric.sha256)
    for model, table in _places(cells):
        file = scores_file(judge.name, model, table)
        if not (folder / file).exists():
            continue
        row = read_jsonl(inside(folder, file), schema=SCHEMAS[table], name=file)[0].value
        if tuple(row.get(key) for key in ("judge", "judge_model", "protocol", "rubric_sha256")) != ours:
            raise SteerEvalError(
                f"{folder / file} holds scores of another judge, protocol or rubric",
                "give this judge another name with --name, or write elsewhere with --out",
            )


def write_judged(folder: Path, judged: Judged) -> list[str]:
    """Write what a judge said.

    Args:
        folder: A run directory or dataset repo.
        judged: What it said.

    Returns:
        Names of the files: scores (where the rubric has the axes of such files) and judgements, for each model and
        table.
    """
    files = []
    provenance = provenance_of(judged)
    for place in _places(score.cell for score in judged.scores):
        files += _write_scores(folder, judged, place, {})
        said = [each for each in judged.judgements if each.ask.cell is None or _place(each.ask.cell) == place]
        lines = [{**judgement_to_json(each), **provenance} for each in said]
        files.append(judgements_file(judged.name, *place))
        for line in lines:
            schema.check(line, "judgement", file=files[-1])
        write_jsonl(folder / files[-1], lines)
    return files


def write_panel(folder: Path, judged: Judged, columns: Mapping[Cell, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Write a panel's scores, with each judge's own beside them.

    Args:
        folder: A run directory or dataset repo.
        judged: The panel's scores.
        columns: Scores by judge and axis, by cell.

    Returns:
        Names of the files; a panel was asked nothing itself.
    """
    places = _places(score.cell for score in judged.scores)
    return [file for place in places for file in _write_scores(folder, judged, place, columns)]


def _write_scores(
    folder: Path, judged: Judged, place: tuple[str, Table], columns: Mapping[Cell, Mapping[str, Mapping[str, float]]]
) -> list[str]:
    """Write one file of scores; returns its name, or nothing where no row belongs into it."""
    file = scores_file(judged.name, *place)
    provenance = provenance_of(judged)
    rows = [
        {
            **score_row(score, judged.rubric, provenance),
            **({"judges": columns[score.cell]} if score.cell in columns else {}),
        }
        for score in judged.scores
        if _place(score.cell) == place and _is_published(score)
    ]
    if not rows or not set(STUDY_AXES) <= set(judged.rubric.names):
        return []
    for row in rows:
        schema.check(row, SCHEMAS[place[1]], file=file)
    write_jsonl(folder / file, rows)
    return [file]


def _is_published(score: CellScore) -> bool:
    """Whether a score has a row: of the sweep's controls, the judgements alone tell."""
    return score.is_scored and (score.cell.label == "steered" or table_of(score.cell) == "comparison")


def _place(cell: Cell) -> tuple[str, Table]:
    return cell.model, table_of(cell)


def _places(cells: Iterable[Cell]) -> Collection[tuple[str, Table]]:
    """Models and tables of some cells, in their order."""
    return dict.fromkeys(_place(cell) for cell in cells)


def provenance_of(judged: Judged) -> dict[str, Any]:
    """What every row of a judge says about where it comes from."""
    validation = judged.identity.get("cross_validation")
    return {
        "judge": judged.name,
        "judge_model": judged.identity.get("model"),
        **({"judge_accuracy": validation["accuracy"]} if validation else {}),
        "protocol": judged.protocol,
        "protocol_version": VERSIONS[judged.protocol],
        "rubric": judged.rubric.name,
        "rubric_sha256": judged.rubric.sha256,
    }
