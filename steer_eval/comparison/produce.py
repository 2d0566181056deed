"""Measuring a study's comparison of methods and writing it.

Invariant: a comparison is measured where its model's sweep was, as `environment.json` can say only one machine per
model; elsewhere it goes to a folder of its own, with what it was measured on. Margins are shown only of texts that are
those of the published comparison, which judges were given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steer_eval.cells import Cell
from steer_eval.comparison.cells import comparison_cells
from steer_eval.comparison.table import Line, margins_of, table
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.measure import measure
from steer_eval.produce import LoadedModel, bench, environment_record
from steer_eval.repository import StudyRepositories
from steer_eval.results import Results, Sweep, Text
from steer_eval.results_files import (
    ENVIRONMENT,
    load_results,
    read_environments,
    write_comparison,
    write_environments,
)
from steer_eval.run import Journal
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import Study

_SAME_MACHINE = ("machine_class", "dtype", "weights_sha256")
"""What a comparison must have in common with the sweep beside which it stands."""


def produce_comparison(
    repositories: StudyRepositories, model: str, journal: Journal, *, out: Path, memory: int | None = None
) -> list[Line]:
    """Measure a model's comparison and write it.

    Args:
        repositories: The study and its repos.
        model: Name of the model; the study plans a comparison on it.
        journal: Where finished measurements go.
        out: Folder that the comparison goes to, with what it was measured on.
        memory: Bytes that batches may take; None for half of what is free.

    Returns:
        Its table.

    Raises:
        FormatError: A file that a method needs is absent, bad or of something else; or there are fewer prompts than are
            planned.
        SteerEvalError: The folder has a sweep of the model from another machine, or of other weights.
    """
    study, folder = repositories.study, repositories.data.folder
    published = load_results(study, model_repo=repositories.model.folder, data_repo=folder)
    _check_prompts(study, model, published)
    loaded = LoadedModel(study.models[model], repositories.model.folder)
    records = _records(out)
    record = environment_record(loaded, memory=memory)
    _check_machine(model, records.get(model), record)
    cells = comparison_cells(study, model)
    place = bench(study, loaded, published, journal, repo=repositories.model.folder, memory=memory)
    # A file that a method lacks is told before anything is measured.
    for cell in cells:
        place.treatment(cell)
    rows = measure(place, cells, cells)
    write_comparison(out, model, rows)
    if model not in records:
        write_environments(out, {**records, model: record})
    before = published.comparisons.get(model)
    judged = [row for row in rows if _has_texts_of(before, row.cell, row.generations)]
    return table(rows, margins_of(published.judges, judged))


def _has_texts_of(before: Sweep | None, cell: Cell, generations: Sequence[Text]) -> bool:
    row = before.find(cell) if before else None
    return row is not None and [text.gen for text in row.generations] == [text.gen for text in generations]


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """What the sweeps of a folder were measured on."""
    return read_environments(folder) if (folder / ENVIRONMENT).exists() else {}


def _check_prompts(study: Study, model: str, published: Results) -> None:
    """Refuse a plan of more prompts than the file has, which would be a comparison on fewer."""
    for number, plan in enumerate(study.comparisons):
        if plan.model == model and plan.prompts is not None and published.prompts is not None:
            there = len(published.prompts)
            if plan.prompts > there:
                raise FormatError(
                    STUDY_FILE, f"comparisons.{number}.prompts",
                    f"{plan.prompts} prompts are planned, and {study.sweep.prompts} has {there}",
                    expected=f"<= {there}", observed=plan.prompts,
                    fix="write that many, or leave the field out to take all of them",
                )  # fmt: skip


def _check_machine(model: str, swept: Mapping[str, Any] | None, record: Mapping[str, Any]) -> None:
    differing = [key for key in _SAME_MACHINE if swept is not None and swept[key] != record[key]]
    if swept is not None and differing:
        said = "; ".join(f"{key} {swept[key]}, here {record[key]}" for key in differing)
        raise SteerEvalError(
            f"{ENVIRONMENT}: the sweep of {model} was measured otherwise: {said}",
            "write to a folder of its own with --out, or run `steer-eval sweep` here first",
        )
