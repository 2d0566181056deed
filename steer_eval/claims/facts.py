"""Facts: every number of the published data under the name of what it measures.

Invariant: a fact is copied or computed from one place in one file, which it names; what a file does not say is not
there. Claims of a card are looked up here, so that a verdict can always show its row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from steer_eval.claims.claim import Selector
from steer_eval.claims.names import ModelNames
from steer_eval.consistency import same_or_rounded
from steer_eval.formats.features import FeatureTable
from steer_eval.inventory import TABLES, Artifact, Inventory
from steer_eval.rules.rounding import agrees_with_quotient
from steer_eval.rules.sweep_files import SweepFile, collapse_ratio_of, model_called, sweep_files
from steer_eval.rules.vector_files import vectors_by_model

AXES = ("mature_anger", "juvenile_rage", "coherence")

DEFINITIONS = {
    "perplexity": "perplexity of the corpus in a cell, per token",
    "base_perplexity": "perplexity of the corpus under the unsteered model",
    "perplexity_ratio": "perplexity in a cell over that of the unsteered model",
    "collapsed": "whether a cell is marked as collapsed",
    "mature_anger": "the judge's score of the wanted persona in a cell",
    "juvenile_rage": "the judge's score of the unwanted persona in a cell",
    "coherence": "the judge's score of coherence in a cell",
    "margin": "mature_anger - juvenile_rage of a cell",
    "vector_norm": "Euclidean norm of a steering vector",
    "vector_width": "number of values of a steering vector",
    "vector_layer": "layer that a steering vector's file records",
    "applied_norm": "Euclidean norm of a variant's vector as it was added, before the coefficient",
    "artifact_layer": "layer that the file of a vector, SAE or feature table records",
    "feature_delta": "mean activation of a feature with steering, less that without",
    "feature_base_mean": "mean activation of a feature without steering",
    "feature_steered_mean": "mean activation of a feature with steering",
    "feature_ratio": "mean activation of a feature with steering over that without",
    "feature_steered_frequency": "share of prompts on which a feature fires with steering, in per cent",
    "feature_base_frequency": "share of prompts on which a feature fires without steering, in per cent",
    "feature_coefficient": "steering coefficient of a feature table",
    "feature_count": "number of features in a table",
    "sae_width": "number of features of an SAE",
    "sae_k": "features of an SAE that may fire per token",
    "file_size": "bytes of a file",
    "row_count": "rows of a file",
    "cell_count": "steered cells of a sweep",
    "collapsed_cells": "steered cells of a sweep that collapse",
    "contrast_pair_count": "number of contrast pairs",
    "prompt_count": "number of evaluation prompts",
    "prompts_per_cell": "number of evaluation prompts that each cell of a sweep was given",
    "lowest_score": "lowest score that a judge gave on any axis",
    "highest_score": "highest score that a judge gave on any axis",
}
"""What each name means; `docs/measures.md` lists them."""


@dataclass(frozen=True)
class Fact:
    """One number of the data.

    Args:
        measure: Name in `DEFINITIONS`.
        select: What it was measured on.
        value: The number or truth value.
        file: File that it stands in, as findings name it.
        where: Line or key in it.
        note: What a reader should know beside the number.
    """

    measure: str
    select: Selector
    value: float | bool
    file: str
    where: str
    note: str = ""


class Facts:
    """All facts of some repos, found by measure."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._by_measure: dict[str, list[Fact]] = {}
        for fact in facts:
            self._by_measure.setdefault(fact.measure, []).append(fact)

    def find(self, measure: str, select: Selector) -> list[Fact]:
        """Facts of a measure that fit every part of a selector that is given."""
        return [fact for fact in self._by_measure.get(measure, ()) if fits(fact.select, select)]

    def near(self, measure: str, select: Selector) -> list[Fact]:
        """Facts of a measure that differ from a selector in exactly one of its parts."""
        given = [name for name in _PARTS if getattr(select, name) is not None]
        found = []
        for name in given:
            loose = replace(select, **{name: None})
            found += [fact for fact in self.find(measure, loose) if not fits(fact.select, select)]
        return found

    def of(self, select: Selector, measures: Iterable[str]) -> list[Fact]:
        """Facts of several measures that fit a selector."""
        return [fact for measure in measures for fact in self.find(measure, select)]

    def measures(self) -> list[str]:
        """Measures of which there are facts."""
        return list(self._by_measure)


_PARTS = tuple(field.name for field in fields(Selector))


