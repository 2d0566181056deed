"""Judging inside `steer-eval reproduce`: its options, and what they set going.

Invariant: unless an option asks for a judge, none is called: published scores are checked, not made again. Judges come
after the report is written, so that a judge that can't be reached takes nothing from it; what they say joins it then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from steer_eval.repository import StudyRepositories
    from steer_eval.reproduce import Report

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--judge",
        type=click.Choice(["recorded", "api", "local", "probe"]),
        default="recorded",
        show_default=True,
        help="Who judges re-run texts: published texts first (judge drift), then the new ones (generation drift). "
        "recorded calls nobody.",
    ),
    click.option("--base-url", metavar="URL", help="For --judge api: the endpoint; key from STEER_EVAL_JUDGE_KEY."),
    click.option("--judge-model", metavar="NAME", help="For --judge api or local: the judging model."),
    click.option("--max-calls", type=click.IntRange(min=0), help="For --judge api: refuse a run with more calls."),
)


def judge_options(command: Command) -> Command:
    """Add the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def refuse_judging(ctx: click.Context, options: Mapping[str, Any], *, level: str, here: bool) -> None:
    """Refuse a judge that would have nothing to judge, or that can't be asked, before anything is measured.

    Args:
        ctx: The command's context.
        options: Values of `judge_options`.
        level: How far the reproduction goes.
        here: Whether it runs on this machine.

    Raises:
        click.UsageError: The options don't go together.
    """
    kind = options["judge"]
    if kind == "recorded":
        return
    if not here:
        raise click.UsageError("--judge is for runs on this machine; `steer-eval judge` takes the run of a job.", ctx)
    if level != "rerun":
        raise click.UsageError("--judge is for texts that are made again: --level rerun.", ctx)
    if kind in ("api", "local") and options["judge_model"] is None:
        raise click.UsageError(f"--judge {kind} needs --judge-model.", ctx)
    if kind == "api" and options["base_url"] is None:
        raise click.UsageError("--judge api needs --base-url.", ctx)


def judge_rerun(
    reproduction: Report, published: StudyRepositories, options: Mapping[str, Any]
) -> tuple[dict[str, Any], Report]:
    """Judge the published texts of a study, and those of its re-run.

    Args:
        reproduction: The report of the re-run; scores and `judging.json` go to its run directory.
        published: The study and its repos.
        options: Values of `judge_options`.

    Returns:
        The report of judging, and the report of the re-run with both drifts, which is written over the one before.

    Raises:
        SteerEvalError: The judge can't be used, or there is nothing to judge.
    """
    from steer_eval.formats import schema
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.formats.strict_json import write_json
    from steer_eval.judge.cache import opened_log
    from steer_eval.judge.cases import case_of, open_case
    from steer_eval.judge.drift import in_short
    from steer_eval.judge.judging import write_report
    from steer_eval.judge.judging_run import Choice, run_judges
    from steer_eval.judge.rubric import load_rubric
    from steer_eval.reproduce import REPORT

    run = reproduction.run
    kind, model = options["judge"], options["judge_model"]
    rubric = load_rubric()
    choice = Choice(
        (kind,),
        rubric,
        base_url=options["base_url"],
        models=() if model is None else (model,),
        max_calls=options["max_calls"],
    )
    against = case_of(published, published.model.name, rubric, is_run=False)
    case = open_case(str(run), None, None, rubric)
    with opened_log(run) as log:
        report = run_judges(case, against, choice, log, run, lambda line: click.echo(printable(line), err=True))
        file = write_report(run, report)
        joined = replace(reproduction, judging=in_short(report, file))
        document = joined.to_json()
        schema.check(document, "report", file=REPORT)
        write_json(run / REPORT, document)
        write_manifest(run)
    return report, joined
