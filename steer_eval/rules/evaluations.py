"""Rules on the evaluations beside the sweeps: transferred vectors, patching, feature steering, several layers, prompts.

Invariant: a row follows from its own numbers, and whatever it shares with a sweep, the prompts, the vectors or the
feature tables is equal to what stands there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from steer_eval.consistency import same_or_rounded, shown_apart
from steer_eval.findings import Finding
from steer_eval.formats.kinds import kind_of
from steer_eval.formats.strict_json import Row
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.files import unusable
from steer_eval.rules.rounding import agrees_with_quotient
from steer_eval.rules.sweep_files import SweepFile, collapse_ratio_of
from steer_eval.rules.vector_files import published_norms, vectors_by_model

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
    known = frozenset(row.value["scenario"] for row in prompts.value) if prompts else frozenset()
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
            findings += _prompts(artifact, row, known, prompts.path) if prompts else ()
            findings += _identical(artifact, row)
            findings += _layer_coefficients(artifact, row, inventory)
        findings += _features(artifact, inventory)
    # The unsteered perplexity of a sweep that can't be read may be any.
    hidden = any(kind_of(file.rsplit("/", 1)[-1]) == "sweep" for file in unusable(inventory))
    if bases and not hidden and all(sweep.rows for sweep in sweeps.values()):
        findings += _bases(list(inventory.of("transfer_eval", "phase_i")), bases)
    return findings


def _arithmetic(artifact: Artifact, row: Row, collapse_ratio: float) -> Iterator[Finding]:
    value, where = row.value, f"line {row.line}"
    ppl, ratio, base = value.get("ppl"), value.get("ppl_ratio"), value.get("base_ppl")
    if ratio is None:
        return
    if ppl is not None and base is not None and not agrees_with_quotient(ratio, ppl, base):
        expected, observed = shown_apart(ppl / base, ratio)
        message = f"ppl_ratio is {observed}, ppl / base_ppl gives {expected}"
        yield Finding(
            "evaluation-arithmetic", "error", artifact.file, f"{where}: ppl_ratio", message, ppl / base, ratio, _AGAIN
        )
    collapsed = ratio > collapse_ratio
    if "collapsed" in value and value["collapsed"] != collapsed:
        shown = str(value["collapsed"]).lower()
        message = f"collapsed is {shown}, ppl_ratio > {collapse_ratio:g} gives {str(collapsed).lower()}"
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
        message = f"ppl_ratio {ratio:.4g} lies above the collapse ratio {collapse_ratio:g}, and no `collapsed` says so"
        fix = "write collapsed: true, as the sweeps do"
        yield Finding("collapse-unmarked", "note", artifact.file, f"{where}: collapsed", message, True, None, fix)


def _bases(artifacts: list[Artifact], bases: set[float]) -> Iterator[Finding]:
    """The unsteered perplexity, recorded or implied, is one that a sweep has.

    One that stands in a single row is a mistake. One that several rows agree on may be that of a model whose sweep is
    not published.
    """
    found = [
        (artifact, row, key, value) for artifact in artifacts for row in artifact.value for key, value in _base(row)
    ]
    occurrences = Counter(f"{value:.6g}" for *_, value in found)
    said = set()
    for artifact, row, key, value in found:
        if any(_has_base(row, key, base) for base in bases):
            continue
        where = f"line {row.line}: {key}"
        message = f"no sweep has the unsteered perplexity {value:.6g}, which {key} gives"
        shown = f"{value:.6g}"
        if occurrences[shown] == 1:
            yield Finding("evaluation-base", "error", artifact.file, where, message, sorted(bases), value, _AGAIN)
        elif (artifact.file, shown) not in said:
            said.add((artifact.file, shown))
            fix = "publish the sweep of the model that was measured, or measure the rows again"
            yield Finding("evaluation-base", "warning", artifact.file, where, message, sorted(bases), value, fix)


def _base(row: Row) -> Iterator[tuple[str, float]]:
    """The unsteered perplexities of a row, each with the field that gives it."""
    value = row.value
    recorded = [(key, value[key]) for key in ("base_ppl", "base_ppl_08") if value.get(key) is not None]
    if not recorded and value.get("ppl") is not None and value.get("ppl_ratio") is not None:
        recorded = [("ppl_ratio", value["ppl"] / value["ppl_ratio"])]
    yield from recorded


def _has_base(row: Row, key: str, base: float) -> bool:
    """Whether an unsteered perplexity is the one that a field of a row gives, as far as rounding lets one see."""
    if key == "ppl_ratio":
        return agrees_with_quotient(row.value["ppl_ratio"], row.value["ppl"], base)
    return same_or_rounded(base, row.value[key])


def _prompts(artifact: Artifact, row: Row, known: frozenset[str], path: str) -> Iterator[Finding]:
    for index, text in enumerate(row.value["generations"]):
        if text["prompt"] not in known:
            where = f"line {row.line}: generations[{index}].prompt"
            message = f"{path} has no such prompt"
            yield Finding("evaluation-prompt", "error", artifact.file, where, message, None, text["prompt"], _AGAIN)


def _identical(artifact: Artifact, row: Row) -> Iterator[Finding]:
    """The same text for most prompts is a broken intervention more often than a result."""
    texts = [text["gen"] for text in row.value["generations"] if text["gen"]]
    most, count = Counter(texts).most_common(1)[0] if texts else ("", 0)
    if len(texts) > 2 and count > _SHARE * len(texts):
        message = f"{count} of {len(texts)} texts are the same though their prompts differ: {most[:40]!r}…"
        fix = "check the intervention: a hook that also overwrites generated tokens does this, and so does collapse"
        yield Finding("texts-identical", "warning", artifact.file, f"line {row.line}: generations", message, fix=fix)


def _layer_coefficients(artifact: Artifact, row: Row, inventory: Inventory) -> Iterator[Finding]:
    """Coefficients per layer are alpha over the norm of the layer's vector, of whichever model fits best."""
    coefficients, alpha = row.value.get("per_layer_coefs"), row.value.get("alpha")
    if not coefficients or alpha is None:
        return
    complete = [
        found for found in vectors_by_model(inventory).values() if {int(part) for part in coefficients} <= set(found)
    ]
    fitting = [
        (implied, vectors) for vectors in complete if (implied := _alpha_of(alpha, coefficients, vectors)) is not None
    ]
    if not fitting:
        return
    implied, vectors = min(fitting, key=lambda each: len(_misfits(coefficients, each[0], each[1])))
    if not same_or_rounded(implied, alpha):
        message = (
            f"alpha is {alpha:g}, the coefficients of the layers times the norms of their vectors give {implied:g}"
        )
        where = f"line {row.line}: alpha"
        yield Finding("evaluation-coefficient", "error", artifact.file, where, message, implied, alpha, _AGAIN)
    for layer, expected in _misfits(coefficients, implied, vectors):
        message = f"the coefficient of layer {layer} is not alpha over the norm of its vector, as the others are"
        where = f"line {row.line}: per_layer_coefs.{layer}"
        yield Finding(
            "evaluation-coefficient", "error", artifact.file, where, message, expected, coefficients[layer], _AGAIN
        )


def _misfits(
    coefficients: Mapping[str, float], alpha: float, vectors: Mapping[int, Artifact]
) -> list[tuple[str, float]]:
    """Layers whose coefficient is not alpha over the norm of the vector, with what that is."""
    found = []
    for layer, coefficient in coefficients.items():
        expected = [alpha / (norm or math.inf) for norm in published_norms(vectors[int(layer)].value)]
        if not any(same_or_rounded(value, coefficient) for value in expected):
            found.append((layer, expected[0]))
    return found


def _alpha_of(stated: float, coefficients: Mapping[str, float], vectors: Mapping[int, Artifact]) -> float | None:
    """The alpha that most coefficients follow from: the stated one, or another that several agree on.

    None where no alpha and no norms of this model explain most coefficients: they were chosen in some other way.
    """
    if 2 * len(_misfits(coefficients, stated, vectors)) <= len(coefficients):
        return stated
    candidates = [coefficient * vectors[int(layer)].value.norm for layer, coefficient in coefficients.items()]
    best = min(candidates, key=lambda alpha: len(_misfits(coefficients, alpha, vectors)))
    misfits = len(_misfits(coefficients, best, vectors))
    return best if 2 * misfits < len(coefficients) and len(coefficients) - misfits > 1 else None


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