def fits(observed: Selector, wanted: Selector) -> bool:
    """Whether a fact's selector has every part that is wanted."""
    return all(getattr(wanted, name) in (None, getattr(observed, name)) for name in _PARTS)


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
            *_variants(inventory, sweeps),
            *_judgements(inventory, sweeps),
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
        steered = [row for row in sweep.rows if row.cell.label == "steered"]
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
        yield Fact("cell_count", Selector(model), len(steered), file, f"{len(steered)} rows")
        collapsed = sum(row.ppl_ratio > ratio for row in steered)
        note = f"above {ratio:g} times the unsteered perplexity"
        yield Fact("collapsed_cells", Selector(model), collapsed, file, f"{len(steered)} rows", note)
        for count in sorted({len(row.generations) for row in sweep.rows if row.generations}):
            yield Fact("prompts_per_cell", Selector(model), count, file, f"{len(sweep.rows)} rows")


def _variants(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> Iterator[Fact]:
    """Perplexities of labelled variants, which name no model: theirs is the one with their unsteered perplexity."""
    for artifact in inventory.of("transfer_eval", "phase_i"):
        for row in artifact.value:
            value, where = row.value, f"line {row.line}"
            model = _model_of(value, sweeps)
            select = Selector(model, variant=value["label"], file=artifact.path)
            note = f"its unsteered perplexity is that of {model}" if model else ""
            for measure, key in (("perplexity", "ppl"), ("perplexity_ratio", "ppl_ratio"), ("applied_norm", "norm")):
                if value.get(key) is not None:
                    yield Fact(measure, select, value[key], artifact.file, where, note)
            if "collapsed" in value:
                yield Fact("collapsed", select, value["collapsed"], artifact.file, where, note)


def _model_of(row: Mapping[str, Any], sweeps: Mapping[str, SweepFile]) -> str | None:
    """The one model whose unsteered perplexity a variant's row records or implies."""
    recorded = [row[key] for key in ("base_ppl", "base_ppl_08") if row.get(key) is not None]

    def has(base: float) -> bool:
        if recorded:
            return any(same_or_rounded(base, each) for each in recorded)
        ppl, ratio = row.get("ppl"), row.get("ppl_ratio")
        return ppl is not None and ratio is not None and agrees_with_quotient(ratio, ppl, base)

    bases = {model: {row.base_ppl for row in sweep.rows} for model, sweep in sweeps.items()}
    fitting = [model for model, known in bases.items() if any(has(base) for base in known)]
    return fitting[0] if len(fitting) == 1 else None


def judge_of(name: str, models: Iterable[str]) -> tuple[str, str] | None:
    """Judge and model that the name of a file of scores gives: `judge_<judge>_<model>.jsonl`."""
    known = list(models)
    parts = name.removeprefix("judge_").removesuffix(".jsonl").split("_")
    for cut in range(1, len(parts)):
        model = model_called("_".join(parts[cut:]), known)
        if model:
            return "_".join(parts[:cut]), model
    return None


_LABELLED = re.compile(r"judge_(?P<judge>.+)_(?:transfer|phase_i)\.jsonl")


def _judgements(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> Iterator[Fact]:
    for artifact in inventory.of("judge"):
        named = judge_of(artifact.name, sweeps)
        judge, model = named or (None, None)
        for row in artifact.value:
            select = Selector(model, "steered", row.value["layer"], float(row.value["coef"]), judge=judge)
            measured = sweeps[model].at(select.layer, select.coef or 0.0) if model else None
            imputed = measured is not None and not measured.generations
            note = "there was no text to judge: the score is made up" if imputed else ""
            yield from _scores(artifact, row.line, row.value, select, note)
        yield from _scale(artifact, Selector(model, judge=judge))
    for artifact in inventory.of("judge_labels"):
        stated = _LABELLED.fullmatch(artifact.name)
        judge = stated["judge"] if stated else None
        for row in artifact.value:
            select = Selector(judge=judge, variant=row.value["label"], file=artifact.path)
            yield from _scores(artifact, row.line, row.value, select, "")


def _scores(artifact: Artifact, line: int, row: Mapping[str, Any], select: Selector, note: str) -> Iterator[Fact]:
    where = f"line {line}"
    for axis in AXES:
        yield Fact(axis, select, row[axis], artifact.file, where, note)
    computed = row["mature_anger"] - row["juvenile_rage"]
    yield Fact("margin", select, row.get("margin", computed), artifact.file, where, note)


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
