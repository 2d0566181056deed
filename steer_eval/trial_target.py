"""What the target of a trial comes to: a model, and the vectors to try on it.

Invariant: a study's vectors come from its own repo and go with the study's own model. A lone vector file goes with the
model that the user names, or else with the Hub repo that the file names: no file can make us open a folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.caa_pt import read_caa_pt
from steer_eval.formats.containment import inside
from steer_eval.formats.vector import SteeringVector, file_name, read_vector
from steer_eval.hub.address import is_commit, parse_address
from steer_eval.hub.selection import vectors
from steer_eval.model_reference import HubSource, LocalSource, ModelReference
from steer_eval.repository import Repository, open_place, open_repository
from steer_eval.study import FILE, Study, load_study
from steer_eval.weights import Weights

DTYPES = ("float32", "bfloat16", "float16")
_BASE_FIX = "give the model with --base: a folder, or a Hub repo as NAMESPACE/NAME[@REVISION]"


@dataclass(frozen=True, eq=False)
class Placed:
    """A vector and the layer at which it is tried.

    Args:
        file: Where it was read.
        layer: Index of the decoder block to whose output it is added, from 0.
        vector: The vector.
    """

    file: str
    layer: int
    vector: SteeringVector

    @property
    def model(self) -> str | None:
        """The model that the file says it is of."""
        return self.vector.provenance.get("model")

    def is_of(self, weights: Weights) -> bool | None:
        """Whether it was extracted from these weights; None where the file does not say."""
        named = self.vector.provenance.get("weights_sha256")
        return None if named is None else named == weights.sha256


@dataclass(frozen=True)
class Target:
    """A model and the vectors to try on it.

    Args:
        name: What to call the model.
        reference: The model.
        folder: Folder that a local path of the model is relative to.
        placed: The vectors, in the order in which their layers were asked for, each layer once.
        default: How the layer was chosen where nobody asked for one, else empty.
        named_by_file: Whether the model is the one that a lone vector file names.
    """

    name: str
    reference: ModelReference
    folder: Path
    placed: tuple[Placed, ...]
    default: str = ""
    named_by_file: bool = False


def is_vector_file(target: str) -> bool:
    """Whether a target is meant as a vector file rather than as a repo."""
    # Unlike pathlib, os.path has no trouble with names that no disk can hold.
    return not os.path.isdir(target) and (  # noqa: PTH112
        target.endswith((".safetensors", ".pt")) or os.path.isfile(target)  # noqa: PTH113
    )


def study_target(target: str, *, model: str | None, layers: Sequence[int]) -> Target:
    """A study's model with vectors of its repo.

    Args:
        target: The model repo: a folder or a Hub repo.
        model: Name of the model in the study; None if there is only one.
        layers: Layers to steer; if there are none, the middle one of those that have a vector.

    Raises:
        SteerEvalError: The repo can't be opened, has no such model, or has no vector for a layer.
        FormatError: The study or a vector is bad.
    """
    repo = open_repository(target, "model", vectors)
    name = f"{repo.name}/{FILE}"
    study = load_study(inside(repo.folder, FILE, name=name), name=name)
    reference = chosen_model(study, model, name)
    there = {
        layer: path
        for layer in sorted(study.vector_layers(reference.name))
        if (path := _vector_path(repo, reference.name, layer)) is not None
    }
    if not there:
        raise SteerEvalError(
            f"{repo.name} has no vectors of {reference.name}", f"run `steer-eval extract {repo.name}` first"
        )
    known = ", ".join(map(str, there))
    for layer in layers:
        if layer not in there:
            raise SteerEvalError(
                f"{repo.name} has no vector of {reference.name} for layer {layer}; it has layers {known}",
                "choose among them, or make a vector file the target to add it at any layer",
            )
    middle = list(there)[len(there) // 2]
    default = "" if layers or len(there) == 1 else f"layer {middle}, the middle one of {known}; choose with --layer"
    placed = tuple(_placed(repo, there[layer], layer) for layer in dict.fromkeys(layers or [middle]))
    return Target(reference.base_model, reference, repo.folder, placed, default)


def file_target(target: str, *, base: str | None, layers: Sequence[int]) -> Target:
    """A lone vector file with the model that it is tried on.

    Args:
        target: The file.
        base: The model: a folder, or a Hub repo as `NAMESPACE/NAME[@REVISION]`; None for the one that the file names.
        layers: Layers to steer; if there are none, the file's own.

    Raises:
        FormatError: The file is absent or bad.
        SteerEvalError: It is unclear which model is meant.
    """
    place = open_place(target)
    vector = _read(place, target)
    placed = tuple(Placed(target, layer, vector) for layer in dict.fromkeys(layers or [vector.layer]))
    study = _study_around(place, vector) if base is None else None
    if study is not None:
        reference, folder = study
        return Target(reference.base_model, reference, folder, placed)
    reference = _base(target, base, vector)
    return Target(reference.base_model, reference, Path.cwd(), placed, named_by_file=base is None)


def _study_around(path: Path, vector: SteeringVector) -> tuple[ModelReference, Path] | None:
    """The model that the study of a vector's repo names for it, and the study's folder: its own weights, as pinned."""
    folder = path.resolve().parent.parent
    if path.resolve().parent.name != "vectors" or not (folder / FILE).is_file():
        return None
    study = load_study(inside(folder, FILE), name=str(folder / FILE))
    # A folder that a study names is read only where the user names the study.
    fitting = [
        reference
        for reference in study.models.values()
        if reference.base_model == vector.provenance.get("model") and not isinstance(reference.source, LocalSource)
    ]
    return (fitting[0], folder) if fitting else None


def chosen_model(study: Study, model: str | None, file: str) -> ModelReference:
    """A study's model by its name; None for the only one. `file` is what messages call the study."""
    names = ", ".join(study.models)
    if model is None and len(study.models) > 1:
        raise SteerEvalError(f"{file} has several models: {names}", "choose one with --model")
    if model is not None and model not in study.models:
        raise SteerEvalError(f"{file} has no model {model}", f"choose among {names}")
    return study.models[model or next(iter(study.models))]


