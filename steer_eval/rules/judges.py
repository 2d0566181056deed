"""Rules on judges' scores.

Invariant: a score stands for a cell or a variant that was measured, its margin is the difference of its axes, what it
copies from what it judged is equal to it, and a score that no judge can have given is named as such.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from steer_eval.consistency import same_or_rounded
from steer_eval.findings import Finding
from steer_eval.formats.strict_json import Row
from steer_eval.inventory import Artifact, Inventory
from steer_eval.rules.compared_scores import compared_score_findings
from steer_eval.rules.files import unusable
from steer_eval.rules.sweep_files import SweepFile, collapse_ratio_of, collapsed_values, model_called

_EDITED = "score again; never edit scores"


def judge_findings(inventory: Inventory, sweeps: Mapping[str, SweepFile]) -> list[Finding]:
    """What is wrong with files of scores.

    Args:
        inventory: What the repos hold.
        sweeps: The sweeps, by model.
    """
    findings: list[Finding] = []
    unread = unusable(inventory)
    collapse_ratio = collapse_ratio_of(sweeps)
    for artifact in inventory.of("judge"):
        findings += _margins(artifact)
        model = _judged_model(artifact.name, sweeps)
        findings += _cells(artifact, sweeps[model] if model else None, collapse_ratio)
        if model is None and not artifact.troubles:
            findings += _without_sweep(artifact, sweeps, unread)
    for artifact in inventory.of("judge_labels"):
        findings += _margins(artifact)
        findings += _labels(artifact, inventory, unread)
    for artifact in inventory.of("judge_comparison"):
        findings += _margins(artifact)
    return [*findings, *compared_score_findings(inventory)]


def _without_sweep(artifact: Artifact, sweeps: Mapping[str, SweepFile], unread: frozenset[str]) -> Iterator[Finding]:
    """Scores of cells of no published sweep; a name that fits several sweeps, or an unread one, leaves that open."""
    hidden = {file.rsplit("/", 1)[-1].removeprefix("sweep_").removesuffix(".jsonl") for file in unread}
    if not any(_fits(artifact.name, model) for model in {*sweeps, *hidden}):
        message = "no sweep is published of the model in the file's name, so that nobody can read what was judged"
        fix = "publish the sweep, or name the file judge_<judge>_<model>.jsonl"
        yield Finding("judge-unmatched", "error", artifact.file, "", message, fix=fix)


def _fits(name: str, model: str) -> bool:
    return _judged_model(name, [model]) is not None


def _judged_model(name: str, models: Collection[str]) -> str | None:
    """The model whose sweep a file of scores is on: `judge_<judge>_<model>.jsonl`."""
    parts = name.removeprefix("judge_").removesuffix(".jsonl").split("_")
    candidates = ["_".join(parts[start:]) for start in range(len(parts))]
    return next((model for part in candidates if (model := model_called(part, models))), None)


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


def _cells(artifact: Artifact, sweep: SweepFile | None, collapse_ratio: float) -> Iterator[Finding]:
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
        flag = row.value.get("collapsed")
        if sweep and sweep.knows_nothing_of(*cell):
            message = f"{sweep.artifact.path} has no row for {shown}"
            fix = "publish the row that was judged"
            yield Finding("judge-unmatched", "error", artifact.file, where, message, fix=fix)
        elif measured is None:
            # The row of the sweep is lost, and only the judge's own mark is left.
            imputed += [row.line] if sweep and flag else []
        else:
            if flag is not None and flag not in collapsed_values(measured, collapse_ratio):
                message = f"line {measured.line} of {sweep.artifact.path if sweep else ''} says otherwise of {shown}"
                place = f"{where}: collapsed"
                yield Finding(
                    "judge-collapsed", "error", artifact.file, place, message, measured.collapsed, flag, _EDITED
                )
            imputed += [] if measured.generations else [row.line]
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
        yield Finding(
            "judge-missing",
            "error",
            artifact.file,
            where,
            message,
            fix="judge it, or say in the card why it has no score",
        )


def _imputed(artifact: Artifact, lines: list[int]) -> Iterator[Finding]:
    if lines:
        noun = "line" if len(lines) == 1 else "lines"
        message = f"scores though there was no text to judge, in {noun} {', '.join(map(str, lines))}"
        fix = "leave such rows out: a made-up score takes part in means and ties"
        yield Finding("judge-imputed", "warning", artifact.file, f"line {lines[0]}", message, fix=fix)


def _labels(artifact: Artifact, inventory: Inventory, unread: frozenset[str]) -> Iterator[Finding]:
    imputed = []
    seen: dict[tuple[str, str], int] = {}
    sources: dict[str, Artifact] = {}
    scored: dict[str, set[int]] = {}
    unknown: Counter[str] = Counter()
    # What is there and can't be read is a finding of its own.
    absent = {name.rsplit("/", 1)[-1] for name in unread}
    for row in artifact.value:
        label, where = row.value["label"], f"line {row.line}"
        file = row.value.get("source", "transfer_eval.jsonl")
        if (file, label) in seen:
            message = f"{label!r} stands in line {seen[file, label]} already"
            yield Finding("judge-duplicate", "error", artifact.file, where, message, fix="remove one of the rows")
        seen.setdefault((file, label), row.line)
        source = inventory.named(file, "transfer_eval") or inventory.named(file, "phase_i")
        if source is None:
            if file not in absent:
                message = f"{file}, whose texts were judged, is absent"
                yield Finding("judge-unmatched", "error", artifact.file, where, message, fix="publish the texts")
            absent.add(file)
            continue
        sources[file] = source
        judged = next((each for each in source.value if each.value["label"] == label), None)
        if judged is None:
            judged = row_of_same_ratio(row, source)
            unknown[file] += judged is None
            if source.troubles:
                # The label may be that of a row that can't be read.
                continue
            meant = (
                "" if judged is None else f"; its ppl_ratio is that of {judged.value['label']!r}, line {judged.line}"
            )
            message = f"{file} has no row labelled {label!r}{meant}"
            expected = None if judged is None else judged.value["label"]
            fix = "use one label for one thing, so that the two files can be joined"
            yield Finding("judge-label", "error", artifact.file, f"{where}: label", message, expected, label, fix)
        if judged is not None:
            scored.setdefault(file, set()).add(judged.line)
            if not judged.value["generations"]:
                imputed.append(row.line)
            yield from _copied_ratio(artifact, row, judged, file)
    yield from _imputed(artifact, imputed)
    for file, source in sources.items():
        yield from _unjudged_labels(artifact, source, scored.get(file, set()), unknown[file])


def _unjudged_labels(artifact: Artifact, source: Artifact, scored: set[int], unknown: int) -> Iterator[Finding]:
    """Variants with texts that have no score, where most have one; a score of an unknown label may be theirs."""
    with_text = [row for row in source.value if row.value["generations"]]
    absent = [row for row in with_text if row.line not in scored]
    if artifact.troubles or 2 * len(absent) > len(with_text) or len(absent) <= unknown:
        return
    for row in absent:
        label = row.value["label"]
        message = f"no score for {label!r}, whose texts stand in line {row.line} of {source.path}"
        yield Finding(
            "judge-missing",
            "error",
            artifact.file,
            label,
            message,
            fix="judge it, or say in the card why it has no score",
        )


def row_of_same_ratio(row: Row, source: Artifact) -> Row | None:
    """The one row of a file whose perplexity ratio a row of scores has copied."""
    ratio = row.value.get("ppl_ratio")
    if ratio is None:
        return None
    rated = [each for each in source.value if each.value.get("ppl_ratio") is not None]
    fitting = [each for each in rated if same_or_rounded(each.value["ppl_ratio"], ratio)]
    return fitting[0] if len(fitting) == 1 else None


def _copied_ratio(artifact: Artifact, row: Row, judged: Row, file: str) -> Iterator[Finding]:
    copied, original = row.value.get("ppl_ratio"), judged.value.get("ppl_ratio")
    if copied is not None and original is not None and not same_or_rounded(original, copied):
        message = f"line {judged.line} of {file} has another ppl_ratio"
        where = f"line {row.line}: ppl_ratio"
        yield Finding("judge-ratio", "error", artifact.file, where, message, original, copied, _EDITED)
