"""What each method of a comparison does to a row, and what its random control does.

Invariant: all methods of a study push as hard as its plan says, and a control as hard as its method: random directions
have the norm of the vector, random features fire about as often and are held at the same multiple of their own largest
activations, random changes of residuals have the norms of the changes that the anchor makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from steer_eval.cells import Cell, random_direction
from steer_eval.comparison.cells import (
    ADDITION,
    ANCHOR,
    ANCHOR_ADDITION,
    CARRIED,
    FEATURES,
    PATCH,
    PATCH_IDENTITY,
    ROTATION,
    STACK,
    UNSTEERED,
)
from steer_eval.comparison.controls import shuffled_words
from steer_eval.comparison.ingredients import Ingredients
from steer_eval.comparison.patching import ConversationPatch, Conversations, Source, residuals_of
from steer_eval.comparison.plan import ComparisonPlan
from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats.saelens import CONFIG, folder_name
from steer_eval.results import Results
from steer_eval.sae.stored import SINK_KEY
from steer_eval.steering.interventions import Add, ClampFeatures, Rotate
from steer_eval.study import Study
from steer_eval.treatment import Treatment

if TYPE_CHECKING:
    from torch import Tensor

    from steer_eval.formats.sae import TopKSae
    from steer_eval.model import LanguageModel

RANDOM_KIND = "random"
"""The kind of map that carries a vector at random."""


class Comparison:
    """The treatments of one model's comparison.

    Args:
        study: The study.
        plan: What it says of the comparison.
        lm: The model, which patches take residuals of; None to have methods described and not done.
        published: The study's results, for the vectors.
        repo: The model repo, for SAEs and carried vectors.
        first_prompt: The evaluation prompt after which a corpus is scored where only a prompt is edited.
    """

    def __init__(
        self,
        study: Study,
        plan: ComparisonPlan,
        lm: LanguageModel | None,
        published: Results,
        repo: Path,
        first_prompt: str,
    ) -> None:
        self._study = study
        self._plan = plan
        self._lm = lm
        width = None if lm is None else lm.hidden_size
        self._ingredients = Ingredients(study, plan, published, repo, width=width)
        self._first_prompt = first_prompt
        self._treatments: dict[Cell, Treatment] = {}

    def treatment(self, cell: Cell) -> Treatment:
        """What is done to the rows of one of its cells.

        Raises:
            FormatError: A file that the method needs is absent or bad.
            SteerEvalError: There is no such method.
        """
        if cell not in self._treatments:
            make = _METHODS.get(cell.variant or "")
            if make is None:
                raise SteerEvalError(f"{cell}: no such method", f"the methods are {', '.join(_METHODS)}")
            self._treatments[cell] = make(self, cell)
        return self._treatments[cell]

    def _unsteered(self, _cell: Cell) -> Treatment:
        return Treatment()

    def _addition(self, cell: Cell) -> Treatment:
        return Treatment((self._added(cell),))

    def _rotation(self, cell: Cell) -> Treatment:
        layer = self._plan.layer
        return Treatment((Rotate(layer, self._direction(cell, layer), self._plan.coefficient),))

    def _stack(self, cell: Cell) -> Treatment:
        """The vector of each layer, each as long as the others, together as long as what addition adds."""
        share = abs(self._plan.coefficient) * self._norm(self._plan.layer) / len(self._plan.stack)
        signed = share if self._plan.coefficient > 0 else -share
        return Treatment(
            tuple(
                Add(layer, self._direction(cell, layer), signed / self._norm(layer))
                for layer in sorted(self._plan.stack)
            )
        )

    def _features(self, cell: Cell) -> Treatment:
        found = self._ingredients
        held = found.matched if cell.label == "random" else found.raised
        # Nobody decodes a feature of an edit that is only described.
        if self._lm is None:
            sae = cast("TopKSae", found.stored_sae)
        else:
            sae = found.sae
            self._check_sinks(self._lm)
        clamp = ClampFeatures(self._plan.layer, sae, held.features, self._tensor(held.values), found.sink_norm)
        return Treatment((clamp,))

    def _check_sinks(self, lm: LanguageModel) -> None:
        """Refuse a threshold above which every token lies: nothing would be clamped, and without a word."""
        from steer_eval.sae.sinks import is_sink

        threshold = self._ingredients.sink_norm
        residuals = residuals_of(lm, lm.chat_ids(self._first_prompt), self._plan.layer)
        if bool(is_sink(residuals, threshold).all()):
            shortest = float(residuals.float().norm(dim=-1).min())
            raise FormatError(
                f"{folder_name(self._plan.model, self._plan.layer)}/{CONFIG}", SINK_KEY,
                "all tokens of the first prompt lie above the norm of attention sinks, so that no feature is clamped",
                expected=f"> {shortest:.6g}", observed=threshold,
                fix="write the norm that the training found, or train the SAE again with `steer-eval sae train`",
            )  # fmt: skip

    def _anchor(self, cell: Cell) -> Treatment:
        random = cell.label == "random"
        return Treatment(system=shuffled_words(self._system, seed=self._plan.seed) if random else self._system)

    def _anchor_and_addition(self, cell: Cell) -> Treatment:
        return Treatment((self._added(cell),), system=self._system)

    def _patch(self, cell: Cell) -> Treatment:
        return self._patched("random" if cell.label == "random" else "anchor")

    def _patch_identity(self, _cell: Cell) -> Treatment:
        return self._patched("prompt")

    def _carried(self, cell: Cell) -> Treatment:
        kind = RANDOM_KIND if cell.label == "random" else CARRIED[cell.variant or ""]
        transfer, vector = self._ingredients.carried(kind)
        return Treatment((Add(transfer.target.layer, self._tensor(vector), transfer.coefficient),))

    def _added(self, cell: Cell) -> Add:
        layer = self._plan.layer
        return Add(layer, self._direction(cell, layer), self._plan.coefficient)

    def _direction(self, cell: Cell, layer: int) -> Tensor:
        vector = self._ingredients.vector(layer)
        random = cell.label == "random"
        return self._tensor(random_direction(vector, seed=self._plan.seed, layer=layer) if random else vector)

    def _tensor(self, values: NDArray[np.float32]) -> Tensor:
        """Values of an edit, for the model; without one they stay numpy, as nothing is computed with them."""
        if self._lm is None:
            return cast("Tensor", values)
        import torch

        return torch.from_numpy(values)

    def _norm(self, layer: int) -> float:
        norm = float(np.linalg.norm(self._ingredients.vector(layer).astype(np.float64)))
        if not norm:
            raise SteerEvalError(
                f"the vector of layer {layer} has norm 0, so its share of a stack can't be scaled",
                "leave the layer out of comparisons.stack in study.yaml",
            )
        return norm

    def _patched(self, source: Source) -> Treatment:
        seed = self._plan.seed if source == "random" else 0
        patch = ConversationPatch(self._conversations, source, seed)
        return Treatment((patch,), after=self._first_prompt)

    @property
    def _system(self) -> str:
        if self._study.sweep.anchor is None:
            raise SteerEvalError("the study has no anchor", "give sweep.controls.anchor in study.yaml")
        return self._study.sweep.anchor

    @cached_property
    def _conversations(self) -> Conversations:
        return Conversations(self._lm, self._plan.layer, self._system)


_METHODS: Mapping[str, Callable[[Comparison, Cell], Treatment]] = {
    UNSTEERED: Comparison._unsteered,
    ADDITION: Comparison._addition,
    ROTATION: Comparison._rotation,
    STACK: Comparison._stack,
    FEATURES: Comparison._features,
    ANCHOR: Comparison._anchor,
    ANCHOR_ADDITION: Comparison._anchor_and_addition,
    PATCH: Comparison._patch,
    PATCH_IDENTITY: Comparison._patch_identity,
    **dict.fromkeys(CARRIED, Comparison._carried),
}
