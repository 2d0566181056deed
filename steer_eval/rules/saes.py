"""Rules on sparse autoencoders and their feature tables.

Invariant: an SAE and its feature table are on the layer and model that their names and each other give; every number of
a table follows from those beside it; tables that are read side by side were made under the same conditions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from steer_eval.consistency import shown_apart
from steer_eval.findings import Finding
from steer_eval.formats.features import FeatureRow, FeatureTable
from steer_eval.formats.sae import SaeOutline, TopKSae
from steer_eval.formats.saelens import StoredSae
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.feature_statistics import statistics_findings
from steer_eval.rules.rounding import agrees_with_difference, half_place
from steer_eval.rules.sae_provenance import provenance_findings
from steer_eval.rules.vector_files import name_parts, vectors_by_model

_ABSOLUTE = 1e-6
_FREQUENCY = 1e-4
_AGAIN = "compute the table again from the activations"


def sae_findings(inventory: Inventory) -> list[Finding]:
    """What is wrong with SAEs and feature tables.

    Args:
        inventory: What the repos hold.
    """
    findings: list[Finding] = []
    for artifact in inventory.of("sae_pt"):
        findings += _named(artifact, artifact.value.layer)
    for artifact in inventory.of("sae", "sae_pt"):
        findings += _width(artifact, inventory)
        if artifact.kind == "sae" and isinstance(artifact.value, StoredSae):
            findings += provenance_findings(artifact)
    tables = list(inventory.of("features"))
    for artifact in tables:
        findings += _named(artifact, artifact.value.layer)
        findings += _rows(artifact)
        findings += _order(artifact)
        findings += statistics_findings(artifact)
        of_sae = list(_of_sae(artifact, inventory))
        findings += of_sae
        # The SAE of the name has said it already, where there is one.
        if not any(finding.where == "model" for finding in of_sae):
            findings += _model(artifact, inventory)
    findings += _conditions(tables)
    return findings


def _named(artifact: Artifact, layer: int) -> Iterator[Finding]:
    parts = name_parts(artifact.name)
    if parts and parts[1] != layer:
        message = "the layer in the file is not the one in its name"
        fix = "rename the file, or publish the one of that layer"
        yield Finding("sae-layer", "error", artifact.file, "layer", message, parts[1], layer, fix)


def _width(artifact: Artifact, inventory: Inventory) -> Iterator[Finding]:
    """An SAE is as wide as the vectors of its model."""
    sae: TopKSae | SaeOutline = artifact.value
    widths = Counter(
        vector.value.values.shape[0]
        for vectors in vectors_by_model(inventory).values()
        for vector in vectors.values()
        if vector.value.provenance.get("model") == sae.model
    )
    # A single vector of another width is a finding of its own.
    for width, _ in widths.most_common(1):
        if width != sae.d_in:
            where = "d_model" if artifact.kind == "sae_pt" else "d_in"
            message = f"the SAE is not as wide as the vectors of {sae.model}"
            fix = "publish the SAE of that model"
            yield Finding("sae-shape", "error", artifact.file, where, message, width, sae.d_in, fix)


def _rows(artifact: Artifact) -> Iterator[Finding]:
    table: FeatureTable = artifact.value
    seen: dict[int, int] = {}
    for index, row in enumerate(table.rows):
        where = f"top_features[{index}]"
        delta = row.steered_mean - row.base_mean
        if not agrees_with_difference(row.delta, row.steered_mean, row.base_mean):
            expected, observed = shown_apart(delta, row.delta)
            message = f"delta is {observed}, steered_mean - base_mean gives {expected}"
            yield Finding(
                "feature-arithmetic", "error", artifact.file, f"{where}.delta", message, delta, row.delta, _AGAIN
            )
        if row.feature in seen:
            message = f"feature {row.feature} stands at top_features[{seen[row.feature]}] already"
            yield Finding("feature-duplicate", "error", artifact.file, f"{where}.feature_id", message, fix=_AGAIN)
        seen.setdefault(row.feature, index)
        yield from _frequencies(artifact, row, where, table.n_prompts)


def _frequencies(artifact: Artifact, row: FeatureRow, where: str, n_prompts: int) -> Iterator[Finding]:
    """Frequencies are shares of the prompts, and nothing fires without a mean."""
    pairs = (("steered", row.steered_freq, row.steered_mean), ("base", row.base_freq, row.base_mean))
    for name, frequency, mean in pairs:
        count = frequency * n_prompts
        if abs(count - round(count)) > (_FREQUENCY + half_place(frequency)) * n_prompts:
            message = f"the frequency is no whole number of the {n_prompts} prompts"
            expected = round(count) / n_prompts
            yield Finding(
                "feature-frequency",
                "warning",
                artifact.file,
                f"{where}.{name}_freq",
                message,
                expected,
                frequency,
                "say what it is a share of: of prompts on which the feature fires, or of tokens",
            )
        if (frequency == 0) != (mean == 0):
            message = f"the feature has frequency {frequency:.6g} and mean {mean:.6g}: one can't be 0 without the other"
            yield Finding(
                "feature-arithmetic", "error", artifact.file, f"{where}.{name}_mean", message, None, mean, _AGAIN
            )


def _order(artifact: Artifact) -> Iterator[Finding]:
    rows: Sequence[FeatureRow] = artifact.value.rows
    for index, (first, second) in enumerate(pairwise(rows), start=1):
        size, smaller = _size(second), _size(first)
        if size > smaller * (1 + _ABSOLUTE) + _ABSOLUTE:
            message = (
                f"feature {second.feature} changes by {size:.6g}, more than feature {first.feature} above it by "
                f"{smaller:.6g}"
            )
            where, fix = f"top_features[{index}]", "sort the table by the size of delta (or of effect), largest first"
            yield Finding("feature-order", "error", artifact.file, where, message, fix=fix)
            return


def _size(row: FeatureRow) -> float:
    """What rows are ranked by: the length of the change in the residual stream where the table has it."""
    return row.statistics.effect if row.statistics else abs(row.delta)


def _of_sae(artifact: Artifact, inventory: Inventory) -> Iterator[Finding]:
    """A table is of the SAE of its model and layer, where that is published."""
    table: FeatureTable = artifact.value
    said: set[str] = set()
    for other in inventory.of("sae", "sae_pt"):
        sae: TopKSae | SaeOutline = other.value
        mine, its = name_parts(artifact.name), name_parts(other.name)
        # A layer that is not that of the name is a finding of its own.
        if mine and its and mine == its and sae.model != table.model:
            message = f"the table is of another model than {other.path}, the SAE of its name"
            yield Finding("feature-sae", "error", artifact.file, "model", message, sae.model, table.model, _AGAIN)
        if (sae.model, sae.layer) == (table.model, table.layer):
            for index, row in enumerate(table.rows):
                where = f"top_features[{index}].feature_id"
                # An SAE may be there twice, in two formats.
                if row.feature >= sae.d_sae and where not in said:
                    said.add(where)
                    message = f"{other.path} has {sae.d_sae} features, counted from 0"
                    yield Finding(
                        "feature-sae", "error", artifact.file, where, message, f"< {sae.d_sae}", row.feature, _AGAIN
                    )


def _model(artifact: Artifact, inventory: Inventory) -> Iterator[Finding]:
    """A table is of the model of the vectors that begin with the same name (`qwen_large` of both)."""
    table: FeatureTable = artifact.value
    parts = name_parts(artifact.name)
    vectors = vectors_by_model(inventory).get(parts[0], {}) if parts else {}
    models = Counter(vector.value.provenance.get("model") for vector in vectors.values())
    # A single vector of another model is a finding of its own.
    for model, _ in models.most_common(1):
        if parts and model is not None and model != table.model:
            message = f"the table is of another model than the vectors of {parts[0]}"
            fix = "rename the file, or publish the table of that model"
            yield Finding("feature-model", "error", artifact.file, "model", message, model, table.model, fix)


def _conditions(tables: Sequence[Artifact]) -> Iterator[Finding]:
    """Tables of several models or layers are compared by their readers, so other conditions must be pointed out."""
    if len({artifact.value.coefficient for artifact in tables}) < 2:
        return
    first, *others = sorted(tables, key=lambda artifact: artifact.path)
    for artifact in others:
        # Several tables of one model and layer are a series over coefficients.
        series = (artifact.value.model, artifact.value.layer) == (first.value.model, first.value.layer)
        if artifact.value.coefficient != first.value.coefficient and not series:
            message = (
                f"the features were measured at another coefficient than in {first.path}, so that deltas and "
                "frequencies of the two tables can't be compared"
            )
            yield Finding(
                "feature-coefficient",
                "warning",
                artifact.file,
                "coef",
                message,
                first.value.coefficient,
                artifact.value.coefficient,
                "measure both at the same strength, or state both beside every comparison",
            )
