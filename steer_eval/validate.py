"""Checking repos without a model.

Invariant: every file of the repos is looked at, every trouble is a finding of its own, and one bad file never hides
another. Files are held to each other; where there is a study, they are held to it as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from steer_eval.cards import check_cards
from steer_eval.comparison.plan import ComparisonPlan
from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.containment import FIX, REASON, is_inside, links_out
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.manifest import check_manifest
from steer_eval.inventory import Inventory, Root, take_inventory
from steer_eval.repository import Repositories, StudyRepositories
from steer_eval.results import Sweep
from steer_eval.results_files import (
    ENVIRONMENT,
    comparison_file,
    comparison_row_from_json,
    load_results,
    read_corpus,
    read_environments,
    read_pairs,
    row_from_json,
    sweep_file,
)
from steer_eval.rules.card_files import card_file_findings
from steer_eval.rules.claims import check_claims
from steer_eval.rules.comparisons import comparison_findings
from steer_eval.rules.evaluations import evaluation_findings
from steer_eval.rules.files import absent_cards, absent_data, file_findings, unread_findings
from steer_eval.rules.judges import judge_findings
from steer_eval.rules.licences import licence_findings
from steer_eval.rules.prompts import prompt_leaks
from steer_eval.rules.sae_companions import companion_findings
from steer_eval.rules.sae_provenance import planned_sae_findings
from steer_eval.rules.saes import sae_findings
from steer_eval.rules.sweep_files import sweep_file_findings, sweep_files
from steer_eval.rules.sweeps import sweep_findings
from steer_eval.rules.texts import text_findings
from steer_eval.rules.transfer_diagnostics import diagnostics_findings, planned_diagnostics_findings
from steer_eval.rules.transfers import transfer_findings
from steer_eval.rules.vector_files import vector_file_findings
from steer_eval.rules.vectors import vector_findings
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import Study

MAX_ALIKE = 40
"""Findings of one rule in one file that are shown."""


@dataclass(frozen=True)
class Validation:
    """What a check of repos found.

    Args:
        findings: The findings, by file.
        checked: Files that were looked at.
        inventory: What the files hold.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    inventory: Inventory


def validate(target: Repositories | StudyRepositories, *, with_cards: bool = True) -> Validation:
    """Check the files of a repo, or of a study's two repos.

    Args:
        target: The repos, and the study where there is one.
        with_cards: Also compare a study's cards with what the data gives.
    """
    roots = _roots(target)
    links = [f"{root.prefix}{path}" for root in roots for path in links_out(root.folder)]
    inventory = take_inventory(roots)
    findings = [
        finding for root in roots for finding in check_manifest(root.folder, prefix=root.prefix, left=root.left)
    ]
    findings += [*file_findings(inventory), *unread_findings(inventory)]
    findings += _between_files(inventory, target.study)
    if isinstance(target, StudyRepositories):
        findings += _of_study(target, inventory, with_cards=with_cards)
    else:
        findings += [*absent_cards(inventory), *absent_data(inventory), *card_file_findings(inventory)]
    # What a link hides is not read, so there is nothing else to say about it.
    findings = [Finding("symlink", "error", link, "", REASON, fix=FIX) for link in links] + [
        finding for finding in findings if not any(f"{finding.file}/".startswith(f"{link}/") for link in links)
    ]
    checked = [f"{root.prefix}{path}" for root in roots for path in _all(root)]
    return Validation(tuple(_bounded(_each_once(findings))), tuple(checked), inventory)


def _each_once(findings: Iterable[Finding]) -> Iterable[Finding]:
    """A trouble that both the files and the study bring up is one finding."""
    return {(finding.rule, finding.file, finding.where, finding.message): finding for finding in findings}.values()


