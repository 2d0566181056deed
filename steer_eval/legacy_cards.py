"""Cards of a study without `study.yaml`, rendered from its files.

Invariant: a card is a pure function of the study: every number in it is looked up or computed, every word is the
template's or a name that the data has. A rendered card carries a mark, so that no other card is ever written over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from steer_eval import markdown
from steer_eval.audit import audit_text
from steer_eval.card_templates import card_templates
from steer_eval.cards import DATASET_CARD, MAX_BYTES, MODEL_CARD, differences, write_rendered
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import Finding
from steer_eval.formats.containment import inside
from steer_eval.formats.text import read_text
from steer_eval.heatmap import render_heatmap
from steer_eval.legacy import checks, front_matter, views
from steer_eval.legacy.agreement import agreements
from steer_eval.legacy.best import MEASURES
from steer_eval.legacy.identity import Asked
from steer_eval.legacy.limits import limits
from steer_eval.legacy.study import LegacyStudy, gather
from steer_eval.model_reference import LocalSource, ModelReference
from steer_eval.repository import Repositories, Repository, StudyRepositories
from steer_eval.results import Sweep
from steer_eval.study import Extraction, PerplexityProtocol, Study, SweepPlan
from steer_eval.validate import Validation, validate

MARK = "<!-- rendered by steer-eval card -->"
MODEL_FOLDER, DATASET_FOLDER = "model", "dataset"
"""Folders for the two repos' files where they are not written into the repos."""


def open_legacy(repositories: Repositories, asked: Asked) -> LegacyStudy:
    """Check the files of a study without `study.yaml`, and gather them.

    Args:
        repositories: Its repos.
        asked: What the user says of names and licence.

    Raises:
        SteerEvalError: There is no dataset repo, or nothing says what the repos are called.
    """
    if repositories.data is None:
        raise SteerEvalError(
            f"{repositories.model.name} has no study.yaml, and nothing says which dataset repo belongs to it",
            "name it with --data",
        )
    return gather(repositories, validate(repositories), asked)


def render_model_repo(study: LegacyStudy) -> dict[str, str]:
    """Everything in a model repo that is rendered from data: the card and the heat maps, by path."""
    figures = {view.heatmap: _heatmap(study, view) for view in views.model_views(study) if view.heatmap}
    card = _render("legacy_model_card.md.jinja", study, front_matter.model_front_matter(study))
    return {MODEL_CARD: card, **figures}


def render_data_repo(study: LegacyStudy) -> dict[str, str]:
    """Everything in a dataset repo that is rendered from data: the card, by path."""
    return {DATASET_CARD: _render("legacy_dataset_card.md.jinja", study, front_matter.dataset_front_matter(study))}


def check_legacy(repositories: Repositories, study: LegacyStudy) -> list[Finding]:
    """Compare the present cards with the data: every number of them, and rendered cards line by line.

    Args:
        repositories: The repos of the study.
        study: What their files say.

    Returns:
        What the data contradicts, card by card in the order of the lines.
    """
    findings: list[Finding] = []
    for repository, rendered in _repos(repositories, study):
        file = f"{repository.name}/{MODEL_CARD}"
        card = _present(repository.folder, MODEL_CARD)
        if card is None:
            message = "the repo has no card that can be read"
            findings.append(Finding("card-absent", "warning", file, "", message, fix="run `steer-eval card`"))
            continue
        found = list(_contradicted(card, file, study))
        told = {(file, _line(finding)) for finding in found}
        if MARK in card:
            for path, text in rendered.items():
                differing = differences(f"{repository.name}/{path}", text, _present(repository.folder, path))
                # What a line says wrong is said once, and better by the number.
                found += [each for each in differing if (each.file, _line(each)) not in told]
        findings += sorted(found, key=lambda each: (each.file != file, each.file, _line(each)))
    return findings


def _contradicted(card: str, file: str, study: LegacyStudy) -> Iterator[Finding]:
    """Numbers of a card that the data contradicts."""
    for place in audit_text(card, file, study.inventory, study.found).places:
        check = place.verdict.checks[0]
        if place.verdict.word == "contradicted":
            claim = place.verdict.claim
            message = "; ".join(part for part in (f"the data contradicts this: {claim.words}", check.reason) if part)
            where = f"line {place.line}: column {place.start + 1}"
            expected = check.observed
            observed = claim.expected if isinstance(claim.expected, bool) else claim.expected.text
            fix = "correct it, or run `steer-eval card` to render the card from the data"
            yield Finding("card-differs", "error", file, where, message, expected, observed, fix)


def _line(finding: Finding) -> int:
    digits = "".join(finding.where.partition(":")[0].split()[1:])
    return int(digits) if digits.isdigit() else 0


