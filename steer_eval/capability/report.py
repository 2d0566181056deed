"""What an evaluation found, as files: `capability.json`, and every document in `capability_samples.jsonl`.

Invariant: the report says all that its numbers depend on (model, machine, versions, conditions, settings), and a reader
can compute each of its numbers again from the samples. Texts of documents are not copied, because they are others'; a
checksum identifies each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from steer_eval.capability.compare import Comparison, Estimate
from steer_eval.capability.evaluate import Answered, MetricResult, Settings
from steer_eval.capability.source import Condition, LoadedSource, Source
from steer_eval.capability.tasks import Tasks
from steer_eval.formats import schema
from steer_eval.formats.manifest import FILE as MANIFEST
from steer_eval.formats.manifest import write_manifest
from steer_eval.formats.strict_json import write_json, write_jsonl

SCHEMA = "steer-eval/capability/1"
REPORT = "capability.json"
SAMPLES = "capability_samples.jsonl"


def report_of(
    target: str,
    source: Source,
    loaded: LoadedSource,
    tasks: Tasks,
    conditions: Sequence[Condition],
    settings: Settings,
    answered: Sequence[Answered],
    results: Sequence[MetricResult],
) -> dict[str, Any]:
    """The report as a JSON object.

    Args:
        target: How the user named the study or vector.
        source: The model and its vectors.
        loaded: The model in memory.
        tasks: The tasks.
        conditions: The unsteered model, and then the others.
        settings: How tasks were run.
        answered: Answers, by condition.
        results: What they come to.
    """
    report = {
        "schema": SCHEMA,
        "target": target,
        "study": source.study.name if source.study is not None else None,
        "model": {
            "name": source.reference.name if source.study is not None else None,
            "base_model": source.name,
            "revision": loaded.weights.revision,
            "weights_sha256": loaded.weights.sha256,
            "dtype": loaded.lm.dtype,
        },
        "environment": loaded.environment.to_json(),
        "lm_eval": metadata.version("lm_eval"),
        "settings": {"tasks": list(tasks.asked), **asdict(settings)},
        "conditions": [
            {
                "label": condition.label,
                "layer": condition.layer,
                "coef": condition.coef,
                "file": condition.file,
                "edits": [
                    {"layer": layer, "coef": coef, "vector_sha256": sha256} for layer, coef, sha256 in condition.edits
                ],
            }
            for condition in conditions
        ],
        "recalled": sum(each.recalled for each in answered),
        "results": [_result(each, tasks, conditions) for each in results],
    }
    schema.check(report, "capability", file=REPORT)
    return report


def _result(result: MetricResult, tasks: Tasks, conditions: Sequence[Condition]) -> dict[str, Any]:
    task = tasks.tasks.get(result.task)
    return {
        "task": result.task,
        "group": result.is_group,
        "version": str(task.VERSION) if task is not None and task.VERSION is not None else None,
        "num_fewshot": int(task.get_config("num_fewshot") or 0) if task is not None else None,
        "metric": result.metric,
        "filter": result.filter,
        "higher_is_better": result.higher_is_better,
        "documents": result.documents,
        "documents_of": result.documents_of,
        "base": result.base.to_json(),
        "steered": [
            _comparison(condition, comparison)
            for condition, comparison in zip(conditions[1:], result.comparisons, strict=True)
        ],
    }


def _comparison(condition: Condition, comparison: Comparison) -> dict[str, Any]:
    return {
        "label": condition.label,
        "layer": condition.layer,
        "coef": condition.coef,
        **comparison.steered.to_json(),
        "difference": comparison.difference.to_json(),
        "ratio": None if comparison.ratio is None else asdict(comparison.ratio),
        "documents": comparison.documents,
    }


def undefined(results: Sequence[MetricResult]) -> list[str]:
    """Metrics that came out as no finite number, in words."""

    def estimates(result: MetricResult) -> Iterator[Estimate]:
        yield result.base
        yield from (comparison.steered for comparison in result.comparisons)

    return [
        f"{result.task}: {result.metric}"
        for result in results
        if any(estimate.value is None for estimate in estimates(result))
    ]


def write_report(
    folder: Path,
    report: Mapping[str, Any],
    tasks: Tasks,
    conditions: Sequence[Condition],
    answered: Sequence[Answered],
    results: Sequence[MetricResult],
) -> None:
    """Write the report and the samples, and the manifest again where there is one.

    Args:
        folder: The run directory.
        report: The report.
        tasks: The tasks.
        conditions: The conditions.
        answered: Answers, by condition.
        results: Says which metrics there are.
    """
    write_jsonl(folder / SAMPLES, _samples(tasks, conditions, answered, results))
    write_json(folder / REPORT, report)
    if (folder / MANIFEST).exists():
        write_manifest(folder)


def _samples(
    tasks: Tasks, conditions: Sequence[Condition], answered: Sequence[Answered], results: Sequence[MetricResult]
) -> Iterator[dict[str, Any]]:
    metrics: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if not result.is_group:
            metrics.setdefault((result.task, result.filter), []).append(result.metric)
    for condition, each in zip(conditions, answered, strict=True):
        for (name, filtered), names in metrics.items():
            generates = tasks.tasks[name].OUTPUT_TYPE == "generate_until"
            for sample in each.samples[name]:
                if sample["filter"] == filtered:
                    row = {
                        "task": name,
                        "filter": filtered,
                        "label": condition.label,
                        "layer": condition.layer,
                        "coef": condition.coef,
                        "document": sample["doc_id"],
                        "document_sha256": sample["doc_hash"],
                        "metrics": {metric: _plain(sample[metric]) for metric in names if metric in sample},
                    }
                    yield row | ({"replies": [str(reply) for reply in sample["filtered_resps"]]} if generates else {})


def _plain(value: Any) -> Any:
    """A metric of one document as JSON has it; what JSON has no number for is null."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None
