"""Bringing a repo of the Hub here as a plain folder.

Invariant: no byte that was changed here is written over unless that was asked for. A folder keeps a record of the
commit it was brought from, so that what changed here can be told from what changed on the Hub; files are replaced one
by one, each in one step, and the record last, so that a pull that was cut short goes on when it is run again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.atomic import write_text
from steer_eval.formats.containment import inside
from steer_eval.formats.strict_json import read_json, write_json
from steer_eval.hub.address import HubAddress
from steer_eval.hub.selection import everything
from steer_eval.repository import Repositories, Repository, StudyRepositories, open_target

SCHEMA = "steer-eval/pull/1"
RECORD_SCHEMA = "steer-eval/pulled/1"
OWN = ".cache/huggingface"
"""Folder that the Hub's own tools keep such records in, and never upload."""
_RECORD = f"{OWN}/steer-eval.json"
_LISTED = 20


@dataclass(frozen=True)
class Origin:
    """Where a folder was brought from (`schemas/pulled.schema.json`).

    Args:
        repo: Hub id of the repo.
        kind: `model` or `dataset`.
        revision: The commit.
        files: SHA-256 of each file of that commit, by path, or as it was last published from the folder.
        published: The commit that was last published from the folder, after it was brought here; None for none.
    """

    repo: str
    kind: str
    revision: str
    files: Mapping[str, str]
    published: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {
            "schema": RECORD_SCHEMA,
            "repo": self.repo,
            "kind": self.kind,
            "revision": self.revision,
            "files": dict(self.files),
            **({"published": self.published} if self.published else {}),
        }


