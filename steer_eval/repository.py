"""A Hub repo at a revision or a local folder, read the same way.

Invariant: what is opened is a folder on this disk whose content does not change while it is read: a local folder as it
is, or the snapshot of one commit of a Hub repo. Nothing outside the folder is ever read through it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.card import front_matter
from steer_eval.formats.containment import inside
from steer_eval.formats.pin import DataPin, data_pin
from steer_eval.formats.strict_json import MAX_FILE_BYTES, read_json
from steer_eval.formats.text import read_text
from steer_eval.hub.address import FORMS, HubAddress, Kind, parse_address
from steer_eval.hub.selection import Selection, below, without_weights
from steer_eval.left_file import LeftFile
from steer_eval.resources import folder as shipped_folder
from steer_eval.study import FILE as STUDY_FILE
from steer_eval.study import Study, load_study

CONFIG, CARD = "config.json", "README.md"


@dataclass(frozen=True)
class Repository:
    """An opened repo.

    Args:
        name: How the user named it.
        folder: Where its files are.
        revision: Commit of a Hub repo; None for a local folder.
        address: Where it is on the Hub, at that commit; None for a local folder.
        left: Files that were left on the Hub, by path: they are of the repo, and not in the folder.
    """

    name: str
    folder: Path
    revision: str | None = None
    address: HubAddress | None = None
    left: Mapping[str, LeftFile] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """The last part of what the repo is called."""
        return self.folder.resolve().name if self.address is None else self.address.id.rsplit("/", 1)[-1]

    def check_writable(self, option: str = "") -> None:
        """Refuse to write into the copy of a Hub repo.

        Args:
            option: The option that gives another place to write to, if there is one.

        Raises:
            SteerEvalError: The repo is one of the Hub.
        """
        if self.address is not None:
            here = f"bring it here with `steer-eval pull {self.name}`"
            fix = f"give {option}, or {here}" if option else here
            raise SteerEvalError(f"{self.name} is on the Hub, and is not written to", fix)


def open_repository(target: str, kind: Kind, selection: Selection = without_weights) -> Repository:
    """Open a local folder, or a Hub repo: `NAMESPACE/NAME[@REVISION]`, `hf://...` or its URL.

    A folder of that name goes before a repo of the Hub.

    Args:
        target: The folder or repo.
        kind: What it is, where the target leaves that open.
        selection: Which files of a Hub repo are fetched; the others are listed as left.

    Raises:
        SteerEvalError: There is no such folder and no such repo, or the Hub can't be reached.
        FormatError: A file that came is not the one that the Hub lists.
    """
    target = target.rstrip("/") or target
    folder = Path(target)
    if target and os.path.isdir(target):  # noqa: PTH112 - pathlib raises for names that no disk can hold
        return Repository(target, folder)
    if target and os.path.exists(target):  # noqa: PTH110
        raise SteerEvalError(f"{target} is a file", "give the folder of the repo")
    address = parse_address(target)
    if address is None:
        raise SteerEvalError(f"there is no folder {target}", f"give a folder, or a Hub repo as {FORMS}")
    if address.path:
        raise SteerEvalError(f"{target} is a place inside a repo", f"give the repo: {_without_path(address).uri}")
    return _from_hub(target, address, kind, selection)


def bring(repository: Repository, place: str) -> None:
    """Fetch what was left on the Hub of one folder of a repo, into the folder that the repo was opened as.

    Args:
        repository: The repo; a local one has all its files.
        place: The folder's path inside it.

    Raises:
        SteerEvalError: The Hub does not give it.
    """
    if repository.address is None or not any(path.startswith(f"{place}/") for path in repository.left):
        return
    from steer_eval.hub.snapshot import fetch
    from steer_eval.weights import cache_folder

    fetch(repository.address, below(place), cache=cache_folder())


def shadows(target: str) -> HubAddress | None:
    """The repo of the Hub whose name a local folder has too, if the folder does not say that it is another one.

    Args:
        target: The folder, as the user named it.
    """
    folder = Path(target)
    address = parse_address(target) if os.path.isdir(target) and "://" not in target else None  # noqa: PTH112
    if address is None:
        return None
    with suppress(FormatError):
        # A study says where it belongs; a folder that belongs elsewhere was never meant to be found on the Hub.
        study = load_study(inside(folder, STUDY_FILE), name=STUDY_FILE)
        return address if study.repo == address.id else None
    return address


def open_place(target: str, kind: Kind = "model") -> Path:
    """A local file or folder, or one inside a Hub repo: `hf://NAMESPACE/NAME[@REVISION]/PATH`, or its URL.

    Args:
        target: The place; a local one is taken as it is, whether or not it exists.
        kind: What the repo is, where the target leaves that open.

    Raises:
        SteerEvalError: The repo has no such file or folder, or can't be opened.
    """
    address = None if not target or os.path.lexists(target) else parse_address(target)
    if address is None or (not address.path and Path(target).suffix in (".safetensors", ".pt", ".md")):
        return Path(target)
    repo = _from_hub(target, _without_path(address), kind, below(address.path))
    place = inside(repo.folder, address.path, name=target)
    if not place.exists():
        raise SteerEvalError(f"{_without_path(address).uri} has no {address.path}", "look at the files of the repo")
    return place


def open_text(target: str, model: str | None = None) -> tuple[Path, Repository]:
    """Open a text and the model repo that it is about.

    Args:
        target: A local file, a file of a Hub repo, or a Hub repo, whose card is meant.
        model: The model repo; by default the folder of the text, or the Hub repo that it is in.

    Returns:
        Where the text is on this disk, and the repo.

    Raises:
        SteerEvalError: A repo can't be opened, or has no such file.
    """
    is_path = os.path.lexists(target) or (target.endswith(".md") and "://" not in target)
    address = None if is_path else parse_address(target)
    if address is None:
        return Path(target), open_repository(model or str(Path(target).parent), "model")
    home = open_repository(_without_path(address).uri, "model")
    name = address.path or CARD
    place = inside(home.folder, name, name=target)
    if not place.is_file():
        raise SteerEvalError(f"{home.name} has no {name}", "look at the files of the repo")
    return place, home if model is None else open_repository(model, "model")


def _from_hub(target: str, address: HubAddress, kind: Kind, selection: Selection) -> Repository:
    from steer_eval.hub.snapshot import fetch, resolve
    from steer_eval.weights import cache_folder

    snapshot = fetch(resolve(address, kind), selection, cache=cache_folder())
    return Repository(target, snapshot.folder, snapshot.address.revision, snapshot.address, snapshot.left)


def _without_path(address: HubAddress) -> HubAddress:
    return HubAddress(address.id, address.kind, address.revision)


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
    if model.address is None:
        return None
    return next((path for path in shipped.values() if load_study(path).repo == model.address.id), None)


def open_target(
    target: str, data: str | None = None, study: str | None = None, selection: Selection = without_weights
) -> Repositories | StudyRepositories:
    """Open a repo for checking, with its study if it has one.

    Args:
        target: A folder or a Hub repo.
        data: The dataset repo; by default the one that the study names, or else the card's `datasets:`; of a published
            repo at the commit that it pins. Without a study it may be absent.
        study: A study file, or the name of one that ships with the package, for a repo that has none.
        selection: Which files of Hub repos are fetched.

    Raises:
        SteerEvalError: A repo can't be opened, or there is no such study.
        FormatError: The study is bad.
    """
    model = open_repository(target, "model", selection)
    if study is None and os.path.lexists(model.folder / STUDY_FILE):
        return _own_study(model, data, selection)
    file = _study_file(model, study)
    if file is not None:
        found = load_study(file, name=str(study or file.name))
        return StudyRepositories(found, model, _data_of_study(found, model, data, selection), words=True)
    if data is not None:
        return Repositories(model, open_repository(data, "dataset", selection))
    return Repositories(model, _data_of_card(model, selection))


def open_study(target: str, data: str | None = None, selection: Selection = without_weights) -> StudyRepositories:
    """Open a model repo, read its study, and open the paired dataset repo.

    Args:
        target: The model repo: a folder or a Hub repo.
        data: The dataset repo; by default the one that the study names: for a local folder its sibling with the last
            part of that name, for a Hub repo the repo itself, at the commit that `config.json` pins if it does.
        selection: Which files of Hub repos are fetched.

    Raises:
        SteerEvalError: A repo can't be opened.
        FormatError: The study is bad, or what it pins is.
    """
    return _own_study(open_repository(target, "model", selection), data, selection)


def _own_study(model: Repository, data: str | None, selection: Selection) -> StudyRepositories:
    name = f"{model.name}/{STUDY_FILE}"
    study = load_study(inside(model.folder, STUDY_FILE, name=name), name=name)
    return StudyRepositories(study, model, _data_of_study(study, model, data, selection))


def _data_of_study(study: Study, model: Repository, data: str | None, selection: Selection) -> Repository:
    """The dataset repo of a study; it is found by its name unless it is given."""
    if data is not None:
        return open_repository(data, "dataset", selection)
    if model.address is not None:
        pin = _pin(model)
        if pin is not None and pin.repo != study.data:
            message = f"the study's dataset repo is {study.data}, and a commit of another one is pinned"
            file = f"{model.name}/{CONFIG}"
            raise FormatError(file, "data", message, expected=study.data, observed=pin.repo, fix="name it with --data")
        return _paired(study.data, pin, selection)
    sibling = _sibling(model, study.data)
    if not sibling.is_dir():
        raise SteerEvalError(
            f"the dataset repo {study.data} of the study is not beside {model.name} (looked for {sibling})",
            "put it there, or name it with --data",
        )
    return _local(sibling)


def _data_of_card(model: Repository, selection: Selection) -> Repository | None:
    """The dataset repo that a published repo pins, or else that its card names; None if there is none."""
    named = _datasets_of_card(model)
    if model.address is not None:
        pin = _pin(model)
        if pin is None and not named:
            return None
        return _paired(pin.repo if pin else named[0], pin, selection)
    siblings = (_sibling(model, name) for name in named)
    return next((_local(sibling) for sibling in siblings if sibling.is_dir()), None)


def _paired(repo: str, pin: DataPin | None, selection: Selection) -> Repository:
    """A dataset repo of the Hub, whatever folders there are here: strangers do not name folders of ours."""
    address = parse_address(repo)
    if address is None:
        raise SteerEvalError(f"{repo} is no name of a dataset repo", "name the dataset repo with --data")
    if pin is not None:
        address = HubAddress(address.id, "dataset", pin.revision)
    return _from_hub(repo, address, "dataset", selection)


def _pin(model: Repository) -> DataPin | None:
    name = f"{model.name}/{CONFIG}"
    if not os.path.lexists(model.folder / CONFIG):
        return None
    config: Any = read_json(inside(model.folder, CONFIG, name=name), name=name)
    return data_pin(config, name) if isinstance(config, dict) else None


def _sibling(model: Repository, repo: str) -> Path:
    return model.folder.resolve().parent / repo.rsplit("/", 1)[-1]


def _datasets_of_card(repository: Repository) -> list[str]:
    """Dataset repos that a card names; a bad card names none, and is a finding elsewhere."""
    name = f"{repository.name}/README.md"
    try:
        text = read_text(inside(repository.folder, "README.md", name=name), name, limit=MAX_FILE_BYTES)
        named = front_matter(text, name).get("datasets") or []
    except FormatError:
        return []
    listed = [named] if isinstance(named, str) else named
    return [each for each in listed if isinstance(each, str) and _is_id(each)]


def _is_id(text: str) -> bool:
    """Whether a text of a stranger is a plain `namespace/name`."""
    return "://" not in text and "@" not in text and parse_address(text) is not None


def _local(folder: Path) -> Repository:
    name = _relative(folder)
    return Repository(name, Path(name))


def _relative(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
