"""What is evaluated: a model, and the conditions under which it answers.

Invariant: a condition says by itself what was added and where, with a checksum of each vector, so that answers kept
under it are never taken for those of another one. The unsteered model is a condition like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from steer_eval import environment
from steer_eval.cells import Conditions, conditions, random_direction
from steer_eval.claims.claim import Selector
from steer_eval.digest import sha256_vector
from steer_eval.errors import SteerEvalError
from steer_eval.formats.vector import SteeringVector
from steer_eval.model import LanguageModel, load_model
from steer_eval.model_reference import ModelReference
from steer_eval.repository import StudyRepositories, open_target
from steer_eval.results import Results
from steer_eval.results_files import load_results
from steer_eval.steering.interventions import Add
from steer_eval.study import Study
from steer_eval.trial_target import chosen_model, file_target, is_vector_file
from steer_eval.weights import Weights, fetch

Label = Literal["base", "steered", "random"]
Choice = Literal["best", "claimed", "all"]


@dataclass(frozen=True)
class LoadedSource:
    """A model in memory.

    Args:
        lm: The model.
        weights: Where its weights came from.
        environment: What it computes on.
        chat_template: The study's own; None for the tokenizer's.
    """

    lm: LanguageModel
    weights: Weights
    environment: environment.Environment
    chat_template: str | None

    @property
    def conditions(self) -> Conditions:
        """What all answers of this model on this machine have in common."""
        return conditions(self.weights, self.environment, self.chat_template)


@dataclass(frozen=True, eq=False)
class Source:
    """A model and the vectors that can be added to it.

    Args:
        name: The model's Hub id.
        reference: The model.
        folder: Folder that a local path of the model is relative to.
        vectors: By layer.
        files: Where each was read, by layer.
        layer: The layer of a lone vector file; None for a study.
        study: The study; None for a lone vector file.
        data: Folder of the dataset repo; None for a lone vector file.
        results: What the study published; None for a lone vector file.
    """

    name: str
    reference: ModelReference
    folder: Path
    vectors: Mapping[int, SteeringVector]
    files: Mapping[int, str]
    layer: int | None = None
    study: Study | None = None
    data: Path | None = None
    results: Results | None = None

    @property
    def corpus(self) -> Path | None:
        """The study's perplexity corpus, where there is one."""
        if self.study is None or self.data is None or self.results is None or self.results.corpus is None:
            return None
        return self.data / self.study.perplexity.corpus

    def load(self, *, device: str | None = None) -> LoadedSource:
        """Load the model.

        Args:
            device: Where to compute; None for the default.

        Raises:
            SteerEvalError: The weights can't be had or loaded.
        """
        weights = fetch(self.reference, study_folder=self.folder)
        template = self.reference.chat_template
        lm = load_model(weights.folder, dtype=self.reference.dtype, device=device, chat_template=template)
        return LoadedSource(lm, weights, environment.current(device=lm.device.type, dtype=lm.dtype), template)


@dataclass(frozen=True, eq=False)
class Condition:
    """One way in which the model answers.

    Args:
        label: `base` for the unsteered model, `random` for a random direction of the vector's norm.
        layer: The steered layer; None for the unsteered model.
        coef: Multiple that is added; 0 for the unsteered model.
        edits: `(layer, coefficient, SHA-256 of the vector)` of each edit.
        intervention: The edits.
        file: Where the vector was read; None where there is none.
    """

    label: Label
    layer: int | None
    coef: float
    edits: tuple[tuple[int, float, str], ...]
    intervention: tuple[Add, ...]
    file: str | None = None

    def __str__(self) -> str:
        return "unsteered" if self.layer is None else f"{self.label} L={self.layer} c={self.coef:+g}"


BASE = Condition("base", None, 0.0, (), ())


def open_source(
    target: str,
    *,
    model: str | None = None,
    base: str | None = None,
    data: str | None = None,
    study_file: str | None = None,
) -> Source:
    """Open what is evaluated.

    Args:
        target: A model repo with a study, or a vector file; on this disk or on the Hub.
        model: Which model of the study, if it has several.
        base: For a vector file: the model to steer, if it is not the one that the file names.
        data: Dataset repo of the study, if it is not the one that the study names.
        study_file: A study for a repo that has none.

    Raises:
        SteerEvalError: The target can't be opened, or it is unclear which model is meant.
        FormatError: The study or the vector is bad.
    """
    if is_vector_file(target):
        found = file_target(target, base=base, layers=())
        [placed] = found.placed
        return Source(
            found.name,
            found.reference,
            found.folder,
            {placed.layer: placed.vector},
            {placed.layer: placed.file},
            layer=placed.layer,
        )
    if base is not None:
        raise SteerEvalError(
            f"a base model was named, but {target} is no vector file", "a study names its models itself: leave it out"
        )
    repositories = open_target(target, data, study_file)
    if not isinstance(repositories, StudyRepositories):
        raise SteerEvalError(f"{target} has no study.yaml", "name the study with --study FILE|NAME")
    study, folder = repositories.study, repositories.model.folder
    reference = chosen_model(study, model, f"the study of {target}")
    results = load_results(study, model_repo=folder, data_repo=repositories.data.folder)
    vectors = {layer: vector for (name, layer), vector in results.vectors.items() if name == reference.name}
    files = {layer: f"{repositories.model.name}/{results.vector_file(reference.name, layer)}" for layer in vectors}
    return Source(
        reference.base_model,
        reference,
        folder,
        vectors,
        files,
        study=study,
        data=repositories.data.folder,
        results=results,
    )