@dataclass(frozen=True)
class Plan:
    """What a pull has to do to one folder.

    Args:
        source: The repo.
        folder: The folder.
        origin: Its next record.
        write: Paths to write.
        remove: Paths that the commit has no more.
        clash: Paths that changed both here and there.
        kept: Paths that changed here alone.
        unchanged: Paths that are as they should be.
    """

    source: Repository
    folder: Path
    origin: Origin
    write: tuple[str, ...]
    remove: tuple[str, ...]
    clash: tuple[str, ...]
    kept: tuple[str, ...]
    unchanged: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What was done, as a JSON object."""
        return {
            "repo": self.origin.repo,
            "kind": self.origin.kind,
            "revision": self.origin.revision,
            "folder": str(self.folder),
            "written": list(self.write),
            "removed": list(self.remove),
            "kept": list(self.kept),
            "unchanged": len(self.unchanged),
        }


def pull(target: str, data: str | None, to: Path, *, overwrite: bool) -> tuple[Plan, ...]:
    """Bring a repo and its paired dataset repo here, side by side.

    Args:
        target: The repo on the Hub.
        data: Its dataset repo; by default the one that it pins or names.
        to: Where the folders go; each has the last part of the repo's name.
        overwrite: Whether what changed here may be replaced by what the Hub has.

    Returns:
        What was done, model repo first.

    Raises:
        SteerEvalError: The Hub does not give the repos, or files changed both here and there; then nothing is written.
    """
    if Path(target).is_dir():
        raise SteerEvalError(f"{target} is a folder here", "give a repo of the Hub, as NAMESPACE/NAME[@REVISION]")
    opened = open_target(target, data, selection=everything)
    plans = [plan(repo, folder) for repo, folder in _folders(opened, to)]
    clashes = [f"{each.folder}/{path}" for each in plans for path in each.clash]
    if clashes and not overwrite:
        listed = ", ".join(clashes[:_LISTED]) + (f" and {len(clashes) - _LISTED} more" if clashes[_LISTED:] else "")
        message = f"{len(clashes)} file{'s' * (len(clashes) > 1)} changed here, and the Hub has others: {listed}"
        raise SteerEvalError(message, "pull into another folder with --to, or replace them with --overwrite")
    return tuple(_apply(each) for each in plans)


def read_origin(folder: Path) -> Origin | None:
    """Where a folder was brought from; None if it was not, or its record can't be read.

    Args:
        folder: The folder.
    """
    try:
        record: Any = read_json(inside(folder, _RECORD), name=f"{folder}/{_RECORD}")
        schema.check(record, "pulled", file=f"{folder}/{_RECORD}")
    except FormatError:
        return None
    return Origin(record["repo"], record["kind"], record["revision"], record["files"], record.get("published"))


def record(folder: Path, origin: Origin) -> None:
    """Write down where a folder was brought from.

    Args:
        folder: The folder.
        origin: Where from.
    """
    write_json(folder / _RECORD, origin.to_json())


def _folders(opened: Repositories | StudyRepositories, to: Path) -> list[tuple[Repository, Path]]:
    """Where each repo goes: the dataset repo where the study looks for it."""
    found = [(opened.model, to / _last(_address(opened.model).id))]
    if opened.data is not None:
        name = opened.study.data if opened.study is not None else _address(opened.data).id
        found.append((opened.data, to / _last(name)))
        if found[0][1] == found[1][1]:
            raise SteerEvalError(
                f"{_address(opened.model).id} and {_address(opened.data).id} would be one folder, {found[0][1]}",
                "pull the dataset repo alone, as hf://datasets/..., into another folder with --to",
            )
    return found


def _address(repo: Repository) -> HubAddress:
    if repo.address is None:
        raise SteerEvalError(f"{repo.name} is a folder here", "give a repo of the Hub, as NAMESPACE/NAME[@REVISION]")
    return repo.address


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def plan(source: Repository, folder: Path) -> Plan:
    """Set a commit beside a folder.

    Args:
        source: The repo, all of whose files are in the cache.
        folder: The folder; it need not exist.

    Raises:
        SteerEvalError: The folder was brought from another repo.
    """
    address = _address(source)
    before = read_origin(folder)
    if before is not None and (before.repo, before.kind) != (address.id, address.kind):
        message = f"{folder} was brought from the {before.kind} repo {before.repo}"
        raise SteerEvalError(message, "pull into another folder with --to")
    known = before.files if before else {}
    files = {path: sha256_file(source.folder / path) for path in _all_files(source.folder)}
    groups: dict[str, list[str]] = {word: [] for word in ("write", "remove", "clash", "kept", "unchanged")}
    for path in sorted({*files, *known}):
        groups[_what_to_do(files.get(path), known.get(path), _here(folder, path))].append(path)
    origin = Origin(address.id, str(address.kind), str(address.revision), files)
    return Plan(source, folder, origin, **{word: tuple(paths) for word, paths in groups.items()})


_NOTHING = "nothing"


def _what_to_do(there: str | None, known: str | None, here: str) -> str:
    """What becomes of a file.

    Args:
        there: Its checksum in the commit; None if it is not in it.
        known: Its checksum when the folder was last pulled; None if it was not there.
        here: Its checksum in the folder; `nothing` if it is not there.
    """
    if here == (there or _NOTHING):
        return "unchanged"
    if here in (known, _NOTHING):
        return "write" if there else "remove"
    return "kept" if there == known else "clash"


def _here(folder: Path, path: str) -> str:
    place = inside(folder, path, name=f"{folder}/{path}")
    if not os.path.lexists(place):
        return _NOTHING
    # What is no file can't be equal to one.
    return sha256_file(place) if place.is_file() else "another thing"


def _all_files(folder: Path) -> list[str]:
    """Every file, hidden ones too: a copy lacks nothing."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _apply(what: Plan) -> Plan:
    """Do what a plan says; clashes were allowed if there are any."""
    own = what.folder / OWN
    own.mkdir(parents=True, exist_ok=True)
    if not (own / ".gitignore").exists():
        write_text(own / ".gitignore", "*\n")
    with FileLock(own / "steer-eval.lock"):
        # A pull that was killed can have left some.
        shutil.rmtree(own / "steer-eval-incoming", ignore_errors=True)
        incoming = own / "steer-eval-incoming"
        incoming.mkdir()
        clashing = [path for path in what.clash if path in what.origin.files]
        for path in (*what.write, *clashing):
            _replace(what.source.folder / path, inside(what.folder, path), incoming)
        dropped = [path for path in what.clash if path not in what.origin.files]
        for path in (*what.remove, *dropped):
            inside(what.folder, path).unlink(missing_ok=True)
        record(what.folder, what.origin)
        shutil.rmtree(incoming)
    done = {"write": (*what.write, *clashing), "remove": (*what.remove, *dropped), "clash": ()}
    return Plan(what.source, what.folder, what.origin, **done, kept=what.kept, unchanged=what.unchanged)


def _replace(source: Path, place: Path, incoming: Path) -> None:
    """Put a copy of a file in its place in one step."""
    if place.is_dir() and not place.is_symlink():
        raise SteerEvalError(f"{place} is a folder, and the Hub has a file of that name", "move the folder away")
    handle, temporary = tempfile.mkstemp(dir=incoming)
    with os.fdopen(handle, "wb") as target, source.open("rb") as content:
        shutil.copyfileobj(content, target, 2**20)
        target.flush()
        os.fsync(target.fileno())
    umask = os.umask(0)
    os.umask(umask)
    Path(temporary).chmod(0o666 & ~umask)
    place.parent.mkdir(parents=True, exist_ok=True)
    Path(temporary).replace(place)


def summary(plans: Sequence[Plan]) -> dict[str, Any]:
    """What was pulled, as a JSON object."""
    return {"schema": SCHEMA, "repos": [each.to_json() for each in plans]}
