"""How a Top-K SAE is trained, as values.

Invariant: a recipe holds everything that decides the trained weights beside the activations and the seed, so two runs
of one recipe on the same activations end in the same SAE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Recipe:
    """How an SAE is trained.

    Args:
        centre: `geometric-median` starts the decoder bias there and scales the activations, `zero` leaves both alone.
        drop_sinks: Leave out tokens whose residual norm is above `SINK_FACTOR` times the median (attention sinks: one
            in a hundred tokens that carries most of the variance).
        unit_norm: Keep decoder rows at norm 1, and take the radial part out of their gradient.
        loss: `fvu` divides a batch's squared error by its variance; `mse` is the mean over all elements.
        aux: Weight of the auxiliary loss that lets dead features fit what the live ones leave (AuxK); 0 for none.
        shuffled: Whether batches are drawn over all tokens, or tokens come in the order of the text.
        learning_rate: Adam's.
        warmup: Share of the steps in which the learning rate rises from 0.
        decay: Share of the steps, at the end, in which it falls to 0.
        clip: Largest norm of the gradient; None for any.
        batch: Tokens per step.
        epochs: Passes over the activations.
        dead_after: Tokens without firing after which a feature counts as dead in training.
    """

    centre: Literal["geometric-median", "zero"] = "geometric-median"
    drop_sinks: bool = True
    unit_norm: bool = True
    loss: Literal["fvu", "mse"] = "fvu"
    aux: float = 1 / 32
    shuffled: bool = True
    learning_rate: float = 1e-3
    warmup: float = 0.05
    decay: float = 0.2
    clip: float | None = 1.0
    batch: int = 512
    epochs: int = 4
    dead_after: int = 40_000

    def to_json(self) -> dict[str, Any]:
        """The recipe as a JSON object."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


RECIPES = {
    "recommended": Recipe(),
    # What the mature-anger study did: raw activations in the order of the text, sinks and all.
    "plain": Recipe(
        centre="zero",
        drop_sinks=False,
        unit_norm=False,
        loss="mse",
        aux=0.0,
        shuffled=False,
        learning_rate=3e-4,
        warmup=0.0,
        decay=0.0,
        clip=None,
    ),
}
"""Recipes by the name that a study gives; docs/methods.md says where each setting of ours comes from."""