def write_legacy(repositories: Repositories, study: LegacyStudy, *, out: Path | None, force: bool) -> list[str]:
    """Write the cards of a study, into its repos or into another folder.

    Args:
        repositories: The repos of the study.
        study: What their files say.
        out: Where to write instead of into the repos.
        force: Also write over a card that was not rendered.

    Returns:
        Paths of the files that changed.

    Raises:
        SteerEvalError: A card that was not rendered is in the place, or the place can't be written; then nothing is.
    """
    from steer_eval.formats.manifest import write_manifest

    placed = []
    for repository, rendered in _repos(repositories, study):
        is_model = repository is repositories.model
        name = MODEL_FOLDER if is_model else DATASET_FOLDER
        place = repository.folder if out is None else out / name
        shown = repository.name if out is None else str(out / name)
        if out is None:
            _check_writable(repository)
        card = _present(place, MODEL_CARD)
        if os.path.lexists(place / MODEL_CARD) and MARK not in (card or "") and not force:
            raise SteerEvalError(
                f"{shown}/{MODEL_CARD} was not rendered by steer-eval, and would be lost",
                "write elsewhere with --out DIR, or replace it with --force",
            )
        placed.append((place, shown, rendered))
    written = []
    for place, shown, rendered in placed:
        try:
            written += [f"{shown}/{path}" for path in write_rendered(place, rendered)]
            if out is None:
                write_manifest(place)
        except OSError as error:
            reason = f"{shown} can't be written: {error.strerror}"
            raise SteerEvalError(reason, "write elsewhere with --out DIR") from error
    return written


def write_beside(repositories: Repositories | StudyRepositories, validation: Validation, run: Path) -> None:
    """Write both cards of repos, as their data gives them, below a run directory.

    Where nothing says what the repos are called, there are none.

    Args:
        repositories: The repos.
        validation: What a check of them found.
        run: The run directory; the cards go to `cards/model` and `cards/dataset`.
    """
    try:
        study = gather(Repositories(repositories.model, repositories.data), validation, Asked())
    except SteerEvalError:
        return
    write_rendered(run / "cards" / "model", render_model_repo(study))
    write_rendered(run / "cards" / "dataset", render_data_repo(study))


def _check_writable(repository: Repository) -> None:
    repository.check_writable("--out DIR")
    if not os.access(repository.folder, os.W_OK):
        raise SteerEvalError(f"{repository.name} can't be written", "write elsewhere with --out DIR")


def _repos(repositories: Repositories, study: LegacyStudy) -> Iterator[tuple[Repository, dict[str, str]]]:
    yield repositories.model, render_model_repo(study)
    if repositories.data is not None:
        yield repositories.data, render_data_repo(study)


def _present(place: Path, path: str) -> str | None:
    try:
        return read_text(inside(place, path), path, limit=MAX_BYTES)
    except FormatError:
        return None


def _heatmap(study: LegacyStudy, view: views.ModelView) -> str:
    """A heat map of the cells that a sweep has: of a study it needs the grid, the model and the collapse ratio only."""
    layers = tuple(sorted({row.cell.layer for row in view.steered if row.cell.layer is not None}))
    coefficients = tuple(sorted({row.cell.coef for row in view.steered}))
    spanned = Study(
        name=study.identity.name,
        title=study.identity.name,
        data=study.identity.data,
        models={view.name: ModelReference(view.name, view.base, "", LocalSource(""))},
        extraction=Extraction("", "", "", layers),
        perplexity=PerplexityProtocol(""),
        sweep=SweepPlan(
            prompts="", layers=layers, coefficients=coefficients, zero=False, collapse_ratio=study.collapse_ratio
        ),
        tolerances={},
        claims=(),
    )
    return render_heatmap(spanned, view.name, Sweep(study.sweeps[view.name].artifact.path, view.steered))


@cache
def _templates() -> Any:
    return card_templates(
        name=markdown.name,
        text=lambda value: json.dumps(value, ensure_ascii=False),
        coef=lambda value: f"{value:+g}",
        at=lambda score: f"L={score.layer} c={score.coef:+g}",
    )


def _render(template: str, study: LegacyStudy, matter: str) -> str:
    found = [finding for finding in study.findings if finding.severity != "note"]
    rendered: str = (
        _templates()
        .get_template(template)
        .render(
            front_matter=matter,
            mark=MARK,
            study=study,
            identity=study.identity,
            measures=MEASURES,
            models=views.model_views(study),
            features=views.feature_views(study),
            variants=views.variant_files(study),
            usage=views.usage_view(study),
            model_files=views.file_views(study, "model"),
            data_files=views.file_views(study, "dataset"),
            agreements=[list(each) for _, each in groupby(agreements(study.judgements), key=lambda one: one.model)],
            limits=limits(study),
            checked=list(checks.checked(study)),
            troubles=checks.troubles(study.findings),
            findings=found,
            pairs=checks.row_count(study, "contrast_pairs"),
            prompts=checks.row_count(study, "eval_prompts"),
            fields=views.field_rows,
        )
    )
    return rendered
