"""Running a study's models again: which cells, on which models, and what could not be.

Invariant: what is measured goes into the run directory as the files of a dataset repo. A model or a method that can't
be run is a finding, and takes nothing from the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from steer_eval.cells import Cell, plan, wants_text
from steer_eval.claims.measures import REGISTRY, Needs
from steer_eval.comparison.cells import comparison_cells
from steer_eval.environment import Environment
from steer_eval.errors import SteerEvalError
from steer_eval.estimate import estimate, machine_flops, machine_gigabytes, why_left_out
from steer_eval.findings import Finding
from steer_eval.formats.saelens import folder_name
from steer_eval.measure import Bench, measure, settle_text
from steer_eval.model_reference import ModelReference
from steer_eval.produce import LoadedModel, bench, environment_record, produce_vectors
from steer_eval.progress import progress_bar
from steer_eval.remeasure import Remeasurement, tokens_to_read
from steer_eval.repository import StudyRepositories, bring
from steer_eval.results import Results, Sweep, SweepRow
from steer_eval.results_files import write_comparison, write_environments, write_sweep
from steer_eval.run import Journal

CellChoice = Literal["claimed", "all"]
"""Which cells to run again: those that claims need, or all that the study plans."""


@dataclass(frozen=True)
class Budget:
    """What a re-run may take, and whom to tell what it needs.

    Args:
        minutes: Models that would take longer, all together, are left out.
        tell: Takes what a re-run needs, line by line, before it starts.
        judge_kind: Who will judge the texts, as it is told; `recorded` for nobody.
    """

    minutes: float
    tell: Callable[[str], None]
    judge_kind: str


def rerun_models(
    repositories: StudyRepositories,
    published: Results,
    cells: CellChoice,
    run: Path,
    journal: Journal,
    budget: Budget,
    wanted: Needs,
    beside: Remeasurement,
) -> tuple[dict[str, Environment], list[Finding]]:
    """Measure each model again into the run directory; one that can't be run, or would take too long, is a finding.

    Args:
        repositories: The study and its repos.
        published: What was published: cells are steered with those vectors, and texts compared with those.
        cells: Which cells to run again.
        run: The run directory.
        journal: Where finished measurements go.
        budget: What it may take.
        wanted: What claims need.
        beside: What else is measured on each model.

    Returns:
        What each model that was run was measured on, and what could not be run.
    """
    study = repositories.study
    chosen = {name: _chosen(repositories, published, name, wanted, cells) for name in study.models}
    records: dict[str, dict[str, Any]] = {}
    left_out = _left_out(repositories, published, chosen, budget)
    findings = list(left_out.values())
    for name, reference in study.models.items():
        if name in left_out:
            continue
        try:
            records[name], trouble = _rerun_model(
                repositories, published, reference, chosen[name], run, journal, beside
            )
            findings += trouble
        except SteerEvalError as error:
            findings.append(Finding("model-not-run", "error", name, "", error.message, fix=error.fix))
    if records:
        write_environments(run, records)
    return {name: Environment.from_json(record) for name, record in records.items()}, findings


def _left_out(
    repositories: StudyRepositories, published: Results, chosen: Mapping[str, _Chosen], budget: Budget
) -> dict[str, Finding]:
    """Models that this machine can't run in the time there is, smallest first; tells what each of them needs."""
    study = repositories.study
    flops, memory = machine_flops(), machine_gigabytes()
    estimates = [
        estimate(study, study.models[name], what.cells, what.text, published, flops=flops, more_tokens=what.tokens)
        for name, what in chosen.items()
    ]
    findings = {}
    left = budget.minutes
    total = math.ceil(sum(each.minutes or 0.0 for each in estimates))
    for wanted in sorted(estimates, key=lambda each: each.minutes or 0.0):
        reason = why_left_out(wanted, minutes_left=left, gigabytes=memory)
        budget.tell(f"{wanted}{f': left out, {reason}' if reason else ''}")
        if reason:
            fix = f"on a machine with enough memory: {_command(repositories, total)}" if wanted.minutes else ""
            message = f"{wanted.base_model} was not run: {reason}"
            findings[wanted.model] = Finding("model-left-out", "warning", wanted.model, "", message, fix=fix)
        else:
            left -= wanted.minutes or 0.0
    if budget.judge_kind != "recorded":
        budget.tell(f"judges: {budget.judge_kind}, after the re-run: published texts first, then the new ones")
    elif any(REGISTRY[claim.measure].unit == "score" for claim in study.claims if claim.measure in REGISTRY):
        budget.tell("judges: no calls; their published scores are checked, not made again")
    return findings


