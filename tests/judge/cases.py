"""Cells to judge, and a judge of them on the stub endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from judge.stub_server import Stub

from steer_eval.cells import Cell
from steer_eval.judge.api import ApiJudge
from steer_eval.judge.cache import opened_log
from steer_eval.judge.judging import Judged, judge_cells
from steer_eval.judge.protocol import DEFAULT_REPEATS
from steer_eval.judge.rubric import load_rubric
from steer_eval.judge.subjects import ProtocolName, Sample, Subject

RUBRIC = load_rubric()


def subjects(count: int = 4, prompts: int = 3, *, model: str = "m") -> list[Subject]:
    """Steered cells with different texts; the last one is a control."""
    made = []
    for number in range(count):
        label = "random" if number == count - 1 and count > 1 else "steered"
        samples = tuple(
            Sample(index, f"Situation {index}.", f"Text {index} of cell {number}: the letter is late.")
            for index in range(prompts)
        )
        made.append(Subject(Cell(model, label, 3, float(number)), samples))
    return made


@contextmanager
def judge_on(stub: Stub, folder: Path, *, replay: Path | None = None, **options: Any) -> Iterator[ApiJudge]:
    with opened_log(folder, replay) as log:
        yield ApiJudge(
            stub.url, "stub", name="stub", log=log, **{"key": "secret-key", "retries": 1, "timeout": 5.0, **options}
        )


def judged_on(
    stub: Stub,
    folder: Path,
    what: list[Subject] | None = None,
    *,
    protocol: ProtocolName = "paper-cell",
    repeats: int | None = None,
    replay: Path | None = None,
    **options: Any,
) -> Judged:
    with judge_on(stub, folder, replay=replay, **options) as judge:
        return judge_cells(
            judge,
            what if what is not None else subjects(),
            RUBRIC,
            protocol,
            repeats=repeats or DEFAULT_REPEATS[protocol],
        )