def one_condition(source: Source, layer: int | None, coef: float) -> Condition:
    """One cell of a source; the unsteered model for the coefficient 0 without a layer.

    Args:
        source: The model and its vectors.
        layer: Layer to steer; None for the only one that there is.
        coef: Multiple of the vector.

    Raises:
        SteerEvalError: There is no vector for the layer, or it is unclear which layer is meant.
    """
    if layer is None and coef == 0:
        return BASE
    [(found, coefficient)] = cells_at(source, [] if layer is None else [layer], [coef])
    return steered(source, found, coefficient)


def cells_at(source: Source, layers: Sequence[int], coefs: Sequence[float]) -> list[tuple[int, float]]:
    """The cells at some layers and coefficients.

    Args:
        source: The model and its vectors.
        layers: Layers to steer; none for the only one that has a vector.
        coefs: Multiples of the vector; none for 1.

    Raises:
        SteerEvalError: It is unclear which layer is meant, or a coefficient is no finite number.
    """
    known = ", ".join(map(str, sorted(source.vectors))) or "none"
    if not layers and len(source.vectors) != 1:
        raise SteerEvalError(f"there are vectors for several layers: {known}", "choose with --layer")
    for coef in coefs:
        if not math.isfinite(coef):
            raise SteerEvalError(f"coefficient {coef} is no finite number", "give a number, for example 2 or -1.5")
    wanted = [(layer, float(coef)) for layer in layers or source.vectors for coef in coefs or [1.0]]
    return list(dict.fromkeys(wanted))


def chosen_cells(source: Source, choice: Choice | None) -> tuple[list[tuple[int, float]], str]:
    """Cells of a study.

    Args:
        source: The study's model.
        choice: `best` for those with the highest margin of a published judge or claimed to be best, `claimed` for those
            that claims name, `all` for the plan's; None for the best, or where there are none the claimed ones.

    Returns:
        The cells, and in words which ones they are.

    Raises:
        SteerEvalError: There are none.
    """
    if source.study is None:
        return cells_at(source, [], []), "the vector's own layer with coefficient 1"
    makers = {"best": _best_cells, "claimed": _claimed_cells, "all": _all_cells}
    words = {"best": "the best cells", "claimed": "the cells that claims name", "all": "all cells"}
    for name in ["best", "claimed"] if choice is None else [choice]:
        cells = makers[name](source)
        if cells:
            return cells, words[name]
    wanted = "best or claimed" if choice is None else choice
    raise SteerEvalError(f"the study has no {wanted} cells of {source.reference.name}", "give --layer and --coef")


def _all_cells(source: Source) -> list[tuple[int, float]]:
    if source.study is None:
        return []
    name = source.reference.name
    return [(layer, coef) for layer in source.study.layers(name) for coef in source.study.coefficients(name)]


def _claimed_cells(source: Source, *, measure: str | None = None) -> list[tuple[int, float]]:
    found: dict[tuple[int, float], None] = {}
    for claim in source.study.claims if source.study is not None else ():
        select: Selector = claim.select
        of_model = select.model in (None, source.reference.name) and select.label in (None, "steered")
        if of_model and select.layer is not None and select.coef is not None and measure in (None, claim.measure):
            found[select.layer, float(select.coef)] = None
    return [cell for cell in found if cell[1] != 0]


def _best_cells(source: Source) -> list[tuple[int, float]]:
    """Cells claimed to be best, and those with a judge's highest margin, all ties included."""
    if source.study is None or source.data is None:
        return []
    from steer_eval.claims.facts import facts_of
    from steer_eval.claims.names import model_names
    from steer_eval.inventory import Root, take_inventory
    from steer_eval.legacy.best import judgements

    inventory = take_inventory([Root(source.data, "", "dataset", source.study.chosen_names)])
    judged = judgements(facts_of(inventory, model_names(inventory)), [source.reference.name])
    best = [(score.layer, score.coef) for judgement in judged for score in judgement.best]
    return list(dict.fromkeys([*_claimed_cells(source, measure="best_cell"), *best]))


def steered(source: Source, layer: int, coef: float) -> Condition:
    """A steered cell.

    Args:
        source: The model and its vectors.
        layer: Layer to steer; a lone vector can be added at any.
        coef: Multiple of the vector.

    Raises:
        SteerEvalError: There is no vector for the layer.
    """
    origin = layer if source.layer is None else source.layer
    if origin not in source.vectors:
        known = ", ".join(map(str, sorted(source.vectors))) or "none"
        why = ""
        if source.results is not None:
            why = source.results.unusable.get(source.results.vector_file(source.reference.name, layer), "")
        raise SteerEvalError(
            f"there is no vector of {source.reference.name} for layer {layer}; there are layers {known}"
            + (f" ({why})" if why else ""),
            "choose among them, or make a vector file the target to add it at any layer",
        )
    return _adding("steered", source.vectors[origin].values, layer, coef, source.files[origin])


def random_control(source: Source, condition: Condition) -> Condition:
    """The control of a steered cell: a random direction of the vector's norm, the study's where it has one.

    Args:
        source: The model and its vectors.
        condition: The steered cell.

    Raises:
        ValueError: The condition steers at no layer.
    """
    if condition.layer is None:
        raise ValueError("the unsteered model has no random control")
    vector = source.vectors[condition.layer if source.layer is None else source.layer].values
    seed = source.study.sweep.random_seed if source.study is not None else None
    direction = random_direction(vector, seed=seed or 0, layer=condition.layer)
    return _adding("random", direction, condition.layer, condition.coef, None)


def _adding(label: Label, vector: NDArray[Any], layer: int, coef: float, file: str | None) -> Condition:
    edits = ((layer, coef, sha256_vector(vector)),)
    return Condition(label, layer, coef, edits, (Add(layer, torch.from_numpy(vector), coef),), file)
