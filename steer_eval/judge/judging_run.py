"""One judging run: the judges that the user chose, on the cells that there are.

Invariant: what it will take is told before the first call, and a run that does not fit the user's limits is refused
before it, so that nothing is spent on half a table. Published texts are judged before new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.errors import SteerEvalError
from steer_eval.judge.api import ApiJudge
from steer_eval.judge.cache import CallLog
from steer_eval.judge.cases import Case
from steer_eval.judge.drift import generation_drift, judge_drift
from steer_eval.judge.estimate import Budget, Estimate, Price
from steer_eval.judge.judge import Judge
from steer_eval.judge.judging import (
    REPORT_SCHEMA,
    Judged,
    compare_all,
    judge_cells,
    judge_report,
    planned,
    slug,
)
from steer_eval.judge.models import model_named
from steer_eval.judge.panel import panel_of
from steer_eval.judge.protocol import DEFAULT_REPEATS
from steer_eval.judge.rubric import Rubric, load_rubric
from steer_eval.judge.score_files import check_place, write_judged, write_panel
from steer_eval.judge.subjects import ProtocolName

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """What the user chose; see the options of `steer-eval judge`."""

    kinds: tuple[str, ...]
    rubric: Rubric
    protocol: ProtocolName | None = None
    base_url: str | None = None
    models: tuple[str, ...] = ()
    name: str | None = None
    repeats: int | None = None
    max_calls: int | None = None
    max_cost: float | None = None
    price: Price | None = None
    concurrency: int = 4
    timeout: float = 120.0
    fluency_model: str | None = None

    @classmethod
    def of(cls, kinds: Sequence[str], options: Mapping[str, Any]) -> Choice:
        """A choice from the command line's options.

        Raises:
            SteerEvalError: They don't go together, or there is no such rubric.
        """
        prices = (options["price_in"], options["price_out"])
        if (prices[0] is None) != (prices[1] is None):
            raise SteerEvalError("one price is missing", "give both --price-in and --price-out")
        if options["max_cost"] is not None and prices[0] is None:
            raise SteerEvalError("--max-cost needs prices", "give --price-in and --price-out, per million tokens")
        kinds = tuple(dict.fromkeys(kinds))
        if "api" in kinds and "local" in kinds:
            raise SteerEvalError("--model can't name models of an endpoint and of this machine at once", "judge twice")
        if "local" in kinds and not options["models"]:
            raise SteerEvalError("a local judge needs a model", "name its folder or Hub repo with --model")
        if options["name"] is not None and (len(options["models"]) > 1 or slug(options["name"]) != options["name"]):
            fix = "give one judge one name of lower-case letters, digits, dots and hyphens"
            raise SteerEvalError(f"--name {options['name']} can't be used", fix)
        return cls(
            kinds=kinds,
            rubric=load_rubric(options["rubric"]),
            price=None if prices[0] is None else Price(*prices),
            **{
                key: options[key]
                for key in (
                    "protocol",
                    "base_url",
                    "models",
                    "name",
                    "repeats",
                    "max_calls",
                    "max_cost",
                    "concurrency",
                    "timeout",
                    "fluency_model",
                )
            },
        )

    def protocol_of(self, kind: str) -> ProtocolName:
        """The protocol that a kind of judge is asked under."""
        return self.protocol or ("paper-cell" if kind == "api" else "sample")


def run_judges(case: Case, against: Case | None, choice: Choice, log: CallLog, out: Path, tell: Tell) -> dict[str, Any]:
    """Judge, compare and write.

    Args:
        case: The cells.
        against: Published cells, judged first.
        choice: Who judges, and how.
        log: Calls.
        out: Where files go.
        tell: Takes lines for the user.

    Returns:
        The report (`schemas/judging.schema.json`).

    Raises:
        SteerEvalError: A judge can't be used, or the run does not fit the limits.
    """
    for reason in (*case.unusable, *(against.unusable if against else ())):
        tell(f"not judged: {reason}")
    budget = Budget(max_calls=choice.max_calls, max_cost=choice.max_cost, price=choice.price)
    rubric = choice.rubric
    judged: list[Judged] = []
    parts, drift, generations = [], [], []
    retries = 0
    for kind in choice.kinds:
        for judge in _judges(kind, against or case, choice, log, budget, tell):
            protocol = choice.protocol_of(kind)
            if judge.name in [each.name for each in judged]:
                raise SteerEvalError(f"two judges are called {judge.name}", "judge with one at a time, and --name")
            check_place(out, judge, case.cells, protocol, rubric)
            repeats = choice.repeats or DEFAULT_REPEATS[protocol]
            _check_limits(judge, [c for c in (against, case) if c], rubric, protocol, repeats, tell)
            if against is not None:
                published = judge_cells(judge, against.subjects, rubric, protocol, repeats=repeats)
                drift += judge_drift(published, against.recorded, rubric)
            each = judge_cells(judge, case.subjects, rubric, protocol, repeats=repeats)
            if against is not None:
                generations.append(generation_drift(published, each, rubric))
            judged.append(each)
            parts.append(judge_report(each, write_judged(out, each)))
            retries += getattr(judge, "retried", 0)
    panel = panel_of(judged)
    if panel is not None:
        judged.append(panel.judged)
        parts.append(judge_report(panel.judged, write_panel(out, panel.judged, panel.columns)))
    elif len(judged) > 1:
        tell("no panel: its judges must share one protocol")
    return {
        "schema": REPORT_SCHEMA,
        "target": case.name,
        "folder": str(out),
        "rubric": {
            "name": rubric.name,
            "sha256": rubric.sha256,
            "axes": list(rubric.names),
            "levels": list(rubric.levels),
            "margin": rubric.margin_definition(),
        },
        "judges": parts,
        "recorded": [
            {"name": r.name, "model": r.model, "file": r.file, "cells": len(r.scores), "imputed": r.imputed}
            for r in case.recorded
        ],
        "agreement": compare_all(judged, case.recorded, rubric),
        "judge_drift": drift,
        "generation_drift": generations,
        "cost": {
            "calls": budget.calls,
            "from_log": log.hits,
            "tokens_in": budget.tokens_in,
            "tokens_out": budget.tokens_out,
            "cost": budget.cost,
            "retries": retries,
        },
    }


def _judges(kind: str, case: Case, choice: Choice, log: CallLog, budget: Budget, tell: Tell) -> Sequence[Judge]:
    """The judges of a kind; `case` is where the study's own texts and models are."""
    if kind == "api":
        return [_api(base_url, model, choice, log, budget) for base_url, model in _endpoints(choice, log)]
    if kind == "local":
        return [_local(model, choice, log, tell) for model in choice.models]
    if kind == "probe":
        return [_probe(case, choice, log, tell)]
    # The published judges' scores are there already; they only take part in the comparison.
    return []


