"""From the legacy layout of a study's model repo, PyTorch files, to the safe one.

Invariant: the source is only read, and what is written stands in a new folder that appears whole or not at all. A file
is converted only if all that it holds has a place in the safe format.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from steer_eval.convert_plan import COPY, Plan, Step, walk
from steer_eval.digest import sha256_file
from steer_eval.errors import FormatError, SteerEvalError, first_line
from steer_eval.findings import Finding
from steer_eval.formats.caa_pt import read_caa_pt
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.manifest import SCHEMA, repo_files, write_manifest
from steer_eval.formats.sae import read_sae_pt
from steer_eval.formats.saelens import write_saelens
from steer_eval.formats.strict_json import dumps, read_json
from steer_eval.formats.torch_file import TorchFile, read_torch
from steer_eval.formats.transfer import (
    MATRICES,
    VECTORS,
    read_transfer_map_pt,
    read_transferred_pt,
    write_transfer_map,
    write_transferred,
)
from steer_eval.formats.vector import write_vector

MAX_EXTRA_BYTES = 2**16
"""Longest text of values for which a kind has no place; safetensors headers are bounded."""

_RESAVE = "save the file with the known keys alone, and keep the rest in a file of its own"


@dataclass(frozen=True)
class Legacy:
    """What a kind of PyTorch file holds that its safe format has a place for, under the same names.

    Args:
        source_format: What the safe file says that it comes from.
        tensors: Keys of its tensors, or of dicts of them.
        settings: Keys of the plain values that have places of their own.
    """

    source_format: str
    tensors: tuple[str, ...]
    settings: tuple[str, ...]


LEGACY = {
    "vector_pt": Legacy("caa-pt", ("vector",), ("model", "layer", "norm", "n_pairs")),
    "transferred_pt": Legacy("transferred-pt", VECTORS, ("L_small", "c_small")),
    "transfer_map_pt": Legacy("transfer-map-pt", MATRICES, ("L_large", "L_small", "alpha")),
    "sae_pt": Legacy("topk-sae-pt", ("state_dict",), ("d_model", "d_sae", "k", "layer", "model_id")),
}
"""The kinds of files that are converted; every other is copied."""


def convert(plan: Plan, out: Path, *, force: bool = False, on_file: Callable[[int], None] = lambda _: None) -> Plan:
    """Write the safe repo.

    Args:
        plan: What becomes of the legacy repo.
        out: The new folder.
        force: Replace a folder that an earlier conversion made, if nothing in it was changed since.
        on_file: Called with 1 after each file.

    Returns:
        The plan as it was carried out: without the files that turned out to be bad, which are findings in it.

    Raises:
        SteerEvalError: The folder is there and can't be replaced, or can't be written.
    """
    check_place(plan, out)
    if os.path.lexists(out):
        if not force:
            raise SteerEvalError(
                f"{out} is there already", "choose another folder with --out, or replace it with --force"
            )
        _check_replaceable(plan, out)
    done: list[Step] = []
    findings = list(plan.findings)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".steer-eval-convert-", dir=out.parent) as scratch:
            fresh, old = Path(scratch, "new"), Path(scratch, "old")
            fresh.mkdir()
            for step in plan.steps:
                try:
                    _carry_out(plan, step, fresh)
                    done.append(step)
                except FormatError as error:
                    refused = Finding.from_error("convert-refused", error)
                    findings.append(replace(refused, file=plan.name(step.source.path)))
                on_file(1)
            write_manifest(fresh)
            if out.exists():
                out.rename(old)
            try:
                fresh.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
    except OSError as error:
        raise SteerEvalError(
            f"{out} can't be written: {error.strerror or first_line(error)}", "name another place with --out"
        ) from error
    return replace(plan, steps=tuple(done), findings=tuple(findings))


def check_place(plan: Plan, out: Path) -> None:
    """Check that a place for the new repo lies apart from the legacy one.

    Raises:
        SteerEvalError: One lies in the other, or the place is a link or a file.
    """
    here, there = Path(os.path.realpath(plan.folder)), Path(os.path.realpath(out))
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise SteerEvalError(f"{out} and {plan.folder} lie in one another", "choose another folder with --out")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise SteerEvalError(f"{out} is no folder", "choose another one with --out")


def read_legacy(plan: Plan, step: Step) -> tuple[Any, dict[str, Any]]:
    """The value that a PyTorch file holds, and what else is in it.

    Raises:
        FormatError: The file is refused, its numbers are not in order, or something in it has no place.
    """
    kind, where, name = step.source.kind, plan.place(step), plan.name(step.source.path)
    more = extras(read_torch(where, name=name), kind, name)
    return _READERS[kind](where, name=name), more


def extras(file: TorchFile, kind: str, name: str) -> dict[str, Any]:
    """Plain values of a legacy file for which its kind has no place.

    Args:
        file: The file.
        kind: A key of `LEGACY`.
        name: What to call it in messages.

    Raises:
        FormatError: Something that is no plain value has no place, so converting would lose it.
    """
    legacy = LEGACY[kind]
    known = {*legacy.tensors, *legacy.settings}
    for key, value in file.content.items():
        if str(key) not in known and _is_tensor(value, top=True):
            raise FormatError(name, str(key), "the safe format has no place for this tensor", fix=_RESAVE)
    return {key: value for key, value in file.header.items() if key not in known}


def origin(plan: Plan, step: Step) -> dict[str, str]:
    """What a safe file says of the file that it was converted from."""
    return {
        "source_format": LEGACY[step.source.kind].source_format,
        "source_file": step.source.path,
        "source_sha256": sha256_file(plan.place(step)),
    }


def _carry_out(plan: Plan, step: Step, root: Path) -> None:
    target = root / step.targets[0]
    if step.source.kind == COPY:
        _copy(plan.place(step), target, plan.name(step.source.path))
        return
    value, more = read_legacy(plan, step)
    _WRITERS[step.source.kind](target, value, origin(plan, step), more)


def _copy(source: Path, target: Path, name: str) -> None:
    try:
        readable = source.open("rb")
    except OSError as error:
        raise FormatError(name, "", f"the file can't be read: {error.strerror}") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    with readable, target.open("wb") as written:
        shutil.copyfileobj(readable, written, 2**20)
    target.chmod(target.stat().st_mode | (source.stat().st_mode & 0o111))


def _write_vector(target: Path, value: Any, source: Mapping[str, str], more: dict[str, Any]) -> None:
    provenance = {"format": "steer-eval/vector/1", **value.provenance, **_as_text(more, target), **source}
    write_vector(target, replace(value, provenance=provenance))


def _write_transferred(target: Path, value: Any, source: Mapping[str, str], more: dict[str, Any]) -> None:
    write_transferred(target, replace(value, provenance={**_as_text(more, target), **source}))


def _write_transfer_map(target: Path, value: Any, source: Mapping[str, str], more: dict[str, Any]) -> None:
    write_transfer_map(target, replace(value, provenance={**_as_text(more, target), **source}))


def _write_sae(target: Path, value: Any, source: Mapping[str, str], _more: dict[str, Any]) -> None:
    twice = sorted(value.provenance.keys() & source.keys())
    if twice:
        raise FormatError(target.name, twice[0], "the source has a key that the safe format needs itself", fix=_RESAVE)
    write_saelens(target.parent, replace(value, provenance={**value.provenance, **source}))


def _as_text(more: dict[str, Any], target: Path) -> dict[str, str]:
    """Metadata for values that have no place of their own."""
    text = dumps(more)
    if len(text.encode()) > MAX_EXTRA_BYTES:
        message = f"values beside the known ones need more than {MAX_EXTRA_BYTES} bytes"
        raise FormatError(target.name, sorted(more)[0], message, fix=_RESAVE)
    return {"extra": text} if more else {}


def _is_tensor(value: Any, *, top: bool = False) -> bool:
    """Whether a value is or holds a tensor or array; a numpy number at the top of a file is read as a plain one."""
    if isinstance(value, np.generic):
        return not top
    if isinstance(value, Mapping):
        return any(map(_is_tensor, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_is_tensor, value))
    return not (value is None or isinstance(value, str | int | float))


def _check_replaceable(plan: Plan, out: Path) -> None:
    """Check that replacing a folder loses nothing: an earlier conversion made it, and nobody touched it since.

    Raises:
        SteerEvalError: Something there is not what a conversion of this repo leaves.
    """
    present = list(walk(out))
    if not present:
        return
    fix = "choose another folder with --out, or remove this one yourself"
    try:
        manifest: Any = read_json(out / MANIFEST, name=str(out / MANIFEST))
        ours = isinstance(manifest, dict) and manifest.get("schema") == SCHEMA
        listed = {entry["path"]: entry["sha256"] for entry in manifest["files"]} if ours else {}
    except (FormatError, KeyError, TypeError):
        ours = False
    if not ours:
        raise SteerEvalError(f"{out} was not made by a conversion: it holds no manifest of ours", fix)
    planned = {target for step in plan.steps for target in step.targets} | {MANIFEST}
    for path in present:
        if path not in planned:
            raise SteerEvalError(f"{out} holds {path}, which this conversion would not write", fix)
    for path in repo_files(out):
        if listed.get(path) != sha256_file(out / path):
            raise SteerEvalError(f"{out}/{path} was changed since its manifest was written", fix)


_READERS: dict[str, Callable[..., Any]] = {
    "vector_pt": read_caa_pt,
    "transferred_pt": read_transferred_pt,
    "transfer_map_pt": read_transfer_map_pt,
    "sae_pt": read_sae_pt,
}
_WRITERS: dict[str, Callable[[Path, Any, Mapping[str, str], dict[str, Any]], None]] = {
    "vector_pt": _write_vector,
    "transferred_pt": _write_transferred,
    "transfer_map_pt": _write_transfer_map,
    "sae_pt": _write_sae,
}