def _bounded(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One cause can show in every row of a file, and in a hostile one in a million: the rest of them is a number.

    The first ones of each rule in each file stand as they are; what is left out is counted in one more.
    """
    counts: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        key = (finding.rule, finding.file)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= MAX_ALIKE:
            yield finding
        last[key] = finding
    for key, count in counts.items():
        if count > MAX_ALIKE:
            message = f"{count - MAX_ALIKE} more of these: look for one cause first"
            yield replace(last[key], where="", message=message, expected=None, observed=None)


def _roots(target: Repositories | StudyRepositories) -> list[Root]:
    model, data = target.model, target.data
    roots = [Root(model.folder, f"{model.name}/", "model", left=model.left)]
    if data is not None:
        study = target.study
        kinds = {} if study is None else study.chosen_names
        roots.append(Root(data.folder, f"{data.name}/", "dataset", kinds, data.left))
    return roots


def _all(root: Root) -> Iterable[str]:
    yield from root.files()
    if is_inside(root.folder, MANIFEST) and (root.folder / MANIFEST).exists():
        yield MANIFEST


def _between_files(inventory: Inventory, study: Study | None) -> list[Finding]:
    """What files say of each other."""
    planned = frozenset(sweep_file(model) for model in study.models) if study else frozenset()
    sweeps = sweep_files(inventory)
    return [
        *prompt_leaks(inventory),
        *text_findings(inventory, study),
        *vector_file_findings(inventory),
        *sae_findings(inventory),
        *companion_findings(inventory),
        *transfer_findings(inventory, sweeps),
        *diagnostics_findings(inventory),
        *sweep_file_findings(inventory, sweeps, planned),
        *judge_findings(inventory, sweeps),
        *evaluation_findings(inventory, sweeps),
    ]


def _of_study(target: StudyRepositories, inventory: Inventory, *, with_cards: bool) -> list[Finding]:
    """What files say of the study, and the study of them."""
    study, data = target.study, target.data.folder
    model_prefix, data_prefix = f"{target.model.name}/", f"{target.data.name}/"
    results = load_results(study, model_repo=target.model.folder, data_repo=data)
    findings = [
        *check_claims(study, model_prefix + STUDY_FILE),
        *_tables(study, data, inventory, data_prefix),
        *vector_findings(study, results, inventory, model_prefix),
    ]
    for model, sweep in _readable_sweeps(study, inventory, data_prefix):
        findings += sweep_findings(study, model, sweep, results, data_prefix)
    findings += planned_sae_findings(study, inventory, model_prefix, data_folder=data)
    findings += planned_diagnostics_findings(study, inventory, model_prefix)
    findings += licence_findings(study, inventory, model_prefix)
    for plan, compared in _readable_comparisons(study, inventory, data_prefix):
        findings += comparison_findings(
            study, plan, compared, results, repo=target.model.folder, prefix=data_prefix, left=target.model.left
        )
    findings += _environment(data, data_prefix)
    if target.words:
        findings += card_file_findings(inventory)
    elif with_cards:
        findings += check_cards(study, results, model=target.model, data=target.data)
    return findings


def _tables(study: Study, data: Path, inventory: Inventory, prefix: str) -> list[Finding]:
    """Tables that a study names and that are absent, or lack what it asks of them."""
    present = {artifact.file: artifact for artifact in inventory.artifacts}
    wanted = [study.extraction.pairs, study.sweep.prompts, study.perplexity.corpus, *map(sweep_file, study.models)]
    wanted += [comparison_file(plan.model) for plan in study.comparisons]
    findings = [
        Finding("table", "error", prefix + file, "", "the file is absent", fix="study.yaml needs it")
        for file in wanted
        if prefix + file not in present
    ]
    complete: list[tuple[str, Callable[[Path, Study], object]]] = [
        (study.perplexity.corpus, read_corpus),
        (study.extraction.pairs, read_pairs),
    ]
    for file, read in complete:
        artifact = present.get(prefix + file)
        if artifact is None or artifact.troubles:
            continue
        try:
            read(data, study)
        except FormatError as error:
            findings.append(replace(Finding.from_error("table", error), file=prefix + file))
    return findings


def _readable_sweeps(study: Study, inventory: Inventory, prefix: str) -> Iterable[tuple[str, Sweep]]:
    """Sweeps with the rows that can be read, also where other rows of the file are bad."""
    for model in study.models:
        file = sweep_file(model)
        for artifact in inventory.of("sweep"):
            if artifact.file == prefix + file:
                rows = tuple(row_from_json(row.value, model, row.line) for row in artifact.value)
                yield model, Sweep(file, rows)


def _readable_comparisons(study: Study, inventory: Inventory, prefix: str) -> Iterable[tuple[ComparisonPlan, Sweep]]:
    """Planned comparisons with the rows that can be read."""
    for plan in study.comparisons:
        file = comparison_file(plan.model)
        for artifact in inventory.of("comparison"):
            if artifact.file == prefix + file:
                rows = tuple(comparison_row_from_json(row.value, plan.model, row.line) for row in artifact.value)
                yield plan, Sweep(file, rows)


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
