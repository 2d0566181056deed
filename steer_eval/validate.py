"""Checking a study's files without a model.

Invariant: every file of both repos is looked at, every trouble is a finding of its own, and one bad file never hides
another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from steer_eval.cards import check_cards
from steer_eval.cells import Cell, plan, wants_text
from steer_eval.consistency import row_conflicts, vector_conflicts
from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.manifest import check_manifest, repo_files
from steer_eval.formats.strict_json import Row, scan_jsonl
from steer_eval.formats.vector import SteeringVector, file_name
from steer_eval.repository import StudyRepositories
from steer_eval.results import Results, Sweep, SweepRow
from steer_eval.results_files import (
    ENVIRONMENT,
    load_results,
    read_corpus,
    read_pairs,
    row_from_json,
    sweep_file,
)
from steer_eval.study import Study


@dataclass(frozen=True)
class Validation:
    """What a check of a study's files found.

    Args:
        findings: The findings, by file.
        checked: Files that were looked at.
        results: What the files hold.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    results: Results


def validate(repositories: StudyRepositories, *, with_cards: bool = True) -> Validation:
    """Check the files of a study.

    Args:
        repositories: The study and its repos.
        with_cards: Also compare both cards with what the data gives.
    """
    study, model, data = repositories.study, repositories.model.folder, repositories.data.folder
    results = load_results(study, model_repo=model, data_repo=data)
    model_prefix, data_prefix = f"{repositories.model.name}/", f"{repositories.data.name}/"
    findings = [
        *check_manifest(model, prefix=model_prefix),
        *check_manifest(data, prefix=data_prefix),
        *_tables(study, data, data_prefix),
        *_vectors(study, results, model_prefix),
    ]
    for sweep_of, sweep in _readable_sweeps(study, data, results):
        findings += _sweep(study, sweep_of, sweep, results, data_prefix)
    if ENVIRONMENT in results.unusable:
        findings.append(Finding("environment", "warning", data_prefix + ENVIRONMENT, "", results.unusable[ENVIRONMENT]))
    if with_cards:
        findings += check_cards(study, results, model=repositories.model, data=repositories.data)
    checked = [
        f"{prefix}{path}" for prefix, root in ((model_prefix, model), (data_prefix, data)) for path in _all(root)
    ]
    return Validation(tuple(findings), tuple(checked), results)


def _all(folder: Path) -> Iterable[str]:
    yield from repo_files(folder)
    if (folder / MANIFEST).exists():
        yield MANIFEST


def _tables(study: Study, data: Path, prefix: str) -> list[Finding]:
    """Rows that are no JSON or break their schema."""
    files = {study.extraction.pairs: "contrast_pair", study.sweep.prompts: "eval_prompt"}
    files.update({sweep_file(model): "sweep_row" for model in study.models})
    findings = [
        Finding.from_error("table", item)
        for file, schema in files.items()
        for item in scan_jsonl(data / file, schema=schema, name=prefix + file)
        if isinstance(item, FormatError)
    ]
    complete: list[tuple[str, Callable[[Path, Study], object]]] = [(study.perplexity.corpus, read_corpus)]
    if prefix + study.extraction.pairs not in {finding.file for finding in findings}:
        complete.append((study.extraction.pairs, read_pairs))
    for file, read in complete:
        try:
            read(data, study)
        except FormatError as error:
            findings.append(replace(Finding.from_error("table", error), file=prefix + file))
    return findings


def _vectors(study: Study, results: Results, prefix: str) -> list[Finding]:
    findings = []
    for model in study.models:
        sizes = {v.values.shape[0] for (owner, _), v in results.vectors.items() if owner == model}
        for layer in study.extraction.layers:
            file = file_name(model, layer)
            vector = results.vectors.get((model, layer))
            if vector is None:
                reason = results.unusable.get(file, "the file is absent")
                findings.append(
                    Finding("vector", "error", prefix + file, "", reason, fix="run `steer-eval extract` on the study")
                )
            else:
                findings += _vector(study, model, layer, vector, prefix + file)
        if len(sizes) > 1:
            findings.append(
                Finding(
                    "vector-shape",
                    "error",
                    f"{prefix}vectors/",
                    model,
                    "vectors have several widths",
                    None,
                    sorted(sizes),
                )
            )
    return findings


