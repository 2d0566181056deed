"""Staging in tests: without the Hub, and without a process of its own."""

from __future__ import annotations

from pathlib import Path

from steer_eval.publish.belongs import Choice
from steer_eval.publish.stage import Staged, stage
from steer_eval.repository import open_target

TO = "new/model"
DATA_TO = f"{TO}-data"


def staged(
    scratch: Path,
    model: Path,
    data: Path | None = None,
    choice: Choice | None = None,
    licence: str | None = None,
    to: str = TO,
) -> Staged:
    scratch.mkdir(parents=True)
    target = open_target(str(model), None if data is None else str(data))
    return stage(target, scratch, to=to, data_to=f"{to}-data", licence=licence, choice=choice or Choice())


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
