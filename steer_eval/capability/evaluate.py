"""Tasks under several conditions, from one load of the model.

Invariant: all conditions answer the same requests, built once per condition from the same documents with the same
seeds, so documents can be paired. Values are lm-eval's own; only standard errors and differences are computed here.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval import evaluate as lm_evaluate
from lm_eval.api.metrics import mean, perplexity, weighted_perplexity

from steer_eval.capability.answers import RememberingLM, condition_key
from steer_eval.capability.compare import Comparison, Estimate, compare, pooled
from steer_eval.capability.lm_eval_model import SteeredLM
from steer_eval.capability.source import Condition
from steer_eval.capability.tasks import Tasks
from steer_eval.cells import Conditions
from steer_eval.errors import SteerEvalError, first_line
from steer_eval.run import Journal

_SEED = 1234
_PERPLEXITIES = (perplexity, weighted_perplexity)


@dataclass(frozen=True)
class Settings:
    """How tasks are run.

    Args:
        limit: Most documents of each task; None for all.
        batch_size: Rows of one batch.
        chat: Whether every task gets the model's chat template, and not only those that ask for it.
    """

    limit: int | None = None
    batch_size: int = 1
    chat: bool = False


@dataclass(frozen=True, eq=False)
class Answered:
    """What lm-eval says of all tasks under one condition.

    Args:
        results: lm-eval's results, by task and group.
        samples: Its samples, by task.
        recalled: How many answers were known from before.
    """

    results: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    documents: Mapping[str, int]
    recalled: int


@dataclass(frozen=True, eq=False)
class MetricResult:
    """One metric of a task or group.

    Args:
        task: The task.
        is_group: Whether it is a group of tasks.
        metric: The metric.
        filter: lm-eval's filter, `none` for no filtering.
        higher_is_better: What lm-eval says; None where it does not say.
        base: Under the unsteered model.
        comparisons: For each steered condition what it comes to, in their order.
        documents: Documents that were evaluated.
        documents_of: Documents that the task has.
    """

    task: str
    is_group: bool
    metric: str
    filter: str
    higher_is_better: bool | None
    base: Estimate
    comparisons: tuple[Comparison, ...]
    documents: int
    documents_of: int


def answer_all(
    lm: SteeredLM,
    tasks: Tasks,
    conditions: Sequence[Condition],
    settings: Settings,
    journal: Journal,
    kept_under: Conditions,
    tell: Callable[[str], None] = lambda _line: None,
) -> list[Answered]:
    """Run all tasks under all conditions.

    Args:
        lm: The model.
        tasks: The tasks.
        conditions: The conditions, the unsteered model among them.
        settings: How tasks are run.
        journal: Where answers are kept.
        kept_under: Weights and machine class, under which answers are kept.
        tell: Called with a line about what is done next.

    Raises:
        SteerEvalError: lm-eval can't run a task on this model.
    """
    answered = []
    for condition in conditions:
        tell(f"{condition}: {', '.join(tasks.asked)}")
        key = condition_key(kept_under, condition.edits, settings.batch_size)
        remembering = RememberingLM(lm.steered(condition.intervention), journal, key)
        answered.append(_answer(remembering, tasks, settings))
    return answered


def _answer(lm: RememberingLM, tasks: Tasks, settings: Settings) -> Answered:
    chat = bool(lm.tokenizer.chat_template)
    if settings.chat and not chat:
        raise SteerEvalError("the model has no chat template", "leave out --apply-chat-template")
    with_chat = {name for name in tasks.tasks if chat and (settings.chat or tasks.wants_chat(name))}
    results: dict[str, Mapping[str, Any]] = {}
    samples: dict[str, Sequence[Mapping[str, Any]]] = {}
    documents: dict[str, int] = {}
    for names, templated in ((set(tasks.tasks) - with_chat, False), (with_chat, True)):
        chosen = {name: task for name, task in tasks.tasks.items() if name in names}
        if not chosen:
            continue
        # A group whose tasks are not all here is not made into a number.
        groups = {
            name: group
            for name, group in tasks.groups.items()
            if {task.task_name for task in group.get_all_tasks()} <= names
        }
        found = _run(lm, {"tasks": chosen, "groups": groups}, settings, templated=templated)
        results |= found["results"]
        samples |= found["samples"]
        documents |= {name: count["original"] for name, count in found["n-samples"].items()}
    return Answered(results, samples, documents, lm.recalled)


def _run(lm: RememberingLM, tasks: Mapping[str, Any], settings: Settings, *, templated: bool) -> Mapping[str, Any]:
    with _quiet(), torch.random.fork_rng():
        torch.manual_seed(_SEED)
        try:
            found = lm_evaluate(
                lm=lm,
                task_dict=tasks,
                limit=settings.limit,
                bootstrap_iters=0,
                log_samples=True,
                apply_chat_template=templated,
                fewshot_as_multiturn=templated,
            )
        except (AssertionError, ValueError, KeyError, IndexError, TypeError) as error:
            raise SteerEvalError(
                f"lm-eval can't run {', '.join(tasks['tasks'])} on this model: {first_line(error)}",
                "run the tasks one by one to see which it is",
            ) from error
    result: Mapping[str, Any] = found
    return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of lm-eval's on standard output, and of its messages the errors only."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)


def compare_all(tasks: Tasks, base: Answered, others: Sequence[Answered]) -> list[MetricResult]:
    """Every metric of every task and group, under the unsteered model and the other conditions.

    Args:
        tasks: The tasks.
        base: Answers of the unsteered model.
        others: Answers under the other conditions.
    """
    found = [
        result
        for name, task in tasks.tasks.items()
        for metric, filtered in _metrics(base.results[name])
        if (result := _of_task(name, task, metric, filtered, base, others)) is not None
    ]
    grouped = [
        result
        for name, group in tasks.groups.items()
        for metric, filtered in _metrics(base.results.get(name, {}))
        for result in [_of_group(group, metric, filtered, base, others, found)]
    ]
    return [*found, *grouped]


def _metrics(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Metric and filter of each number that lm-eval has for a task."""
    keys = [key.rsplit(",", 1) for key, value in results.items() if "," in key and isinstance(value, int | float)]
    return [(metric, filtered) for metric, filtered in keys if not metric.endswith("_stderr")]


