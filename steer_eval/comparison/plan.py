"""What a study says of its comparison of methods.

Invariant: a plan is a value that satisfies `schemas/study.schema.json`; with the study's vectors, SAEs and transfers it
decides every cell of the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ComparisonPlan:
    """The comparison of methods on one model.

    Args:
        model: Name of the model in the study.
        layer: Where methods that act at one layer do so, from 0; the model has a vector there.
        coefficient: Coefficient of the vector there, one of the sweep's; it decides how hard the others push as well.
        prompts: How many of the evaluation prompts, from the first on, have text; None for all that the sweep has.
        stack: Layers that are steered together; empty without that method.
        features: How many of the features that steering raises most are clamped; None without that method.
        clamp: At which multiple of the largest activation that each was seen with.
        transfer: Name of the transfer whose carried vectors are tried; None without them.
        seed: Decides random directions, features and word orders.
    """

    model: str
    layer: int
    coefficient: float
    prompts: int | None = None
    stack: tuple[int, ...] = ()
    features: int | None = None
    clamp: float = 1.0
    transfer: str | None = None
    seed: int = 0


def has_other_orders(text: str) -> bool:
    """Whether the words of a text can be put in another order, so that a shuffled control of it is not the text."""
    return len(set(text.split())) > 1


def comparison_plan(value: Mapping[str, Any]) -> ComparisonPlan:
    """A plan from its entry in `study.yaml`, which satisfies the schema."""
    changed = {"coefficient": float(value["coefficient"]), "stack": tuple(value.get("stack", ()))}
    clamp = float(value.get("clamp", ComparisonPlan.clamp))
    return ComparisonPlan(**{**value, **changed, "clamp": clamp})
