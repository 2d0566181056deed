"""Published scores as cards show them: who gave them, how, and how far judges agree.

Invariant: a card says of every table of scores which judge, protocol and rubric stand behind it, as far as its rows say
so themselves; nothing about a judge is typed. Scores of a comparison stand beside those of the sweep and take no part
in what is said of them together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from steer_eval.cells import Cell
from steer_eval.errors import FormatError
from steer_eval.formats.containment import inside
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.manifest import repo_files
from steer_eval.formats.strict_json import scan_jsonl
from steer_eval.judge.agreement import Agreement, compare
from steer_eval.judge.file_names import SCHEMAS, beside, scores_file
from steer_eval.judge.rubric import MARGIN, STUDY_AXES, load_rubric

Rows = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, eq=False)
class JudgeTable:
    """A judge's scores of one model's cells.

    Args:
        judge: Who gave them, as the file is called.
        model: Whose cells they are of.
        file: The file of scores of the sweep's cells.
        rows: Its good rows.
        compared: Good rows of the file of scores of the comparison's cells; empty where there is none.
    """

    judge: str
    model: str
    file: str
    rows: Rows
    compared: Rows = ()

    def said(self, key: str) -> str | None:
        """What all rows say of where they come from; None where they don't, or not the same."""
        value = self._shared(key)
        return value if isinstance(value, str) else None

    @property
    def accuracy(self) -> float | None:
        """Cross-validated accuracy of a judge that is a classifier, from 0 to 1; None where the rows name none."""
        value = self._shared("judge_accuracy")
        return value if isinstance(value, float | int) and 0 <= value <= 1 else None

    def interval(self, row: Mapping[str, Any]) -> tuple[float, float] | None:
        """Interval of the mean margin that a row has."""
        intervals = row.get("intervals")
        ends = intervals.get(MARGIN) if isinstance(intervals, dict) else None
        if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, float | int) for end in ends):
            return None
        return float(ends[0]), float(ends[1])

    def _shared(self, key: str) -> Any:
        values = [row.get(key) for row in self.rows]
        return values[0] if all(value == values[0] for value in values) else None

    @property
    def axes(self) -> tuple[str, ...]:
        """Columns of scores."""
        return (*STUDY_AXES, MARGIN)

    @cached_property
    def has_intervals(self) -> bool:
        """Whether margins have an interval."""
        return any(self.interval(row) is not None for row in self.rows)

    def row(self, cell: Cell) -> Mapping[str, Any] | None:
        """The row of a steered cell of the sweep, or of any cell of the comparison; None where it has none."""
        return self._by_cell.get(cell)

    def margin(self, cell: Cell) -> float | None:
        """The margin of a cell; None where it was not scored, or is none whose scores have rows."""
        row = self.row(cell)
        return None if row is None else float(row.get(MARGIN, row["mature_anger"] - row["juvenile_rage"]))

    @cached_property
    def _by_cell(self) -> dict[Cell, Mapping[str, Any]]:
        # Of several rows of a cell the first, so in reverse.
        swept = {self._swept(row): row for row in reversed(self.rows) if not row.get("collapsed")}
        compared = {
            Cell(self.model, row["label"], row["layer"], float(row["coef"]), row["variant"]): row
            for row in reversed(self.compared)
        }
        return swept | compared

    def _swept(self, row: Mapping[str, Any]) -> Cell:
        return Cell(self.model, "steered", row["layer"], float(row["coef"]))

    def scores(self) -> dict[Cell, dict[str, float]]:
        """Scores of the sweep's cells by axis; those of collapsed cells, which have no text, are left out."""
        return {
            self._swept(row): {axis: float(row[axis]) for axis in STUDY_AXES}
            for row in self.rows
            if not row.get("collapsed")
        }


def judge_tables(data_repo: Path, models: Collection[str]) -> tuple[JudgeTable, ...]:
    """The tables of scores of a dataset repo; a bad row is left out, and is a finding elsewhere.

    Args:
        data_repo: The dataset repo.
        models: Models of the study.
    """
    from steer_eval.claims.facts import judge_of

    swept: list[JudgeTable] = []
    compared: dict[tuple[str, str], Rows] = {}
    for path in repo_files(data_repo):
        kind = kind_of(path)
        if kind == "judge" and (named := judge_of(path, models)):
            swept.append(JudgeTable(*named, path, _good_rows(data_repo, path, SCHEMAS["sweep"])))
        elif kind == "judge_comparison" and (named := judge_of(beside(path), models)):
            compared[named] = _good_rows(data_repo, path, SCHEMAS["comparison"])
    found = [replace(each, compared=compared.pop((each.judge, each.model), ())) for each in swept]
    alone = [JudgeTable(*named, scores_file(*named, "sweep"), (), rows) for named, rows in compared.items()]
    return tuple(table for table in (*found, *alone) if table.rows or table.compared)


def _good_rows(data_repo: Path, path: str, schema: str) -> Rows:
    scanned = scan_jsonl(inside(data_repo, path), schema=schema, name=path)
    return tuple(row.value for row in scanned if not isinstance(row, FormatError))


def agreements(first: JudgeTable, tables: Collection[JudgeTable]) -> dict[str, list[Agreement]]:
    """Agreement of a judge with each other judge of the same model's sweep, by the other's name."""
    rubric = load_rubric()
    return {
        other.judge: compare(first.scores(), other.scores(), rubric)
        for other in tables
        if other is not first and other.model == first.model and other.rows
    }