def _of_task(
    name: str, task: Any, metric: str, filtered: str, base: Answered, others: Sequence[Answered]
) -> MetricResult | None:
    aggregate = task.aggregation().get(metric, mean)
    sides = [_items(answered.samples[name], metric, filtered) for answered in (base, *others)]
    if not sides[0]:
        return None
    kind = {"is_mean": aggregate is mean, "is_perplexity": aggregate in _PERPLEXITIES}
    comparisons = tuple(compare(sides[0], side, aggregate, **kind) for side in sides[1:])
    alone = compare(sides[0], sides[0], aggregate, **kind).base
    better = task.higher_is_better().get(metric)
    return MetricResult(name, False, metric, filtered, better, alone, comparisons, len(sides[0]), base.documents[name])


def _items(samples: Sequence[Mapping[str, Any]], metric: str, filtered: str) -> dict[int, Any]:
    return {sample["doc_id"]: sample[metric] for sample in samples if sample["filter"] == filtered and metric in sample}


def _of_group(
    group: Any, metric: str, filtered: str, base: Answered, others: Sequence[Answered], tasks: Sequence[MetricResult]
) -> MetricResult:
    names = {task.task_name for task in group.get_all_tasks()}
    parts = [part for part in tasks if part.task in names and (part.metric, part.filter) == (metric, filtered)]
    key = f"{metric},{filtered}"

    def whole(answered: Answered) -> float:
        return float(answered.results[group.name][key])

    alone = pooled([(part.base, part.documents) for part in parts], whole(base))
    comparisons = tuple(
        Comparison(
            alone,
            pooled([(part.comparisons[index].steered, part.documents) for part in parts], whole(answered)),
            pooled(
                [(part.comparisons[index].difference, part.documents) for part in parts], whole(answered) - whole(base)
            ),
            None,
            sum(part.comparisons[index].documents for part in parts),
        )
        for index, answered in enumerate(others)
    )
    known = {part.higher_is_better for part in parts}
    better = known.pop() if len(known) == 1 else None
    count, of = sum(part.documents for part in parts), sum(part.documents_of for part in parts)
    return MetricResult(group.name, True, metric, filtered, better, alone, comparisons, count, of)