def _command(repositories: StudyRepositories, minutes: int) -> str:
    """The command that runs all models of a study again."""
    study = f" --study {repositories.study.name}" if repositories.words else ""
    where = f"{repositories.model.name} --data {repositories.data.name}{study}"
    return f"steer-eval reproduce {where} --max-minutes {minutes}"


@dataclass(frozen=True)
class _Chosen:
    """What to measure again on one model.

    Args:
        cells: Cells whose perplexity is measured.
        text: Those of them whose text is generated.
        layers: Layers of vectors to derive again.
        tokens: Tokens that are read for what is measured beside cells.
    """

    cells: tuple[Cell, ...]
    text: tuple[Cell, ...]
    layers: tuple[int, ...]
    tokens: int


def _chosen(
    repositories: StudyRepositories, published: Results, model: str, wanted: Needs, cells: CellChoice
) -> _Chosen:
    study = repositories.study
    compared = comparison_cells(study, model)
    planned = [*plan(study, model), *compared]
    prompts, pairs = len(published.prompts or ()), len(published.pairs or ())
    tokens = tokens_to_read(study, wanted, model, prompts=prompts, pairs=pairs)
    if cells == "all":
        speaking = tuple(cell for cell in planned if wants_text(study, cell))
        return _Chosen(tuple(planned), speaking, study.vector_layers(model), tokens)
    claimed = wanted.perplexity | wanted.text
    # The zero control carries the unsteered model's sums, on which all ratios rest.
    bases = {cell for cell in planned if cell.label == "zero" and (cell.variant is None or claimed & set(compared))}
    chosen = tuple(cell for cell in planned if cell in claimed | bases)
    layers = tuple(layer for layer in study.vector_layers(model) if (model, layer) in wanted.vectors)
    return _Chosen(chosen, tuple(cell for cell in planned if cell in wanted.text), layers, tokens)


def _rerun_model(
    repositories: StudyRepositories,
    published: Results,
    reference: ModelReference,
    chosen: _Chosen,
    run: Path,
    journal: Journal,
    beside: Remeasurement,
) -> tuple[dict[str, Any], list[Finding]]:
    """Measure one model again; what it was measured on, and what could not be. The model is gone on return."""
    study = repositories.study
    model = LoadedModel(reference, repositories.model.folder)
    if chosen.layers and published.pairs is not None:
        produce_vectors(study, model, published.pairs, chosen.layers, run)
    for sae in study.saes:
        # Of a repo of the Hub, weights of SAEs are left there until they are needed.
        if sae.model == reference.name and any(cell.variant == "features" for cell in chosen.cells):
            bring(repositories.model, folder_name(sae.model, sae.layer))
    # Cells are steered with the published vectors: a claim about a cell is about those.
    place = bench(study, model, published, journal, repo=repositories.model.folder)
    chosen, findings = _possible(place, chosen)
    rows = measure(place, chosen.cells, chosen.text)
    name = model.reference.name
    if _settle(place, rows, [sweep[name] for sweep in (published.sweeps, published.comparisons) if name in sweep]):
        rows = measure(place, chosen.cells, chosen.text)
    write_sweep(run, name, [row for row in rows if row.cell.variant is None])
    compared = [row for row in rows if row.cell.variant is not None]
    if compared:
        write_comparison(run, name, compared)
    beside.measure(model)
    return environment_record(model), findings


def _possible(place: Bench, chosen: _Chosen) -> tuple[_Chosen, list[Finding]]:
    """The cells without those of methods that lack a file; each such file is a finding."""
    findings: dict[str, Finding] = {}
    lacking = set()
    for cell in chosen.cells:
        try:
            if cell.variant is not None:
                place.treatment(cell)
        except SteerEvalError as error:
            lacking.add(cell)
            findings.setdefault(
                error.message,
                Finding("method-not-run", "error", place.model, cell.variant or "", error.message, fix=error.fix),
            )
    possible = tuple(cell for cell in chosen.cells if cell not in lacking)
    speaking = tuple(cell for cell in chosen.text if cell not in lacking)
    return replace(chosen, cells=possible, text=speaking), list(findings.values())


def _settle(place: Bench, again: Sequence[SweepRow], published: Sequence[Sweep]) -> bool:
    """Generate texts that differ from the published ones again on the serial path; says whether there were any."""
    differing: list[tuple[Cell, str]] = []
    for row in again:
        before = next((found for table in published if (found := table.find(row.cell))), None)
        known = {text.prompt_idx: text for text in before.generations} if before else {}
        differing += [
            (row.cell, text.prompt)
            for text in row.generations
            if text.prompt_idx in known and text.path is None and text.gen != known[text.prompt_idx].gen
        ]
    if differing:
        with progress_bar(f"differing texts, serially {place.model}", len(differing)) as advance:
            for cell, prompt in differing:
                settle_text(place, cell, prompt)
                advance(1)
    return bool(differing)
