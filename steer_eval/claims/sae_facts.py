"""Facts of SAEs and of the features that steering changes.

Invariant: each is a pure function of one document, so that what was published and what a re-run measured give the same
facts under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import Fact
from steer_eval.claims.names import ModelNames
from steer_eval.errors import FormatError
from steer_eval.formats import schema
from steer_eval.formats.features import FeatureRow, FeatureTable, RowStatistics
from steer_eval.formats.sae import SaeOutline, TopKSae
from steer_eval.formats.saelens import CONFIG
from steer_eval.formats.strict_json import parse
from steer_eval.inventory import Inventory
from steer_eval.rules.vector_files import name_parts
from steer_eval.sae.results import QUALITY_KEY

_COPIED = {
    "sae_heldout_fvu": "held_out_fvu",
    "sae_l0": "held_out_l0",
    "sae_heldout_tokens": "held_out_tokens",
    "sae_clean_cross_entropy": "cross_entropy",
    "sae_cross_entropy": "cross_entropy_sae",
    "sae_excess_cross_entropy": "excess_cross_entropy",
    "sae_training_tokens": "training_tokens",
}
"""Fields of an SAE's quality, by the measures that they are the values of."""


def sae_facts(inventory: Inventory, names: ModelNames) -> Iterator[Fact]:
    """Facts of SAEs, of how good they are, and of feature tables.

    Args:
        inventory: What the repos hold.
        names: What their models are called.
    """
    # Of tables under one path in both repos, as where a run is the dataset repo, that of the model repo counts.
    tables = {artifact.path: artifact for artifact in reversed(list(inventory.of("features")))}
    for artifact in reversed(tables.values()):
        table: FeatureTable = artifact.value
        whole = Selector(names.resolve(table.model), layer=table.layer, file=artifact.path)
        yield from feature_facts(table, whole, artifact.file)
    told = set()
    for artifact in inventory.of("sae", "sae_pt"):
        sae = artifact.value
        select = Selector(names.resolve(sae.model), layer=sae.layer, file=artifact.path)
        yield Fact("sae_width", select, sae.d_sae, artifact.file, "d_sae")
        yield Fact("sae_k", select, sae.k, artifact.file, "k")
        yield Fact("artifact_layer", select, sae.layer, artifact.file, "layer")
        # Settings stand apart from the weights, and are there also where these were left on the Hub.
        if artifact.kind == "sae":
            file = f"{artifact.file.rpartition('/')[0]}/{CONFIG}"
            quality = _recorded_quality(sae, file)
            told |= {(select.model, sae.layer)} if quality else set()
            yield from quality_facts(quality, select, file, f"{QUALITY_KEY}.")
    for artifact in inventory.of("sae_quality"):
        parts = name_parts(artifact.name)
        if parts and parts not in told:
            select = Selector(parts[0], layer=parts[1], file=artifact.path)
            yield from quality_facts(artifact.value, select, artifact.file)


def quality_facts(quality: Mapping[str, Any], select: Selector, file: str, prefix: str = "") -> Iterator[Fact]:
    """Facts of how good an SAE is.

    Args:
        quality: What was measured (`schemas/sae_quality.schema.json`); empty for nothing.
        select: What it was measured on.
        file: File that it stands in, as findings name it.
        prefix: What to put before its keys.
    """
    for measure, key in _COPIED.items():
        if key in quality:
            yield Fact(measure, select, quality[key], file, f"{prefix}{key}", _note_of(key, quality))
    if "dead_share" in quality:
        dead = 100 * quality["dead_share"]
        yield Fact("sae_dead_share", select, dead, file, f"{prefix}dead_share", _note_of("dead_share", quality))
    if quality:
        clean, ablated = quality["cross_entropy"], quality["cross_entropy_mean_ablation"]
        if ablated > clean:
            recovered = (ablated - quality["cross_entropy_sae"]) / (ablated - clean)
            where = f"{prefix}cross_entropy_mean_ablation"
            yield Fact("sae_recovered_cross_entropy", select, recovered, file, where, _note_of(where, quality))


def _note_of(key: str, quality: Mapping[str, Any]) -> str:
    """On which text a number is, which figures of other SAEs can only be compared with if it is the same."""
    if "cross_entropy" in key:
        return f"over {quality['cross_entropy_tokens']} held-out tokens"
    if key.startswith("held_out") and key != "held_out_tokens":
        return f"over {quality['held_out_tokens']} held-out tokens, without attention sinks"
    return ""


