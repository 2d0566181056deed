"""How the files of judging are called.

Invariant: scores of a sweep's cells and those of a comparison's stand in files of their own, told apart by their names
alone. What is written under a name here is found under it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from steer_eval.cells import Cell

Table = Literal["sweep", "comparison"]
"""Which of a study's tables a cell stands in."""
SCHEMAS: Mapping[Table, str] = {"sweep": "judge_row", "comparison": "judge_comparison_row"}
"""Schema of the rows of each file of scores."""
_COMPARISON = "_comparison.jsonl"
_ENDINGS: Mapping[Table, str] = {"sweep": ".jsonl", "comparison": _COMPARISON}


def table_of(cell: Cell) -> Table:
    """The table that a cell stands in."""
    return "sweep" if cell.variant is None else "comparison"


def scores_file(judge: str, model: str, table: Table) -> str:
    """The file of a judge's scores of one model's cells."""
    return f"judge_{judge}_{model}{_ENDINGS[table]}"


def judgements_file(judge: str, model: str, table: Table) -> str:
    """The file of everything that a judge was asked about one model's cells."""
    return f"judgements_{judge}_{model}{_ENDINGS[table]}"


def beside(comparison: str) -> str:
    """The file of scores of the sweep that belongs to one of a comparison."""
    return comparison.removesuffix(_COMPARISON) + _ENDINGS["sweep"]
