"""A Hub repo at a revision or a local folder, read the same way.

Invariant: what is opened is a folder on this disk whose content does not change while it is read: a local folder as it
is, or the snapshot of one commit of a Hub repo. Nothing outside the folder is ever read through it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steer_eval.errors import FormatError, SteerEvalError, first_line
from steer_eval.formats.card import front_matter
from steer_eval.formats.containment import inside
from steer_eval.formats.strict_json import MAX_FILE_BYTES
from steer_eval.formats.text import read_text
from steer_eval.resources import folder as shipped_folder
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import Study, load_study

Kind = Literal["model", "dataset"]
_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Repository:
    """An opened repo.

    Args:
        name: How the user named it.
        folder: Where its files are.
        revision: Commit of a Hub repo; None for a local folder.
    """

    name: str
    folder: Path
    revision: str | None = None


def open_repository(target: str, kind: Kind) -> Repository:
    """Open a local folder, or a Hub repo as `NAMESPACE/NAME` or `NAMESPACE/NAME@REVISION`.

    Raises:
        SteerEvalError: There is no such folder and no such repo, or the Hub can't be reached.
    """
    target = target.rstrip("/") or target
    folder = Path(target)
    if target and os.path.isdir(target):  # noqa: PTH112 - pathlib raises for names that no disk can hold
        return Repository(target, folder)
    if target and os.path.exists(target):  # noqa: PTH110
        raise SteerEvalError(f"{target} is a file", "give the folder of the repo")
    match = _HUB_ID.fullmatch(target)
    if match is None:
        raise SteerEvalError(
            f"there is no folder {target}", "give a folder, or a Hub repo as NAMESPACE/NAME[@REVISION]"
        )
    return _from_hub(target, match["id"], match["revision"], kind)


def _from_hub(target: str, repo_id: str, revision: str | None, kind: Kind) -> Repository:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo_id, repo_type=kind, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise SteerEvalError(
            f"{target} is no folder here, and as a {kind} repo it can't be fetched from the Hub: {first_line(error)}",
            "check the name, the network, and `hf auth whoami` for a private or gated repo",
        ) from error
    return Repository(target, folder, folder.name)


@dataclass(frozen=True)
class StudyRepositories:
    """A study with the two repos it lives in.

    Args:
        study: The study.
        model: The model repo.
        data: The dataset repo.
        words: Whether the study is not the model repo's own: then the card's words are claims beside the study's.
    """

    study: Study
    model: Repository
    data: Repository
    words: bool = False


@dataclass(frozen=True)
class Repositories:
    """A target of checks: a model or dataset repo, the data beside it, and the study, as far as they are there."""

    model: Repository
    data: Repository | None = None
    study: Study | None = None


def shipped_studies() -> dict[str, Path]:
    """Study files that ship with the package, for repos that have none of their own, by name."""
    return {path.stem: path for path in sorted(shipped_folder("studies").glob("*.yaml"))}


def _study_file(model: Repository, named: str | None) -> Path | None:
    """The study for a repo without one: the one that is named, or the shipped one of that Hub repo."""
    shipped = shipped_studies()
    if named is not None:
        if named not in shipped and not Path(named).is_file():
            raise SteerEvalError(
                f"there is no study {named}", f"give a study.yaml, or one of those that ship: {', '.join(shipped)}"
            )
        return shipped.get(named) or Path(named)
    if model.revision is None:
        return None
    repo_id = model.name.partition("@")[0]
    return next((path for path in shipped.values() if load_study(path).repo == repo_id), None)


def open_target(target: str, data: str | None = None, study: str | None = None) -> Repositories | StudyRepositories:
    """Open a repo for checking, with its study if it has one.

    Args:
        target: A folder or a Hub repo.
        data: The dataset repo; by default the one that the study names, or else the card's `datasets:`. Without a study
            it may be absent.
        study: A study file, or the name of one that ships with the package, for a repo that has none.

    Raises:
        SteerEvalError: A repo can't be opened, or there is no such study.
        FormatError: The study is bad.
    """
    model = open_repository(target, "model")
    if study is None and os.path.lexists(model.folder / STUDY_FILE):
        return open_study(target, data)
    file = _study_file(model, study)
    if file is not None:
        return _with_study(load_study(file, name=str(study or file.name)), model, target, data, words=True)
    if data is None:
        named = _datasets_of_card(model)
        if model.revision is not None and named:
            data = named[0]
        for name in named if model.revision is None else ():
            sibling = model.folder.resolve().parent / name.rsplit("/", 1)[-1]
            if sibling.is_dir():
                data = _relative(sibling)
                break
    return Repositories(model, open_repository(data, "dataset") if data else None)


def _datasets_of_card(repository: Repository) -> list[str]:
    """Dataset repos that a card names; a bad card names none, and is a finding elsewhere."""
    name = f"{repository.name}/README.md"
    try:
        text = read_text(inside(repository.folder, "README.md", name=name), name, limit=MAX_FILE_BYTES)
        named = front_matter(text, name).get("datasets") or []
    except FormatError:
        return []
    listed = [named] if isinstance(named, str) else named
    return [each for each in listed if isinstance(each, str) and _HUB_ID.fullmatch(each)]


def open_study(target: str, data: str | None = None) -> StudyRepositories:
    """Open a model repo, read its study, and open the paired dataset repo.

    Args:
        target: The model repo: a folder or a Hub repo.
        data: The dataset repo; by default the one that the study names: for a local folder its sibling with the last
            part of that name, for a Hub repo the repo itself.

    Raises:
        SteerEvalError: A repo can't be opened.
        FormatError: The study is bad.
    """
    model = open_repository(target, "model")
    name = f"{model.name}/{STUDY_FILE}"
    study = load_study(inside(model.folder, STUDY_FILE, name=name), name=name)
    return _with_study(study, model, target, data, words=False)


def _with_study(study: Study, model: Repository, target: str, data: str | None, *, words: bool) -> StudyRepositories:
    """The repos of a study; its dataset repo is found by its name unless it is given."""
    if data is None and model.revision is None:
        sibling = model.folder.resolve().parent / study.data.rsplit("/", 1)[-1]
        if not sibling.is_dir():
            raise SteerEvalError(
                f"the dataset repo {study.data} of the study is not beside {target} (looked for {sibling})",
                "put it there, or name it with --data",
            )
        data = _relative(sibling)
    return StudyRepositories(study, model, open_repository(data or study.data, "dataset"), words)


def _relative(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
