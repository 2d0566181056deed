"""Which artifacts an export is of.

Invariant: a `VectorSet` is of one model: its vectors have one width, one stated model and one name, and no layer is
there twice. Files of a folder or repo are found by their names, lie inside it, and are taken in our own format where
they are there in two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steer_eval.errors import SteerEvalError
from steer_eval.export.format import VectorSet
from steer_eval.formats.containment import inside
from steer_eval.formats.vector import SteeringVector, read_vector
from steer_eval.hub.selection import vectors
from steer_eval.repository import open_place, open_repository

if TYPE_CHECKING:
    from steer_eval.formats.sae import TopKSae

_NAME = re.compile(r"(?P<model>[A-Za-z0-9][\w.-]*)_L[0-9]{1,4}_caa")
_SUFFIXES = (".safetensors", ".pt")


@dataclass(frozen=True)
class _Found:
    """A vector file, and what its name calls the model."""

    path: Path
    name: str
    model: str


def open_vectors(targets: Sequence[str], model: str | None = None, layers: Collection[int] = ()) -> VectorSet:
    """Read the vectors of one model.

    Args:
        targets: Vector files, folders of such files, and model repos (a folder, or a Hub repo as
            `NAMESPACE/NAME[@REVISION]`), of which the folder `vectors` is taken. Files can be on the Hub as well.
        model: What the files call the model; None if there is only one.
        layers: The layers that are wanted; all if there are none.

    Raises:
        SteerEvalError: There is no vector, or it is unclear which are meant.
        FormatError: A file is bad.
    """
    found = [file for target in targets for file in _files(target)]
    names = sorted({file.model for file in found})
    if model is None and len(names) > 1:
        raise SteerEvalError(f"there are vectors of several models: {', '.join(names)}", "choose one with --model")
    chosen = [file for file in found if model in (None, file.model)]
    if not chosen:
        raise SteerEvalError(f"there are no vectors of {model}", f"choose among {', '.join(names)}")
    vectors: dict[int, SteeringVector] = {}
    places: dict[int, _Found] = {}
    for file in chosen:
        vector = _read(file)
        if vector.layer in vectors:
            raise SteerEvalError(
                f"{places[vector.layer].name} and {file.name} are both of layer {vector.layer}", "name only one of them"
            )
        vectors[vector.layer], places[vector.layer] = vector, file
    for layer in layers:
        if layer not in vectors:
            there = ", ".join(map(str, sorted(vectors)))
            raise SteerEvalError(
                f"there is no vector of {chosen[0].model} for layer {layer}", f"choose among layers {there}"
            )
    _check_one_model(vectors, places)
    return VectorSet(chosen[0].model, {layer: vectors[layer] for layer in sorted(set(layers) or vectors)})


def open_sae(targets: Sequence[str]) -> TopKSae:
    """Read an SAE: a SAELens folder, or a PyTorch file.

    Raises:
        SteerEvalError: There is not exactly one target.
        FormatError: It is no Top-K SAE.
    """
    from steer_eval.formats.sae import read_sae_pt
    from steer_eval.formats.saelens import read_saelens

    if len(targets) != 1:
        raise SteerEvalError(f"one SAE is exported at a time, not {len(targets)}", "give one folder or file")
    path = open_place(targets[0])
    return read_saelens(path, name=targets[0]) if path.is_dir() else read_sae_pt(path, name=targets[0])


def _files(target: str) -> list[_Found]:
    # Unlike pathlib, os.path has no trouble with names that no disk can hold.
    if not os.path.isdir(target) and (target.endswith(_SUFFIXES) or os.path.isfile(target)):  # noqa: PTH112, PTH113
        path = open_place(target)
        match = _NAME.fullmatch(path.stem)
        return [_Found(path, target, match["model"] if match else path.stem)]
    repo = open_repository(target, "model", vectors)
    folder = "vectors/" if (repo.folder / "vectors").is_dir() else ""
    stems: dict[str, str] = {}
    for path in sorted((repo.folder / folder).iterdir()):
        if path.suffix in _SUFFIXES and _NAME.fullmatch(path.stem):
            # In the order of the alphabet, .safetensors comes last and stays.
            stems[path.stem] = path.name
    if not stems:
        raise SteerEvalError(
            f"{target} has no vector files", "give a folder with <model>_L<layer>_caa.safetensors files"
        )
    paths = [folder + name for name in stems.values()]
    return [
        _Found(inside(repo.folder, path, name=f"{target}/{path}"), f"{target}/{path}", stem.rsplit("_L", 1)[0])
        for stem, path in zip(stems, paths, strict=True)
    ]


def _read(file: _Found) -> SteeringVector:
    match file.path.suffix:
        case ".safetensors":
            return read_vector(file.path, name=file.name)
        case ".pt":
            from steer_eval.formats.caa_pt import read_caa_pt

            return read_caa_pt(file.path, name=file.name)
    raise SteerEvalError(f"{file.name} is no vector file", "give a .safetensors or .pt file, or a folder of them")


def _check_one_model(vectors: dict[int, SteeringVector], places: dict[int, _Found]) -> None:
    first, *others = vectors
    for layer in others:
        for what, here, there in (
            ("width", vectors[first].values.size, vectors[layer].values.size),
            ("model", vectors[first].provenance.get("model"), vectors[layer].provenance.get("model")),
        ):
            if here != there:
                raise SteerEvalError(
                    f"{places[first].name} and {places[layer].name} differ in their {what}: {here} and {there}",
                    "export them one by one",
                )
