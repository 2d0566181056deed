"""The judges whose scores are published.

Invariant: published scores are read as they stand; those of cells without text are told apart from the others, because
no judge can have given them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from steer_eval.cells import Cell
from steer_eval.claims.facts import judge_of
from steer_eval.errors import FormatError
from steer_eval.formats.containment import inside
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.manifest import repo_files
from steer_eval.formats.strict_json import scan_jsonl
from steer_eval.judge.rubric import Rubric
from steer_eval.judge.subjects import Subject


@dataclass(frozen=True)
class RecordedJudge:
    """A published judge of one model's cells.

    Args:
        name: What the file calls the judge.
        model: Whose cells it judged.
        file: The file.
        scores: By cell and axis, of cells that have text.
        imputed: Rows of cells without text, which are left out of every comparison.
        protocol: What the rows say they were given under; empty if they don't say.
        rubric: Digest of the rubric that they were given on, empty if they don't say.
    """

    name: str
    model: str
    file: str
    scores: Mapping[Cell, Mapping[str, float]]
    imputed: int
    protocol: str = ""
    rubric: str = ""


def recorded_judges(folder: Path, subjects: Iterable[Subject], rubric: Rubric) -> list[RecordedJudge]:
    """The published judges of a dataset repo, as far as their axes are those of a rubric.

    Args:
        folder: The dataset repo.
        subjects: Cells with text.
        rubric: The axes to read.

    Raises:
        FormatError: A file of scores has a bad row.
    """
    with_text = {subject.cell for subject in subjects}
    models = sorted({cell.model for cell in with_text})
    found = []
    for path in repo_files(folder):
        named = judge_of(path, models) if kind_of(path) == "judge" else None
        if named is not None:
            found.append(_read(folder, path, named, with_text, rubric))
    return [each for each in found if each.scores]


def _read(folder: Path, path: str, named: tuple[str, str], with_text: set[Cell], rubric: Rubric) -> RecordedJudge:
    judge, model = named
    scores: dict[Cell, dict[str, float]] = {}
    imputed = 0
    protocol = digest = ""
    for row in scan_jsonl(inside(folder, path), schema="judge_row", name=path):
        if isinstance(row, FormatError):
            raise row
        value = row.value
        cell = Cell(model, "steered", value["layer"], float(value["coef"]))
        if cell not in with_text:
            imputed += 1
            continue
        scores[cell] = {axis: float(value[axis]) for axis in rubric.names if axis in value}
        protocol, digest = value.get("protocol", ""), value.get("rubric_sha256", "")
    return RecordedJudge(judge, model, path, scores, imputed, protocol, digest)
