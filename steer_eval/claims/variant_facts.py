"""Facts of labelled variants: what was tried beside the sweeps, and how it was scored.

Invariant: a score stands for a text; where the variant that a row scores has none, the facts say so. A number that a
file of scores copies from an evaluation is a fact only where the evaluation has it under no such label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from steer_eval.claims.claim import Selector
from steer_eval.claims.fact import AXES, IMPUTED, Fact
from steer_eval.consistency import same_or_rounded
from steer_eval.formats.strict_json import Row
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.judges import row_of_same_ratio
from steer_eval.rules.rounding import agrees_with_quotient
from steer_eval.rules.sweep_files import SweepFile

_LABELLED = re.compile(r"judge_(?P<judge>.+)_(?:transfer|phase_i)\.jsonl")
_SOURCE = "transfer_eval.jsonl"
"""What a file of scores is on where its rows name no source."""


def variant_facts(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> Iterator[Fact]:
    """Facts of labelled variants and of their scores.

    Args:
        inventory: What the repos hold.
        sweeps: The sweeps, by model: variants name no model, and theirs is the one with their unsteered perplexity.
    """
    for artifact in inventory.of("transfer_eval", "phase_i"):
        yield from _evaluated(artifact, sweeps)
    for artifact in inventory.of("judge_labels"):
        stated = _LABELLED.fullmatch(artifact.name)
        for row in artifact.value:
            judged, _ = _judged(row, inventory)
            select = Selector(judge=stated["judge"] if stated else None, variant=row.value["label"], file=artifact.path)
            note = IMPUTED if judged is not None and not _has_text(judged) else ""
            yield from scores(artifact, row.line, row.value, select, note)
    yield from _copied_ratios(inventory, sweeps)


def scores(artifact: Artifact, line: int, row: Mapping[str, Any], select: Selector, note: str) -> Iterator[Fact]:
    """A judge's scores in one row, and their margin, which is computed where the row has none."""
    where = f"line {line}"
    for axis in AXES:
        yield Fact(axis, select, row[axis], artifact.file, where, note)
    computed = row["mature_anger"] - row["juvenile_rage"]
    yield Fact("margin", select, row.get("margin", computed), artifact.file, where, note)


def _evaluated(artifact: Artifact, sweeps: Mapping[str, SweepFile]) -> Iterator[Fact]:
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


def _judged(row: Row, inventory: Inventory) -> tuple[Row | None, Artifact | None]:
    """The evaluation that a row of scores is on: the row of its label, or else the one with its perplexity ratio."""
    file = row.value.get("source", _SOURCE)
    source = inventory.named(file, "transfer_eval") or inventory.named(file, "phase_i")
    if source is None:
        return None, None
    labelled = next((each for each in source.value if each.value["label"] == row.value["label"]), None)
    return labelled or row_of_same_ratio(row, source), source


def _has_text(row: Row) -> bool:
    return any(text["gen"] is not None for text in row.value["generations"])


def _copied_ratios(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> Iterator[Fact]:
    """Perplexity ratios that only files of scores have under some label; of roundings of one number, the longest."""
    evaluated = {
        row.value["label"]
        for artifact in inventory.of("transfer_eval", "phase_i")
        for row in artifact.value
        if row.value.get("ppl_ratio") is not None
    }
    found: dict[str, list[Fact]] = {}
    for artifact in inventory.of("judge_labels"):
        for row in artifact.value:
            label, ratio = row.value["label"], row.value.get("ppl_ratio")
            if ratio is None or label in evaluated:
                continue
            judged, source = _judged(row, inventory)
            select = Selector(_model_of(judged.value, sweeps) if judged else None, variant=label, file=artifact.path)
            note = f"copied from line {judged.line} of {source.path}" if judged and source else ""
            fact = Fact("perplexity_ratio", select, ratio, artifact.file, f"line {row.line}", note)
            others = found.setdefault(label, [])
            if any(same_or_rounded(float(other.value), ratio) for other in others):
                continue
            found[label] = [other for other in others if not same_or_rounded(ratio, float(other.value))] + [fact]
    yield from (fact for facts in found.values() for fact in facts)


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