def _endpoints(choice: Choice, log: CallLog) -> list[tuple[str, str]]:
    """Endpoints and models to ask: those that were named, or in a replay those that were asked before."""
    known = [(record["base_url"], record["model"]) for record in log.endpoints()] if log.is_replay else []
    if choice.base_url is None and not known:
        raise SteerEvalError("an endpoint needs an address", "give --base-url and --model")
    if choice.models:
        base_url = choice.base_url or known[0][0]
        return [(base_url, model) for model in choice.models]
    if not known:
        raise SteerEvalError("an endpoint needs a model", "name it with --model")
    fitting = [each for each in dict.fromkeys(known) if choice.base_url in (None, each[0])]
    if not fitting:
        raise SteerEvalError(f"the replayed run did not ask {choice.base_url}", "leave --base-url out")
    return fitting


def _api(base_url: str, model: str, choice: Choice, log: CallLog, budget: Budget) -> ApiJudge:
    return ApiJudge(
        base_url,
        model,
        name=choice.name or slug(model),
        log=log,
        budget=budget,
        concurrency=choice.concurrency,
        timeout=choice.timeout,
    )


def _local(model: str, choice: Choice, log: CallLog, tell: Tell) -> Judge:
    from steer_eval.cells import text_checksums
    from steer_eval.judge.local import LocalJudge
    from steer_eval.model import load_model
    from steer_eval.weights import fetch

    reference, folder = model_named(model)
    weights = fetch(reference, study_folder=folder)
    tell(f"loading {reference.base_model}")
    return LocalJudge(
        load_model(weights.folder, dtype=reference.dtype, chat_template=reference.chat_template),
        model=reference.base_model,
        revision=weights.revision,
        weights_sha256=weights.sha256,
        # Replies under another template are other replies.
        texts=text_checksums(weights, reference.chat_template),
        name=choice.name or slug(reference.base_model),
        log=log,
    )


def _probe(case: Case, choice: Choice, log: CallLog, tell: Tell) -> Judge:
    from steer_eval.judge.fluency import FLUENCY, load_fluency
    from steer_eval.judge.probe import ProbeJudge

    fluency = None
    if any(axis.probe == FLUENCY for axis in choice.rubric.axes):
        fluency = load_fluency(case, choice.fluency_model, log, tell)
    probe = ProbeJudge(case.pairs, choice.rubric, fluency, name=choice.name or "probe")
    accuracy = probe.validation
    tell(
        f"probe: {100 * accuracy.accuracy:.1f} % of {sum(accuracy.texts.values())} texts in their class "
        f"({accuracy.folds}-fold cross-validation)"
    )
    return probe


def _check_limits(
    judge: Judge, cases: Sequence[Case], rubric: Rubric, protocol: ProtocolName, repeats: int, tell: Tell
) -> None:
    """Tell what an endpoint will be asked, and refuse what does not fit the limits."""
    if not isinstance(judge, ApiJudge):
        return
    asks = [ask for case in cases for ask in planned(judge, case.subjects, rubric, protocol, repeats=repeats)]
    what: Estimate = judge.estimate(asks, rubric, protocol)
    tell(f"{judge.name}: {what}")
    if judge.log.is_replay:
        return
    budget = judge.budget
    if budget.max_calls is not None and budget.calls + what.calls > budget.max_calls:
        raise SteerEvalError(
            f"{what.calls} calls are needed, and --max-calls leaves {budget.max_calls - budget.calls}",
            "raise --max-calls, or take fewer --repeats",
        )
    total = (budget.cost or 0.0) + (what.cost or 0.0)
    if budget.max_cost is not None and total > budget.max_cost:
        raise SteerEvalError(
            f"the run may cost {total:.4g}, more than --max-cost {budget.max_cost:g}",
            "raise --max-cost, or take fewer --repeats",
        )
