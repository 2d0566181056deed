"""Facts: every number of the published data under the name of what it measures.

Invariant: a fact is copied or computed from one place in one file, which it names; what a file does not say is not
there. Claims of a card are looked up here, so that a verdict can always show its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import AXES, DEFINITIONS, IMPUTED, Fact, Facts, fits
from steer_eval.claims.names import ModelNames
from steer_eval.claims.transfer_facts import transfer_facts
from steer_eval.claims.variant_facts import scores, variant_facts
from steer_eval.formats.features import FeatureRow, FeatureTable
from steer_eval.inventory import TABLES, Artifact, Inventory
from steer_eval.results import SweepRow
from steer_eval.rules.sweep_files import SweepFile, collapse_ratio_of, model_called, sweep_files
from steer_eval.rules.vector_files import vectors_by_model

__all__ = ["AXES", "DEFINITIONS", "Fact", "Facts", "facts_of", "fits", "judge_of"]


def facts_of(inventory: Inventory, names: ModelNames) -> Facts:
    """All facts of some repos.

    Args:
        inventory: What the repos hold.
        names: What their models are called.
    """
    sweeps = sweep_files(inventory)
    return Facts(
        [
            *_sweeps(sweeps),
            *_judgements(inventory, sweeps),
            *variant_facts(inventory, sweeps),
            *transfer_facts(inventory),
            *_vectors(inventory),
            *_features(inventory, names),
            *_saes(inventory, names),
            *_files(inventory),
        ]
    )


def _sweeps(sweeps: Mapping[str, SweepFile]) -> Iterator[Fact]:
    ratio = collapse_ratio_of(sweeps)
    for model, sweep in sweeps.items():
        file = sweep.artifact.file
        for row in sweep.rows:
            select = Selector(model, row.cell.label, row.cell.layer, row.cell.coef)
            where = f"line {row.line}"
            for measure, value in (
                ("perplexity", row.ppl),
                ("base_perplexity", row.base_ppl),
                ("perplexity_ratio", row.ppl_ratio),
                ("collapsed", row.collapsed),
            ):
                yield Fact(measure, select, value, file, where)
        note = f"above {ratio:g} times the unsteered perplexity"
        labels = ["steered", *sorted({row.cell.label for row in sweep.rows} - {"steered"})]
        for label in labels:
            rows = [row for row in sweep.rows if row.cell.label == label]
            kind, where = Selector(model, label), f"{len(rows)} rows"
            yield Fact("cell_count", kind, len(rows), file, where)
            yield Fact("collapsed_cells", kind, sum(row.ppl_ratio > ratio for row in rows), file, where, note)
            yield from _largest_coefficients(rows, kind, ratio, file)
        for count in sorted({len(row.generations) for row in sweep.rows if row.generations}):
            yield Fact("prompts_per_cell", Selector(model), count, file, f"{len(sweep.rows)} rows")


def _largest_coefficients(rows: Sequence[SweepRow], kind: Selector, ratio: float, file: str) -> Iterator[Fact]:
    """Of each layer the largest positive coefficient whose ratio does not lie above the collapse ratio."""
    for layer in sorted({row.cell.layer for row in rows if row.cell.layer is not None}):
        standing = [row for row in rows if row.cell.layer == layer and row.cell.coef > 0 and row.ppl_ratio <= ratio]
        if standing:
            row = max(standing, key=lambda row: row.cell.coef)
            select = replace(kind, layer=layer)
            yield Fact("largest_coefficient_without_collapse", select, row.cell.coef, file, f"line {row.line}")


def judge_of(name: str, models: Iterable[str]) -> tuple[str, str] | None:
    """Judge and model that the name of a file of scores gives: `judge_<judge>_<model>.jsonl`."""
    known = list(models)
    parts = name.removeprefix("judge_").removesuffix(".jsonl").split("_")
    for cut in range(1, len(parts)):
        model = model_called("_".join(parts[cut:]), known)
        if model:
            return "_".join(parts[:cut]), model
    return None


def _judgements(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> Iterator[Fact]:
    for artifact in inventory.of("judge"):
        named = judge_of(artifact.name, sweeps)
        judge, model = named or (None, None)
        for row in artifact.value:
            select = Selector(model, "steered", row.value["layer"], float(row.value["coef"]), judge=judge)
            measured = sweeps[model].at(select.layer, select.coef or 0.0) if model else None
            imputed = measured is not None and not measured.generations
            note = IMPUTED if imputed else ""
            yield from scores(artifact, row.line, row.value, select, note)
        yield from _scale(artifact, Selector(model, judge=judge))


def _scale(artifact: Artifact, select: Selector) -> Iterator[Fact]:
    scores = [(row.value[axis], row.line) for row in artifact.value for axis in AXES]
    if scores:
        for measure, (value, line) in (("lowest_score", min(scores)), ("highest_score", max(scores))):
            yield Fact(measure, select, value, artifact.file, f"line {line}")


def _vectors(inventory: Inventory) -> Iterator[Fact]:
    for model, vectors in vectors_by_model(inventory).items():
        for layer, artifact in vectors.items():
            vector = artifact.value
            select = Selector(model, layer=layer, file=artifact.path)
            yield Fact("vector_norm", select, vector.norm, artifact.file, "vector")
            yield Fact("vector_width", select, vector.values.shape[0], artifact.file, "vector")
            yield Fact("vector_layer", select, vector.layer, artifact.file, "layer")
            yield Fact("artifact_layer", select, vector.layer, artifact.file, "layer")


def _features(inventory: Inventory, names: ModelNames) -> Iterator[Fact]:
    for artifact in inventory.of("features"):
        table: FeatureTable = artifact.value
        model = names.resolve(table.model)
        whole = Selector(model, layer=table.layer, file=artifact.path)
        yield Fact("feature_coefficient", whole, table.coefficient, artifact.file, "coef")
        yield Fact("feature_count", whole, len(table.rows), artifact.file, "top_features")
        yield Fact("artifact_layer", whole, table.layer, artifact.file, "layer")
        places = _Places.of(table)
        for index, row in enumerate(table.rows):
            select = replace(whole, coef=table.coefficient, feature=row.feature)
            where = f"top_features[{index}]"
            numbers = {
                "feature_delta": row.delta,
                "feature_base_mean": row.base_mean,
                "feature_steered_mean": row.steered_mean,
                "feature_steered_frequency": 100 * row.steered_freq,
                "feature_base_frequency": 100 * row.base_freq,
            }
            if row.base_mean > 0:
                numbers["feature_ratio"] = row.steered_mean / row.base_mean
            # Readers set such numbers beside results of other cells, so that theirs must be said each time.
            note = f"measured at c={table.coefficient:+g} on {table.n_prompts} prompts"
            for measure, value in numbers.items():
                yield Fact(measure, select, value, artifact.file, where, note)
            yield Fact("feature_rank", select, index + 1, artifact.file, where, places.order)
            yield Fact("feature_rank_by_delta", select, places.by_delta[row.feature], artifact.file, where, note)
            if row.base_mean > 0:
                among = f"among the {len(table.rows)} features of the table"
                yield Fact("feature_rank_by_ratio", select, places.by_ratio[row.feature], artifact.file, where, among)


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


def _saes(inventory: Inventory, names: ModelNames) -> Iterator[Fact]:
    for artifact in inventory.of("sae", "sae_pt"):
        sae = artifact.value
        select = Selector(names.resolve(sae.model), layer=sae.layer, file=artifact.path)
        yield Fact("sae_width", select, sae.d_sae, artifact.file, "d_sae")
        yield Fact("sae_k", select, sae.k, artifact.file, "k")
        yield Fact("artifact_layer", select, sae.layer, artifact.file, "layer")


def _files(inventory: Inventory) -> Iterator[Fact]:
    counted = {"contrast_pairs": "contrast_pair_count", "eval_prompts": "prompt_count"}
    for artifact in inventory.artifacts:
        select = Selector(file=artifact.path)
        yield Fact("file_size", select, artifact.size, artifact.file, "")
        if artifact.kind in TABLES and artifact.value is not None:
            rows = len(artifact.value)
            yield Fact("row_count", select, rows, artifact.file, f"{rows} rows")
            if artifact.kind in counted:
                yield Fact(counted[artifact.kind], Selector(), rows, artifact.file, f"{rows} rows")
