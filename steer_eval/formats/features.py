"""Feature tables: how an SAE's features change under steering.

Invariant: a table that is read satisfies `schemas/features.schema.json`; its rows keep their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import scan_json


@dataclass(frozen=True)
class FeatureRow:
    """One feature.

    Args:
        feature: Index in the SAE.
        delta: Mean activation with steering, less that without.
        steered_mean: Mean activation with steering.
        base_mean: Mean activation without.
        steered_freq: Share of prompts on which it fires at least once with steering.
        base_freq: The same without.
    """

    feature: int
    delta: float
    steered_mean: float
    base_mean: float
    steered_freq: float
    base_freq: float


@dataclass(frozen=True)
class FeatureTable:
    """Features ranked by how much steering changes them.

    Args:
        model: Hub id of the model.
        layer: Layer of the SAE, and of the steering.
        coefficient: Steering coefficient.
        n_prompts: Prompts that the means were taken over.
        rows: The features.
    """

    model: str
    layer: int
    coefficient: float
    n_prompts: int
    rows: tuple[FeatureRow, ...]


def read_features(path: Path, *, name: str | None = None) -> FeatureTable:
    """Read a feature table.

    Args:
        path: The file.
        name: What to call it in messages; the path by default.

    Raises:
        FormatError: The file is absent, no strict JSON, or breaks the schema.
    """
    name = name or str(path)
    document, not_finite = scan_json(path, name=name)
    if not_finite:
        raise not_finite[0]
    check(document, "features", file=name)
    rows = tuple(
        FeatureRow(
            row["feature_id"],
            row["delta"],
            row["steered_mean"],
            row["base_mean"],
            row["steered_freq"],
            row["base_freq"],
        )
        for row in document["top_features"]
    )
    return FeatureTable(document["model"], document["layer"], float(document["coef"]), document["n_prompts"], rows)
