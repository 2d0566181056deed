"""What will be published, built from the user's folders in folders of its own.

Invariant: the user's folders are only read. What is staged depends on their files, on the names that the repos get and
on nothing else, so that staging twice gives the same bytes.

The names of the repos are those that they are published under: `repo:` and `data:` of a staged `study.yaml` name them,
whatever the author's own file says, because everything else in a published repo (cards, `config.json`, commands to
re-run) follows from these two lines.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steer_eval import legacy_cards
from steer_eval.cards import CONFIG, MODEL_CARD, render_data_repo, render_model_repo, write_rendered
from steer_eval.convert import convert
from steer_eval.convert_check import check_conversion
from steer_eval.convert_plan import COPY, plan_conversion
from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import Finding
from steer_eval.formats.atomic import write_text
from steer_eval.formats.containment import inside
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.manifest import write_manifest
from steer_eval.formats.pin import pinned
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.formats.text import read_text
from steer_eval.hub.address import Kind
from steer_eval.legacy.identity import Asked
from steer_eval.legacy.study import gather
from steer_eval.model_reference import LocalSource
from steer_eval.progress import progress_bar
from steer_eval.publish.belongs import Choice, select
from steer_eval.publish.legacy_config import data_config, model_config
from steer_eval.publish.secrets import scan
from steer_eval.publish.study_names import renamed
from steer_eval.repository import Repositories, Repository, StudyRepositories
from steer_eval.results_files import load_results
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import MAX_BYTES, Study, load_study
from steer_eval.validate import validate


@dataclass(frozen=True)
class StagedRepo:
    """One repo as it will be published.

    Args:
        id: Hub id that it is published under.
        kind: What it is.
        name: What the user calls its folder; the prefix of findings.
        folder: Where its files are staged.
        converted: Paths in the user's folder of files that are published in another form.
    """

    id: str
    kind: Kind
    name: str
    folder: Path
    converted: frozenset[str]

    def paths(self) -> list[str]:
        """Paths of the files, sorted."""
        found = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return sorted(found)


@dataclass(frozen=True)
class Staged:
    """A study as it will be published.

    Args:
        model: The model repo, without a pin.
        data: The dataset repo.
        findings: What was found in the files.
    """

    model: StagedRepo
    data: StagedRepo
    findings: tuple[Finding, ...]

    def pin(self, revision: str) -> None:
        """Let the staged model repo pin a commit of the dataset repo.

        Args:
            revision: The commit.
        """
        folder = self.model.folder
        config: dict[str, Any] = read_json(folder / CONFIG, name=CONFIG)
        _write_config(folder, pinned(config, revision))
        manifest: dict[str, Any] = read_json(folder / MANIFEST, name=MANIFEST)
        for entry in manifest["files"]:
            if entry["path"] == CONFIG:
                entry |= {"sha256": sha256_file(folder / CONFIG), "size": (folder / CONFIG).stat().st_size}
        write_json(folder / MANIFEST, manifest)


def stage(
    target: Repositories | StudyRepositories,
    scratch: Path,
    *,
    to: str,
    data_to: str,
    licence: str | None,
    choice: Choice,
) -> Staged:
    """Build what will be published, and check it.

    Args:
        target: The user's folders, opened.
        scratch: An empty folder to build in.
        to: Hub id of the model repo.
        data_to: Hub id of the dataset repo.
        licence: Licence to state, for a study without `study.yaml`.
        choice: What the user says of single files.

    Raises:
        SteerEvalError: There is no dataset folder, the folders are not apart, or one has nothing to publish.
        FormatError: The study is bad.
    """
    if target.data is None:
        raise SteerEvalError(f"nothing says which dataset folder belongs to {target.model.name}", "name it with --data")
    for repository in (target.model, target.data):
        if repository.address is not None:
            message = f"{repository.name} is a repo of the Hub, and what is published comes from folders"
            raise SteerEvalError(message, f"bring it here first: steer-eval pull {repository.name}")
    here, there = (Path(os.path.realpath(each.folder)) for each in (target.model, target.data))
    if here.is_relative_to(there) or there.is_relative_to(here):
        message = f"{target.model.name} and {target.data.name} lie in one another, and would be published twice"
        raise SteerEvalError(message, "put the two folders beside each other")
    findings: list[Finding] = []
    with progress_bar("check and stage", 4) as advance:
        model = _taken(target.model, to, "model", scratch, choice, findings)
        advance(1)
        data = _taken(target.data, data_to, "dataset", scratch, choice, findings)
        advance(1)
        folders = Repository(model.name, model.folder), Repository(data.name, data.folder)
        staged: Repositories | StudyRepositories
        if isinstance(target, StudyRepositories):
            staged = _of_study(*folders, to, data_to, findings)
        else:
            staged = _without_study(*folders, Asked(to, data_to, licence), findings)
        advance(1)
        for repo in (model, data):
            write_manifest(repo.folder)
            for path, finding in scan(repo.folder, repo.name, repo.paths()):
                if finding.rule == "publish-secret" or not choice.allows(path):
                    findings.append(finding)
        findings += validate(staged).findings
        advance(1)
    return Staged(model, data, tuple(findings))


def _taken(
    source: Repository, to: str, kind: Kind, scratch: Path, choice: Choice, findings: list[Finding]
) -> StagedRepo:
    """The files of a folder that belong, with legacy ones converted."""
    selection = select(source.folder, source.name, choice)
    findings += selection.findings
    if not selection.paths:
        raise SteerEvalError(f"{source.name} holds no file to publish", f"name the folder of the {kind} repo")
    taken, folder = scratch / f"taken-{kind}", scratch / kind
    for path in selection.paths:
        place = taken / path
        place.parent.mkdir(parents=True, exist_ok=True)
        _put(source.folder / path, place, f"{source.name}/{path}")
    plan = plan_conversion(taken)
    found = list(plan.findings)
    legacy = frozenset(step.source.path for step in plan.steps if step.source.kind != COPY)
    if legacy:
        plan = convert(plan, folder)
        checked, beside = check_conversion(plan, folder)
        found = [*plan.findings, *beside, *(each for one in checked for each in one.findings)]
    else:
        taken.rename(folder)
    prefix = f"{taken.name}/"
    findings += [replace(each, file=f"{source.name}/{each.file.removeprefix(prefix)}") for each in found]
    return StagedRepo(to, kind, source.name, folder, legacy)


def _put(source: Path, place: Path, name: str) -> None:
    """Copy a file, links followed: what is edited while this runs does not reach what was checked."""
    try:
        shutil.copyfile(source, place)
    except OSError as error:
        fix = "make it readable, or let TMPDIR name a folder with more room"
        raise SteerEvalError(f"{name} can't be copied: {error.strerror}", fix) from error


def _of_study(model: Repository, data: Repository, to: str, data_to: str, findings: list[Finding]) -> StudyRepositories:
    """Render a study under the names that it is published with."""
    name = f"{model.name}/{STUDY_FILE}"
    place = inside(model.folder, STUDY_FILE, name=name)
    text = renamed(read_text(place, name, limit=MAX_BYTES), repo=to, data=data_to, name=name)
    write_text(place, text)
    study = load_study(place, name=name)
    findings += _of_this_machine(study, name)
    results = load_results(study, model_repo=model.folder, data_repo=data.folder)
    write_rendered(model.folder, render_model_repo(study, results))
    write_rendered(data.folder, render_data_repo(study, results))
    return StudyRepositories(study, model, data)


def _of_this_machine(study: Study, name: str) -> Iterator[Finding]:
    """Models that nobody else has, so that nobody else can run the study."""
    for model in study.models.values():
        if isinstance(model.source, LocalSource):
            message = (
                f"the weights of {model.name} are a folder of this machine, so nobody else can run the study again"
            )
            fix = "name a repo of the Hub as its source, as hub: {id: NAMESPACE/NAME, revision: ...}"
            yield Finding("publish-local-model", "warning", name, f"models.{model.name}.source", message, fix=fix)


def _without_study(model: Repository, data: Repository, asked: Asked, findings: list[Finding]) -> Repositories:
    """Render the cards of a study without `study.yaml`, and write both `config.json`."""
    repositories = Repositories(model, data)
    study = gather(repositories, validate(repositories), asked)
    for repo in (model, data):
        text = _card(repo)
        if text is not None and legacy_cards.MARK not in text:
            message = "the card was written by hand; what is published is the one that is rendered from the files"
            fix = "see it with `steer-eval card --out DIR`; your own file stays as it is"
            findings.append(Finding("publish-card", "warning", f"{repo.name}/{MODEL_CARD}", "", message, fix=fix))
    write_rendered(model.folder, legacy_cards.render_model_repo(study))
    write_rendered(data.folder, legacy_cards.render_data_repo(study))
    _write_config(model.folder, model_config(study, _present(model)))
    _write_config(data.folder, data_config(study, _present(data)))
    return repositories


def _card(repo: Repository) -> str | None:
    try:
        return read_text(repo.folder / MODEL_CARD, MODEL_CARD, limit=MAX_BYTES)
    except FormatError:
        return None


def _present(repo: Repository) -> dict[str, Any]:
    """What the author's own `config.json` says; nothing where there is none."""
    name = f"{repo.name}/{CONFIG}"
    if not os.path.lexists(repo.folder / CONFIG):
        return {}
    config: Any = read_json(inside(repo.folder, CONFIG, name=name), name=name)
    if not isinstance(config, dict):
        raise FormatError(name, "", "the file is no JSON object", fix="rename it; a config.json of this form is needed")
    return config


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    # The same text as that of the cards' renderer, which compares it.
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
