"""Rules on judges' scores of a comparison of methods.

Invariant: a score stands for one method, or one control, that `comparison_<model>.jsonl` has with a text to judge, and
stands there once; its margin is the difference of its axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steer_eval.findings import Finding
from steer_eval.formats.strict_json import Row
from steer_eval.inventory import Artifact, Inventory
from steer_eval.judge.file_names import beside
from steer_eval.rules.files import unusable

Key = tuple[str, str, object, float]
"""Variant, label, layer and coefficient of a cell."""


def compared_score_findings(inventory: Inventory) -> Iterator[Finding]:
    """What is wrong with files of scores of a comparison, their margins apart.

    Args:
        inventory: What the repos hold.
    """
    compared = comparisons(inventory)
    unread = unusable(inventory)
    for artifact in inventory.of("judge_comparison"):
        model = judged_model(artifact, compared)
        if model is not None:
            yield from _cells(artifact, compared[model])
        elif not artifact.troubles and not any(name.rsplit("/", 1)[-1].startswith("comparison_") for name in unread):
            message = "no comparison is published of the model in the file's name, so that nobody can read the texts"
            fix = "publish the comparison, or name the file judge_<judge>_<model>_comparison.jsonl"
            yield Finding("judge-unmatched", "error", artifact.file, "", message, fix=fix)


def comparisons(inventory: Inventory) -> dict[str, Artifact]:
    """The comparisons of methods, by the model in their names."""
    found = inventory.of("comparison")
    return {each.name.removeprefix("comparison_").removesuffix(".jsonl"): each for each in found}


def judged_model(artifact: Artifact, compared: Mapping[str, Artifact]) -> str | None:
    """The model whose comparison a file of scores is on."""
    from steer_eval.claims.facts import judge_of

    named = judge_of(beside(artifact.name), compared)
    return named[1] if named else None


def key_of(row: Mapping[str, Any]) -> Key:
    """What tells the cells of a comparison apart."""
    return row["variant"], row.get("label", "steered"), row["layer"], float(row["coef"])


def has_text(row: Row) -> bool:
    """Whether a row of a comparison has a text that could be judged."""
    return any(text["gen"] is not None for text in row.value["generations"])


def _cells(artifact: Artifact, comparison: Artifact) -> Iterator[Finding]:
    measured = {key_of(row.value): row for row in reversed(comparison.value)}
    seen: dict[Key, int] = {}
    for row in artifact.value:
        key, where = key_of(row.value), f"line {row.line}"
        shown = f"{key[0]} ({key[1]})"
        if key in seen:
            message = f"{shown} stands in line {seen[key]} already"
            yield Finding("judge-duplicate", "error", artifact.file, where, message, fix="remove one of the rows")
        seen.setdefault(key, row.line)
        if key not in measured:
            if not comparison.troubles:
                message = f"{comparison.path} has no row for {shown}"
                fix = "publish the row that was judged"
                yield Finding("judge-unmatched", "error", artifact.file, where, message, fix=fix)
        elif not has_text(measured[key]):
            message = f"scores though there was no text to judge of {shown}"
            fix = "leave such rows out: a made-up score takes part in means and ties"
            yield Finding("judge-imputed", "warning", artifact.file, where, message, fix=fix)
    yield from _unjudged(artifact, comparison, measured, seen)


def _unjudged(
    artifact: Artifact, comparison: Artifact, measured: Mapping[Key, Row], judged: Mapping[Key, int]
) -> Iterator[Finding]:
    """Cells with text that have no score, where most have one."""
    with_text = {key: row for key, row in measured.items() if has_text(row)}
    absent = {key: row for key, row in with_text.items() if key not in judged}
    if artifact.troubles or 2 * len(absent) > len(with_text):
        return
    for key, row in absent.items():
        message = f"no score for {key[0]} ({key[1]}), whose texts stand in line {row.line} of {comparison.path}"
        fix = "judge it, or say in the card why it has no score"
        yield Finding("judge-missing", "error", artifact.file, key[0], message, fix=fix)
