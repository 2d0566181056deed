"""Rules on the evaluations beside the sweeps: transferred vectors, patching, feature steering, several layers, prompts.

Invariant: a row follows from its own numbers, and whatever it shares with a sweep, the prompts, the vectors or the
feature tables is equal to what stands there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from steer_eval.findings import Finding
from steer_eval.formats.strict_json import Row
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.sweep_files import SweepFile, collapse_ratio_of
from steer_eval.rules.vector_files import vectors_by_model

_AGAIN = "measure the row again; never edit measured rows"
_RELATIVE = 1e-6
_SHARE = 0.5


def evaluation_findings(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> list[Finding]:
    """What is wrong with evaluations of labelled variants.

    Args:
        inventory: What the repos hold.
        sweeps: The sweeps, by model.
    """
    prompts = next((table for table in inventory.of("eval_prompts") if not table.troubles), None)
    collapse_ratio = collapse_ratio_of(sweeps)
    bases = {row.base_ppl for sweep in sweeps.values() for row in sweep.rows}
    findings: list[Finding] = []
    for artifact in inventory.of("transfer_eval", "phase_i"):
        seen: dict[str, int] = {}
        for row in artifact.value:
            label = row.value["label"]
            if label in seen:
                message = f"{label!r} stands in line {seen[label]} already"
                findings.append(
                    Finding(
                        "evaluation-duplicate",
                        "error",
                        artifact.file,
                        f"line {row.line}: label",
                        message,
                        fix="give every variant a label of its own",
                    )
                )
            seen.setdefault(label, row.line)
            findings += _arithmetic(artifact, row, collapse_ratio)
            findings += _base(artifact, row, bases)
            findings += _prompts(artifact, row, prompts)
            findings += _identical(artifact, row)
            findings += _layer_coefficients(artifact, row, inventory)
        findings += _features(artifact, inventory)
    return findings


def _arithmetic(artifact: Artifact, row: Row, collapse_ratio: float) -> Iterator[Finding]:
    value, where = row.value, f"line {row.line}"
    ppl, ratio, base = value.get("ppl"), value.get("ppl_ratio"), value.get("base_ppl")
    if ratio is None:
        return
    if ppl is not None and base is not None and not math.isclose(ppl / base, ratio, rel_tol=_RELATIVE):
        message = f"ppl_ratio is {ratio:.6g}, ppl / base_ppl gives {ppl / base:.6g}"
        yield Finding(
            "evaluation-arithmetic", "error", artifact.file, f"{where}: ppl_ratio", message, ppl / base, ratio, _AGAIN
        )
    collapsed = ratio > collapse_ratio
    if "collapsed" in value and value["collapsed"] != collapsed:
        message = f"collapsed is not whether ppl_ratio > {collapse_ratio:g}"
        yield Finding(
            "evaluation-arithmetic",
            "error",
            artifact.file,
            f"{where}: collapsed",
            message,
            collapsed,
            value["collapsed"],
            _AGAIN,
        )
    if collapsed and "collapsed" not in value:
        message = (
            f"the ratio {ratio:.4g} lies above the collapse ratio {collapse_ratio:g}, but the row has no such mark"
        )
        fix = "write collapsed: true, as the sweeps do"
        yield Finding("collapse-unmarked", "note", artifact.file, f"{where}: collapsed", message, True, None, fix)


def _base(artifact: Artifact, row: Row, bases: set[float]) -> Iterator[Finding]:
    """The unsteered perplexity, recorded or implied, is one that a sweep has."""
    value = row.value
    recorded = {key: value[key] for key in ("base_ppl", "base_ppl_08") if value.get(key) is not None}
    if not recorded and value.get("ppl") is not None and value.get("ppl_ratio") is not None:
        recorded = {"ppl_ratio": value["ppl"] / value["ppl_ratio"]}
    for key, observed in recorded.items():
        if bases and not any(math.isclose(base, observed, rel_tol=_RELATIVE) for base in bases):
            message = f"no sweep has the unsteered perplexity {observed:.6g} that {key} gives"
            where = f"line {row.line}: {key}"
            yield Finding("evaluation-base", "error", artifact.file, where, message, sorted(bases), observed, _AGAIN)


def _prompts(artifact: Artifact, row: Row, prompts: Artifact | None) -> Iterator[Finding]:
    known = {each.value["scenario"] for each in prompts.value} if prompts else set()
    for index, text in enumerate(row.value["generations"]):
        if prompts is not None and text["prompt"] not in known:
            where = f"line {row.line}: generations[{index}].prompt"
            message = f"{prompts.path} has no such prompt"
            yield Finding("evaluation-prompt", "error", artifact.file, where, message, None, text["prompt"], _AGAIN)


def _identical(artifact: Artifact, row: Row) -> Iterator[Finding]:
    """The same text for most prompts is a broken intervention more often than a result."""
    texts = [text["gen"] for text in row.value["generations"] if text["gen"]]
    most, count = Counter(texts).most_common(1)[0] if texts else ("", 0)
    if len(texts) > 2 and count > _SHARE * len(texts):
        message = f"{count} of {len(texts)} texts are the same though their prompts differ: {most[:40]!r}…"
        fix = "check the intervention: a hook that also overwrites generated tokens does this"
        yield Finding("texts-identical", "warning", artifact.file, f"line {row.line}: generations", message, fix=fix)


def _layer_coefficients(artifact: Artifact, row: Row, inventory: Inventory) -> Iterator[Finding]:
    """Coefficients per layer are alpha over the norm of the layer's vector, of whichever model fits best."""
    coefficients, alpha = row.value.get("per_layer_coefs"), row.value.get("alpha")
    if not coefficients or alpha is None:
        return

    def wrong(vectors: Mapping[int, Artifact]) -> list[tuple[str, float]]:
        found = []
        for layer, coefficient in coefficients.items():
            expected = alpha / (vectors[int(layer)].value.norm or math.inf)
            if not math.isclose(expected, coefficient, rel_tol=_RELATIVE):
                found.append((layer, expected))
        return found

    complete = [
        found for found in vectors_by_model(inventory).values() if {int(part) for part in coefficients} <= set(found)
    ]
    if not complete:
        return
    best = min((wrong(vectors) for vectors in complete), key=len)
    # Where no model's norms explain most of them, the coefficients were chosen in some other way.
    if 2 * len(best) > len(coefficients):
        return
    for layer, expected in best:
        message = f"the coefficient of layer {layer} is not alpha over the norm of its vector, as the others are"
        where = f"line {row.line}: per_layer_coefs.{layer}"
        yield Finding(
            "evaluation-coefficient", "error", artifact.file, where, message, expected, coefficients[layer], _AGAIN
        )


def _features(artifact: Artifact, inventory: Inventory) -> Iterator[Finding]:
    """Steered features of which no feature table of that layer says anything."""
    steered: dict[int, set[int]] = {}
    for row in artifact.value:
        if row.value.get("feat_ids") and row.value.get("layer") is not None:
            steered.setdefault(row.value["layer"], set()).update(row.value["feat_ids"])
    for layer, features in steered.items():
        tables: list[Any] = [table for table in inventory.of("features") if table.value.layer == layer]
        listed = {row.feature for table in tables for row in table.value.rows}
        if tables and not features & listed:
            shown = ", ".join(map(str, sorted(features)))
            message = f"none of the steered features {shown} stands in a feature table of layer {layer}"
            fix = "publish the ranking that they were chosen by"
            yield Finding("feature-unlisted", "note", artifact.file, "feat_ids", message, fix=fix)