def _recorded_quality(sae: TopKSae | SaeOutline, file: str) -> Mapping[str, Any]:
    """How good an SAE says that it is; nothing where it does not, or breaks the schema, which is a finding."""
    text = sae.provenance.get("quality")
    if text is None:
        return {}
    try:
        quality: Any = parse(text, file, QUALITY_KEY)
        schema.check(quality, "sae_quality", file=file, where=QUALITY_KEY)
    except FormatError:
        return {}
    found: Mapping[str, Any] = quality
    return found


def feature_facts(table: FeatureTable, whole: Selector, file: str) -> Iterator[Fact]:
    """Facts of a feature table.

    Args:
        table: The table.
        whole: Which model, layer and file it is of.
        file: File that it stands in, as findings name it.
    """
    yield Fact("feature_coefficient", whole, table.coefficient, file, "coef")
    yield Fact("feature_count", whole, len(table.rows), file, "top_features")
    yield Fact("artifact_layer", whole, table.layer, file, "layer")
    yield Fact("feature_prompts", whole, table.n_prompts, file, "n_prompts")
    if table.statistics:
        note = f"of {table.statistics.n_features} features"
        for change, count in table.statistics.discoveries.items():
            select = replace(whole, variant=change)
            yield Fact("feature_discoveries", select, count, file, f"discoveries.{change}", note)
    places = _Places.of(table)
    for index, row in enumerate(table.rows):
        select = replace(whole, coef=table.coefficient, feature=row.feature)
        where = f"top_features[{index}]"
        # Readers set such numbers beside results of other cells, so that theirs must be said each time.
        note = f"measured at c={table.coefficient:+g} on {table.n_prompts} prompts"
        for measure, value in _numbers(row).items():
            yield Fact(measure, select, value, file, where, note)
        yield Fact("feature_rank", select, index + 1, file, where, places.order)
        yield Fact("feature_rank_by_delta", select, places.by_delta[row.feature], file, where, note)
        if row.base_mean > 0:
            among = f"among the {len(table.rows)} features of the table"
            yield Fact("feature_rank_by_ratio", select, places.by_ratio[row.feature], file, where, among)


def _numbers(row: FeatureRow) -> dict[str, float]:
    """The numbers of a row, by measure."""
    numbers = {
        "feature_delta": row.delta,
        "feature_base_mean": row.base_mean,
        "feature_steered_mean": row.steered_mean,
        "feature_steered_frequency": 100 * row.steered_freq,
        "feature_base_frequency": 100 * row.base_freq,
    }
    if row.base_mean > 0:
        numbers["feature_ratio"] = row.steered_mean / row.base_mean
    return numbers | (_of_statistics(row.statistics) if row.statistics else {})


def _of_statistics(its: RowStatistics) -> dict[str, float]:
    numbers = {
        "feature_effect": its.effect,
        "feature_predicted": its.predicted,
        "feature_steered_token_frequency": 100 * its.steered_token_freq,
        "feature_base_token_frequency": 100 * its.base_token_freq,
    }
    for name, change in its.changes.items():
        measure = f"feature_{name}"
        numbers |= {measure: change.delta, f"{measure}_q": change.q}
        if change.low is not None and change.high is not None:
            numbers |= {f"{measure}_low": change.low, f"{measure}_high": change.high}
    return numbers


@dataclass(frozen=True)
class _Places:
    """The places of a table's features by other orders than its own.

    Args:
        order: What the table is in the order of, in words.
        by_delta: Place by delta with its sign, by feature.
        by_ratio: Place by steered over base mean, by feature.
    """

    order: str
    by_delta: Mapping[int, int]
    by_ratio: Mapping[int, int]

    @classmethod
    def of(cls, table: FeatureTable) -> _Places:
        sizes = [abs(row.delta) for row in table.rows]
        in_order = sizes == sorted(sizes, reverse=True)
        falling = sum(row.delta < 0 for row in table.rows)
        order = "the table is in the order of the size of delta" if in_order else "the table is in no order of delta"
        if in_order and falling:
            order += f": {falling} of its {len(table.rows)} features fall"
        rated = [row for row in table.rows if row.base_mean > 0]
        return cls(
            order,
            _places(table.rows, lambda row: row.delta),
            _places(rated, lambda row: row.steered_mean / row.base_mean),
        )


def _places(rows: Iterable[FeatureRow], key: Callable[[FeatureRow], float]) -> dict[int, int]:
    """The place of each feature, from 1; equals share the better place."""
    rows = list(rows)
    values = sorted((key(row) for row in rows), reverse=True)
    return {row.feature: values.index(key(row)) + 1 for row in rows}
