"""Facts: every number of the published data under the name of what it measures.

Invariant: a fact is copied or computed from one place in one file, which it names; what a file does not say is not
there. Claims of a card are looked up here, so that a verdict can always show its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from steer_eval.claims.claim import Selector
from steer_eval.claims.compared_scores import compared_score_facts
from steer_eval.claims.comparison_facts import comparison_facts
from steer_eval.claims.diagnostic_facts import diagnostic_facts
from steer_eval.claims.fact import AXES, DEFINITIONS, IMPUTED, Fact, Facts, fits
from steer_eval.claims.names import ModelNames
from steer_eval.claims.sae_facts import sae_facts
from steer_eval.claims.transfer_facts import transfer_facts
from steer_eval.claims.variant_facts import scores, variant_facts
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
            *comparison_facts(inventory),
            *compared_score_facts(inventory),
            *transfer_facts(inventory),
            *_vectors(inventory),
            *diagnostic_facts(inventory),
            *sae_facts(inventory, names),
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
