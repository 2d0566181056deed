"""What becomes of the files of a legacy repo.

Invariant: every file has a step or a finding, so none is dropped in silence; no two steps write one file; and nothing
is written here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.findings import Finding
from steer_eval.formats.containment import FIX, REASON, is_inside
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.saelens import CONFIG, WEIGHTS, folder_name
from steer_eval.formats.schema import check
from steer_eval.formats.torch_file import read_torch
from steer_eval.inventory import torch_kind

COPY = "copy"
"""Kind of every file that is no PyTorch file: it stays as it is."""

# What git and the Hub's client keep for themselves in a folder.
_PRIVATE = re.compile(r"(.*/)?\.git(/.*)?|\.cache/huggingface(/.*)?")
# Paths that the manifest has no place for, as in schemas/manifest.schema.json.
_UNLISTABLE = re.compile(r"[\x00-\x1f\\\ud800-\udfff]")
_SAE_NAME = re.compile(r"(?P<model>.+)_L[0-9]+(_.*)?")


@dataclass(frozen=True)
class Source:
    """A file of the legacy repo.

    Args:
        path: Its path inside the repo.
        kind: What a PyTorch file holds (`inventory.torch_kind`), or `COPY`.
        layer: Of an SAE: index of the decoder block whose output is encoded.
    """

    path: str
    kind: str = COPY
    layer: int = 0


@dataclass(frozen=True)
class Step:
    """One file of the legacy repo, and the files that it becomes."""

    source: Source
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What becomes of a repo.

    Args:
        folder: The legacy repo.
        steps: What becomes of its files, by path.
        findings: Files that nothing becomes of.
        title: What the repo is called in findings; by default after its folder.
    """

    folder: Path
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()
    title: str = ""

    def name(self, path: str) -> str:
        """What a file of the legacy repo is called in findings."""
        return f"{self.title or self.folder.resolve().name}/{path}"

    def place(self, step: Step) -> Path:
        """Where a step's source is."""
        return self.folder / step.source.path


def plan_conversion(folder: Path, title: str = "") -> Plan:
    """Look through a repo and plan what becomes of its files; of PyTorch files only the description is read.

    Args:
        folder: The legacy repo.
        title: What to call it in findings; by default after its folder.

    Raises:
        SteerEvalError: There is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise SteerEvalError(f"there is no folder {folder}", "name the folder of a model repo")
    sources: list[Source] = []
    findings: list[Finding] = []
    empty = Plan(folder, (), title=title)
    for path in walk(folder):
        found = _looked_at(empty, path)
        if isinstance(found, Finding):
            findings.append(found)
        elif path != MANIFEST:
            sources.append(found)
    if not sources and not findings:
        raise SteerEvalError(f"{folder} holds no files", "name the folder of a model repo")
    steps, clashes = assign(sources)
    findings += [
        Finding("convert-refused", "error", empty.name(path), "", message, fix="rename one of the two files")
        for path, message in clashes.items()
    ]
    return Plan(folder, steps, tuple(sorted(findings, key=lambda finding: finding.file)), title)


def assign(sources: Iterable[Source]) -> tuple[tuple[Step, ...], dict[str, str]]:
    """Decide which files each source becomes; no two may become one.

    Args:
        sources: Files of one repo, with different paths.

    Returns:
        The steps by the path of their source, and for each source that has none the reason. What is copied keeps its
        path whatever else wants it.
    """
    steps: list[Step] = []
    clashes: dict[str, str] = {}
    files: dict[str, str] = {MANIFEST: "the manifest"}
    folders: dict[str, str] = {}
    for source in sorted(sources, key=lambda source: (source.kind != COPY, source.path)):
        targets = _targets(source)
        above = {str(parent): source.path for target in targets for parent in PurePosixPath(target).parents}
        taken = [files.get(path) or folders.get(path) for path in targets] + [files.get(path) for path in above]
        owner = next(filter(None, taken), None)
        if owner is not None:
            clashes[source.path] = f"the file would become {targets[0]}, whose place {owner} takes"
            continue
        files.update(dict.fromkeys(targets, source.path))
        folders.update(above)
        steps.append(Step(source, targets))
    return tuple(sorted(steps, key=lambda step: step.source.path)), clashes


def walk(folder: Path) -> Iterator[str]:
    """Paths of all files and links of a repo, hidden ones included, sorted; what git keeps for itself is left out.

    Args:
        folder: The repo.

    Raises:
        SteerEvalError: A folder in it can't be read.
    """

    def unreadable(error: OSError) -> None:
        raise SteerEvalError(f"{error.filename} can't be read: {error.strerror}", "make the folder readable")

    paths = []
    for parent, folders, files in os.walk(folder, onerror=unreadable):
        relative = Path(parent).relative_to(folder)
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        paths += [(relative / name).as_posix() for name in (*files, *linked)]
        folders[:] = [name for name in folders if not _PRIVATE.fullmatch((relative / name).as_posix())]
    yield from sorted(path for path in paths if not _PRIVATE.fullmatch(path))


def _looked_at(plan: Plan, path: str) -> Source | Finding:
    """What a file is, or why nothing becomes of it."""
    name = plan.name(path)
    try:
        if _UNLISTABLE.search(path):
            raise FormatError(name, "", "no manifest can name this path", fix="rename the file")
        if not is_inside(plan.folder, path):
            return Finding("symlink", "error", name, "", REASON, fix=FIX)
        real = os.path.relpath(os.path.realpath(plan.folder / path), os.path.realpath(plan.folder))
        if _PRIVATE.fullmatch(Path(real).as_posix()):
            raise FormatError(name, "", "the link leads to what git keeps for itself", fix=FIX)
        if not (plan.folder / path).is_file():
            link = (plan.folder / path).is_symlink()
            what = "only links to files are followed" if link else "this is neither a file nor a folder"
            raise FormatError(name, "", what, fix=FIX if link else "remove it")
        if kind_of(path) != "torch":
            return Source(path)
        kind = torch_kind(plan.folder / path, name)
        if kind != "sae_pt":
            return Source(path, kind)
        header = read_torch(plan.folder / path, name=name).header
        check(header, kind, file=name)
        return Source(path, kind, header["layer"])
    except FormatError as error:
        return Finding.from_error("convert-refused", error)
    except OSError as error:
        return Finding("convert-refused", "error", name, "", f"the file can't be read: {error.strerror}")


def _targets(source: Source) -> tuple[str, ...]:
    """Paths of the files that a source becomes."""
    path = PurePosixPath(source.path)
    if source.kind == COPY:
        return (source.path,)
    if source.kind == "sae_pt":
        named = _SAE_NAME.fullmatch(path.stem)
        # A name of nothing but dots would lead out of the folder.
        model = (named["model"] if named else path.stem).strip(".") or "model"
        return tuple(f"{folder_name(model, source.layer)}/{file}" for file in (CONFIG, WEIGHTS))
    folder = "vectors" if source.kind == "vector_pt" else "transfer"
    inner = path.relative_to(folder) if path.is_relative_to(folder) else PurePosixPath(path.name)
    return (f"{folder}/{inner.with_suffix('.safetensors')}",)
