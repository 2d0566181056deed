"""What a study says of its SAEs: which are trained, on what, and which feature tables are made with them.

Invariant: a plan is a value that satisfies `schemas/study.schema.json`; with weights and a text it decides an SAE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steer_eval.sae.text import FileText, HubText, OfflineText, TextSource


@dataclass(frozen=True)
class FeaturePlan:
    """Which feature table is made with an SAE.

    Args:
        coefficient: Steering coefficient of the cell whose texts are compared with the unsteered ones, at the layer of
            the SAE.
        top: Features in the table.
        seed: Decides resamples.
    """

    coefficient: float
    top: int = 20
    seed: int = 0


@dataclass(frozen=True)
class SaePlan:
    """One SAE.

    Args:
        model: Name of the model in the study.
        layer: Index of the decoder block whose output is encoded, from 0.
        features: Number of features.
        k: Features that may fire per token.
        text: What its activations are of.
        tokens: How much of it.
        context: Most tokens of a passage.
        recipe: Name of the recipe.
        seed: Decides initial weights and order.
        table: Its feature table, if one is made.
    """

    model: str
    layer: int
    features: int
    k: int
    text: TextSource
    tokens: int
    context: int = 128
    recipe: str = "recommended"
    seed: int = 0
    table: FeaturePlan | None = None

    def to_json(self) -> dict[str, Any]:
        """What decides the SAE, for its provenance."""
        return {
            "layer": self.layer,
            "features": self.features,
            "k": self.k,
            "tokens": self.tokens,
            "context": self.context,
            "recipe": self.recipe,
            "seed": self.seed,
        }


def sae_plan(value: Mapping[str, Any]) -> SaePlan:
    """A plan from its entry in `study.yaml`, which satisfies the schema."""
    table = value.get("table")
    return SaePlan(
        **{
            **value,
            "text": text_source(value["text"]),
            "table": FeaturePlan(**{**table, "coefficient": float(table["coefficient"])}) if table else None,
        }
    )


def text_source(value: Mapping[str, Any]) -> TextSource:
    """A text source from its entry in `study.yaml`, which satisfies the schema."""
    match dict(value):
        case {"hub": settings}:
            return HubText(**settings)
        case {"files": files, **rest}:
            return FileText(tuple(files), **rest)
        case {"offline": name}:
            return OfflineText(name)
        case _:
            raise ValueError(f"a text source of keys {sorted(value)}")
