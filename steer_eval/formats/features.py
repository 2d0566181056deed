"""Feature tables: how an SAE's features change under steering.

Invariant: a table that is read satisfies `schemas/features.schema.json`; its rows keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.formats.schema import check
from steer_eval.formats.strict_json import scan_json

CHANGES = ("delta", "forced_delta", "random_delta", "random_forced_delta")
"""The changes that a row may have with their intervals and q-values; schemas/features.schema.json says what each is."""


@dataclass(frozen=True)
class Interval:
    """A change of one feature, with its noise.

    Args:
        delta: The change.
        low: Lower end of its interval; None where the prompts give none.
        high: Its upper end, None where `low` is.
        q: Its p-value, after control of the false discovery rate.
    """

    delta: float
    low: float | None
    high: float | None
    q: float


@dataclass(frozen=True)
class RowStatistics:
    """What rows of `steer-eval sae features` have beside what all rows have.

    Args:
        decoder_norm: Norm of the feature's decoder row.
        effect: `|delta| * decoder_norm`.
        steered_token_freq: Share of tokens on which it fires with steering.
        base_token_freq: The same without.
        changes: Changes, by their names in `CHANGES`.
        predicted: What the vector alone adds to its pre-activation.
    """

    decoder_norm: float
    effect: float
    steered_token_freq: float
    base_token_freq: float
    changes: Mapping[str, Interval]
    predicted: float


@dataclass(frozen=True)
class TableStatistics:
    """What tables of `steer-eval sae features` have beside what all tables have.

    Args:
        n_features: Features of the SAE.
        tokens: Tokens of the texts, `base` and `steered`.
        discoveries: Features with a q-value up to 0.05, by change.
        seed: Decided resamples.
    """

    n_features: int
    tokens: Mapping[str, int]
    discoveries: Mapping[str, int]
    seed: int


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
        statistics: More, where the table has it.
    """

    feature: int
    delta: float
    steered_mean: float
    base_mean: float
    steered_freq: float
    base_freq: float
    statistics: RowStatistics | None = None


@dataclass(frozen=True)
class FeatureTable:
    """Features ranked by how much steering changes them.

    Args:
        model: Hub id of the model.
        layer: Layer of the SAE, and of the steering.
        coefficient: Steering coefficient.
        n_prompts: Prompts that the means were taken over.
        rows: The features.
        statistics: More, where the table has it.
    """

    model: str
    layer: int
    coefficient: float
    n_prompts: int
    rows: tuple[FeatureRow, ...]
    statistics: TableStatistics | None = None


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
    return table_of(document)


def table_of(document: Mapping[str, Any]) -> FeatureTable:
    """A table from its document, which satisfies `schemas/features.schema.json`."""
    rows = tuple(
        FeatureRow(
            row["feature_id"],
            row["delta"],
            row["steered_mean"],
            row["base_mean"],
            row["steered_freq"],
            row["base_freq"],
            _row_statistics(row) if "format" in document else None,
        )
        for row in document["top_features"]
    )
    return FeatureTable(
        document["model"],
        document["layer"],
        float(document["coef"]),
        document["n_prompts"],
        rows,
        TableStatistics(
            document["n_features"], document["n_tokens"], document["discoveries"], document["statistics"]["seed"]
        )
        if "format" in document
        else None,
    )


def _row_statistics(row: Mapping[str, Any]) -> RowStatistics:
    changes = {
        name: _change(row[name], row[f"{name}_interval"], row[f"{name}_q"])
        for name in CHANGES
        if {name, f"{name}_interval", f"{name}_q"} <= row.keys()
    }
    tokens = row["steered_token_freq"], row["base_token_freq"]
    return RowStatistics(row["decoder_norm"], row["effect"], *tokens, changes, row["predicted"])


def _change(delta: float, interval: Sequence[float] | None, q: float) -> Interval:
    low, high = interval or (None, None)
    return Interval(delta, low, high, q)