def _vector_path(repo: Repository, model: str, layer: int) -> str | None:
    """Path of a vector inside a repo, in our format if it is there in both; None if it is there in neither."""
    ours = file_name(model, layer)
    paths = (ours, f"{ours.removesuffix('.safetensors')}.pt")
    return next((path for path in paths if os.path.lexists(repo.folder / path)), None)


def _placed(repo: Repository, path: str, layer: int) -> Placed:
    name = f"{repo.name}/{path}"
    return Placed(name, layer, _read(inside(repo.folder, path, name=name), name))


def _read(path: Path, name: str) -> SteeringVector:
    match path.suffix:
        case ".safetensors":
            return read_vector(path, name=name)
        case ".pt":
            return read_caa_pt(path, name=name)
    raise SteerEvalError(f"{name} is no vector file", "give a .safetensors or .pt file, or the folder of a study")


def _base(target: str, base: str | None, vector: SteeringVector) -> ModelReference:
    named = vector.provenance
    name = f"of {target}" if base is None else "of --base"
    # Our files say in which precision the model was; others, if anything, in which the vector was saved.
    dtype = named.get("dtype", "float32") if "weights_sha256" in named else "float32"
    if dtype not in DTYPES:
        raise FormatError(
            target, "header.__metadata__.dtype", "no precision that we load", expected=DTYPES, observed=dtype
        )
    if base is not None and os.path.isdir(base):  # noqa: PTH112 - see is_vector_file
        if not (Path(base) / "config.json").is_file():
            raise SteerEvalError(f"{base} has no config.json", _BASE_FIX)
        return ModelReference(name, base, dtype, LocalSource(str(Path(base).resolve())))
    # A file of a stranger names a repo and nothing else.
    text = named.get("model", "") if base is None else base
    address = None if base is None and "://" in text else parse_address(text)
    if address is None:
        what = f"there is no folder {base}" if base is not None else f"{target} names no model of the Hub"
        raise SteerEvalError(what, _BASE_FIX)
    # What a provenance calls a revision can also be a package's version, which the Hub does not know.
    pinned = named.get("revision", "") if base is None else ""
    revision = address.revision or (pinned if is_commit(pinned) else "main")
    return ModelReference(name, address.id, dtype, HubSource(address.id, revision))
