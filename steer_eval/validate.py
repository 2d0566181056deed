"""Checking a study's files without a model.

Invariant: every file of both repos is looked at, every trouble is a finding of its own, and one bad file never hides
another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from steer_eval.cards import check_cards
from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.containment import FIX, REASON, is_inside, links_out
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.manifest import check_manifest, repo_files
from steer_eval.formats.strict_json import Row
from steer_eval.repository import StudyRepositories
from steer_eval.results import Results, Sweep
from steer_eval.results_files import (
    ENVIRONMENT,
    load_results,
    read_corpus,
    read_environments,
    read_pairs,
    row_from_json,
    scan_table,
    sweep_file,
)
from steer_eval.rules.claims import check_claims
from steer_eval.rules.prompts import prompt_leaks
from steer_eval.rules.sweeps import sweep_findings
from steer_eval.rules.vectors import vector_findings
from steer_eval.study import FILE as STUDY_FILE
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
    roots = ((model_prefix, model), (data_prefix, data))
    links = [f"{prefix}{path}" for prefix, root in roots for path in links_out(root)]
    findings = [
        *check_manifest(model, prefix=model_prefix),
        *check_manifest(data, prefix=data_prefix),
        *check_claims(study, model_prefix + STUDY_FILE),
        *_tables(study, data, data_prefix),
        *prompt_leaks(study, results, data_prefix),
        *vector_findings(study, results, model_prefix),
    ]
    for sweep_of, sweep in _readable_sweeps(study, data, results):
        findings += sweep_findings(study, sweep_of, sweep, results, data_prefix)
    findings += _environment(data, data_prefix)
    if with_cards:
        findings += check_cards(study, results, model=repositories.model, data=repositories.data)
    # What a link hides is not read, so there is nothing else to say about it.
    findings = [Finding("symlink", "error", link, "", REASON, fix=FIX) for link in links] + [
        finding for finding in findings if not any(f"{finding.file}/".startswith(f"{link}/") for link in links)
    ]
    checked = [f"{prefix}{path}" for prefix, root in roots for path in _all(root)]
    return Validation(tuple(findings), tuple(checked), results)


def _all(folder: Path) -> Iterable[str]:
    yield from repo_files(folder)
    if is_inside(folder, MANIFEST) and (folder / MANIFEST).exists():
        yield MANIFEST


def _tables(study: Study, data: Path, prefix: str) -> list[Finding]:
    """Rows that are no JSON or break their schema."""
    files = {study.extraction.pairs: "contrast_pair", study.sweep.prompts: "eval_prompt"}
    files.update({sweep_file(model): "sweep_row" for model in study.models})
    findings = [
        replace(Finding.from_error("table", item), file=prefix + file)
        for file, schema in files.items()
        for item in scan_table(data, file, schema=schema)
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


def _readable_sweeps(study: Study, data: Path, results: Results) -> Iterable[tuple[str, Sweep]]:
    """Sweeps with the rows that can be read, also where other rows of the file are bad."""
    for model in study.models:
        if model in results.sweeps:
            yield model, results.sweeps[model]
        elif (data / sweep_file(model)).is_file():
            items = scan_table(data, sweep_file(model), schema="sweep_row")
            rows = [row_from_json(item.value, model, item.line) for item in items if isinstance(item, Row)]
            yield model, Sweep(sweep_file(model), tuple(rows))


def _environment(data: Path, prefix: str) -> list[Finding]:
    """An absent record only leaves open what a re-run on another machine means; a malformed one is a mistake."""
    if not os.path.lexists(data / ENVIRONMENT):
        message = "the file is absent: nobody can tell on which machine class the sweeps were measured"
        return [
            Finding("environment", "warning", prefix + ENVIRONMENT, "", message, fix="run `steer-eval sweep` again")
        ]
    try:
        read_environments(data)
    except FormatError as error:
        return [replace(Finding.from_error("environment", error), file=prefix + ENVIRONMENT)]
    return []