def _vector(study: Study, model: str, layer: int, vector: SteeringVector, file: str) -> list[Finding]:
    findings = [
        Finding(
            "vector-norm",
            "error",
            file,
            f"__metadata__.{conflict.field}",
            str(conflict),
            conflict.expected,
            conflict.observed,
        )
        for conflict in vector_conflicts(vector)
    ]
    if vector.layer != layer:
        message = "the layer in the file is not the one in its name"
        findings.append(Finding("vector-layer", "error", file, "__metadata__.layer", message, layer, vector.layer))
    base = study.models[model].base_model
    if vector.provenance["model"] != base:
        message = "the vector was made on another model than the study names"
        findings.append(
            Finding("vector-model", "error", file, "__metadata__.model", message, base, vector.provenance["model"])
        )
    return findings


def _readable_sweeps(study: Study, data: Path, results: Results) -> Iterable[tuple[str, Sweep]]:
    """Sweeps with the rows that can be read, also where other rows of the file are bad."""
    for model in study.models:
        if model in results.sweeps:
            yield model, results.sweeps[model]
        elif (data / sweep_file(model)).is_file():
            items = scan_jsonl(data / sweep_file(model), schema="sweep_row", name=sweep_file(model))
            rows = [row_from_json(item.value, model, item.line) for item in items if isinstance(item, Row)]
            yield model, Sweep(sweep_file(model), tuple(rows))


def _sweep(study: Study, model: str, sweep: Sweep, results: Results, prefix: str) -> list[Finding]:
    file = prefix + sweep.file
    findings = []
    seen: dict[Cell, SweepRow] = {}
    for row in sweep.rows:
        where = f"line {row.line}"
        findings += [
            Finding(
                "sweep-arithmetic",
                "error",
                file,
                f"{where}: {conflict.field}",
                str(conflict),
                conflict.expected,
                conflict.observed,
                "run `steer-eval sweep` again; never edit measured rows",
            )
            for conflict in row_conflicts(row, sweep, study)
        ]
        if row.cell in seen:
            message = f"{row.cell} stands in line {seen[row.cell].line} already"
            findings.append(Finding("sweep-duplicate", "error", file, where, message, fix="remove one of the rows"))
        seen[row.cell] = row
        findings += _texts(study, row, results, file)
    for cell in plan(study, model):
        if cell not in seen:
            findings.append(
                Finding(
                    "sweep-missing", "error", file, "", f"no row for {cell}", fix="run `steer-eval sweep` on the study"
                )
            )
    return findings


def _texts(study: Study, row: SweepRow, results: Results, file: str) -> list[Finding]:
    where = f"line {row.line}: generations"
    findings = []
    if row.collapse_undecided(study.sweep.collapse_ratio) and row.interval is not None:
        message = (
            f"the interval {row.interval.low:.3g} to {row.interval.high:.3g} of {row.cell} spans the collapse ratio "
            f"{study.sweep.collapse_ratio:g}: whether it collapses is undecided"
        )
        findings.append(
            Finding("collapse-undecided", "note", file, f"line {row.line}", message, fix="a longer corpus narrows it")
        )
    if results.prompts is None:
        return findings
    for text in row.generations:
        known = results.prompts[text.prompt_idx] if text.prompt_idx < len(results.prompts) else None
        if known != text.prompt:
            message = f"the prompt is not number {text.prompt_idx} of {study.sweep.prompts}"
            findings.append(Finding("sweep-prompt", "error", file, where, message, known, text.prompt))
    expected = len(results.prompts) if wants_text(study, row.cell) and not row.collapsed else 0
    if [text.prompt_idx for text in row.generations] != list(range(expected)):
        message = "not one text per prompt" if expected else "a cell without text in the plan has some"
        findings.append(
            Finding(
                "sweep-texts", "error" if expected else "warning", file, where, message, expected, len(row.generations)
            )
        )
    return findings
