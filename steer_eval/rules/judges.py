"""Rules on judges' scores.

Invariant: a score stands for a cell or a variant that was measured, its margin is the difference of its axes, what it
copies from what it judged is equal to it, and a score that no judge can have given is named as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from steer_eval.consistency import same_or_rounded
from steer_eval.findings import Finding
from steer_eval.formats.strict_json import Row
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.sweep_files import SweepFile, model_called

_EDITED = "score again; never edit scores"


def judge_findings(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> list[Finding]:
    """What is wrong with files of scores.

    Args:
        inventory: What the repos hold.
        sweeps: The sweeps, by model.
    """
    findings: list[Finding] = []
    for artifact in inventory.of("judge"):
        findings += _margins(artifact)
        model = _judged_model(artifact.name, sweeps)
        findings += _cells(artifact, sweeps[model] if model else None)
    for artifact in inventory.of("judge_labels"):
        findings += _margins(artifact)
        findings += _labels(artifact, inventory)
    return findings


def _judged_model(name: str, sweeps: Mapping[str, SweepFile]) -> str | None:
    """The model whose sweep a file of scores is on: `judge_<judge>_<model>.jsonl`."""
    parts = name.removeprefix("judge_").removesuffix(".jsonl").split("_")
    candidates = ["_".join(parts[start:]) for start in range(len(parts))]
    return next((model for part in candidates if (model := model_called(part, sweeps))), None)


def _margins(artifact: Artifact) -> Iterator[Finding]:
    for row in artifact.value:
        if "margin" in row.value:
            margin = row.value["mature_anger"] - row.value["juvenile_rage"]
            if not math.isclose(margin, row.value["margin"], abs_tol=1e-9):
                message = f"the margin is {row.value['margin']:g}, mature_anger - juvenile_rage gives {margin:g}"
                where = f"line {row.line}: margin"
                yield Finding(
                    "judge-margin", "error", artifact.file, where, message, margin, row.value["margin"], _EDITED
                )


def _cells(artifact: Artifact, sweep: SweepFile | None) -> Iterator[Finding]:
    seen: dict[tuple[object, float], Row] = {}
    imputed = []
    for row in artifact.value:
        cell = (row.value["layer"], float(row.value["coef"]))
        shown = f"L={cell[0]} c={cell[1]:g}"
        where = f"line {row.line}"
        if cell in seen:
            message = f"{shown} stands in line {seen[cell].line} already"
            yield Finding("judge-duplicate", "error", artifact.file, where, message, fix="remove one of the rows")
        seen.setdefault(cell, row)
        measured = sweep.at(*cell) if sweep else None
        if sweep and measured is None and not sweep.artifact.troubles:
            message = f"{sweep.artifact.path} has no row for {shown}"
            fix = "publish the row that was judged"
            yield Finding("judge-unmatched", "error", artifact.file, where, message, fix=fix)
        if measured is not None:
            flag = row.value.get("collapsed")
            if flag is not None and flag != measured.collapsed:
                message = f"line {measured.line} of {sweep.artifact.path if sweep else ''} says otherwise of {shown}"
                yield Finding(
                    "judge-collapsed",
                    "error",
                    artifact.file,
                    f"{where}: collapsed",
                    message,
                    measured.collapsed,
                    flag,
                    _EDITED,
                )
            if not measured.generations:
                imputed.append(row.line)
    yield from _imputed(artifact, imputed)
    yield from _unjudged(artifact, sweep, seen)


def _unjudged(
    artifact: Artifact, sweep: SweepFile | None, judged: Mapping[tuple[object, float], Row]
) -> Iterator[Finding]:
    """Cells with text that have no score, where most have one."""
    if sweep is None or artifact.troubles:
        return
    with_text = [row for row in sweep.rows if row.generations and row.cell.label == "steered"]
    absent = [row for row in with_text if (row.cell.layer, row.cell.coef) not in judged]
    if 2 * len(absent) > len(with_text):
        return
    for row in absent:
        message = f"no score for {row.cell}, whose texts stand in line {row.line} of {sweep.artifact.path}"
        where = f"L={row.cell.layer} c={row.cell.coef:g}"
        yield Finding("judge-missing", "error", artifact.file, where, message, fix="judge it, or say why not")


def _imputed(artifact: Artifact, lines: list[int]) -> Iterator[Finding]:
    if lines:
        message = f"scores though there was no text to judge, in line {', '.join(map(str, lines))}"
        fix = "leave such rows out, or write null: a made-up score takes part in means and ties"
        yield Finding("judge-imputed", "warning", artifact.file, f"line {lines[0]}", message, fix=fix)


def _labels(artifact: Artifact, inventory: Inventory) -> Iterator[Finding]:
    imputed = []
    seen: dict[tuple[str, str], int] = {}
    for row in artifact.value:
        label, where = row.value["label"], f"line {row.line}"
        file = row.value.get("source", "transfer_eval.jsonl")
        if (file, label) in seen:
            message = f"{label!r} stands in line {seen[file, label]} already"
            yield Finding("judge-duplicate", "error", artifact.file, where, message, fix="remove one of the rows")
        seen.setdefault((file, label), row.line)
        source = inventory.named(file, "transfer_eval") or inventory.named(file, "phase_i")
        if source is None:
            message = f"{file}, whose texts were judged, is absent"
            yield Finding("judge-unmatched", "error", artifact.file, where, message, fix="publish the texts")
            continue
        judged = next((each for each in source.value if each.value["label"] == label), None)
        if judged is None:
            judged = _same_ratio(row, source)
            meant = (
                "" if judged is None else f"; its ppl_ratio is that of {judged.value['label']!r}, line {judged.line}"
            )
            message = f"{file} has no row labelled {label!r}{meant}"
            expected = None if judged is None else judged.value["label"]
            fix = "use one label for one thing: a join on it finds nothing"
            yield Finding("judge-label", "error", artifact.file, f"{where}: label", message, expected, label, fix)
        if judged is not None:
            if not judged.value["generations"]:
                imputed.append(row.line)
            yield from _copied_ratio(artifact, row, judged, file)
    yield from _imputed(artifact, imputed)


def _same_ratio(row: Row, source: Artifact) -> Row | None:
    ratio = row.value.get("ppl_ratio")
    fitting = [each for each in source.value if ratio is not None and each.value.get("ppl_ratio") == ratio]
    return fitting[0] if len(fitting) == 1 else None


def _copied_ratio(artifact: Artifact, row: Row, judged: Row, file: str) -> Iterator[Finding]:
    copied, original = row.value.get("ppl_ratio"), judged.value.get("ppl_ratio")
    if copied is not None and original is not None and not same_or_rounded(original, copied):
        message = f"line {judged.line} of {file} has another ppl_ratio"
        where = f"line {row.line}: ppl_ratio"
        yield Finding("judge-ratio", "error", artifact.file, where, message, original, copied, _EDITED)
