"""`steer-eval reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steer_eval.cli.jobs import HF_JOBS, job_options, refuse_without_job, run_job
from steer_eval.cli.judge_options import judge_options, judge_rerun, refuse_judging
from steer_eval.cli.options import (
    data_option,
    json_option,
    run_option,
    strict_option,
    study_argument,
    study_option,
)
from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from steer_eval.reproduce import Level
    from steer_eval.rerun import CellChoice


@click.command("reproduce")
@study_argument
@data_option
@click.option(
    "--level",
    type=click.Choice(["check", "recompute", "rerun"]),
    default="rerun",
    show_default=True,
    help="How far to go: check the files, recompute the claims from published data, re-run on the models.",
)
@click.option(
    "--cells",
    type=click.Choice(["claimed", "all"]),
    default="claimed",
    show_default=True,
    help="Which cells to re-run: those that claims rest on, or the whole sweep.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="Models whose re-run would take longer, all together, are left out and named.",
)
@study_option
@judge_options
@run_option
@job_options
@strict_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    study: str,
    data: str | None,
    level: Level,
    cells: CellChoice,
    max_minutes: float,
    study_file: str | None,
    run: Path | None,
    on: str,
    flavor: str | None,
    results: str | None,
    namespace: str | None,
    package: str | None,
    print_job: bool,
    strict: bool,
    json: bool,
    **judging: Any,
) -> None:
    """Check a study, recompute its claims, re-run it, and print one verdict per claim.

    STUDY is the model repo: a folder, or a Hub repo as NAMESPACE/NAME[@REVISION]. The run directory that this leaves is
    a dataset repo with both cards regenerated; the same command resumes an interrupted run. Without a study.yaml, every
    number of the card is checked against the published data, and nothing is re-run.

    With --on hf-jobs, a job with all inputs pinned does this on Hugging Face Jobs, and opens a pull request with its
    run on a dataset repo; Ctrl-C leaves the job running.

    \b
    Examples:
      steer-eval reproduce artifacts/smollm2-135m-mature-anger
      steer-eval reproduce artifacts/smollm2-135m-mature-anger --level recompute --json
      steer-eval reproduce NAMESPACE/NAME --on hf-jobs --flavor t4-small --print-job
    """
    refuse_without_job(
        ctx, on, flavor=flavor, results=results, namespace=namespace, package=package, print_job=print_job
    )
    refuse_judging(ctx, judging, level=level, here=on != HF_JOBS)
    if on == HF_JOBS:
        from steer_eval.jobs.write import Wish

        if run is not None or strict:
            raise click.UsageError(f"--{'run' if run else 'strict'} is for runs on this machine.", ctx)
        wish = Wish(level, cells, max_minutes, study_file, flavor, results, namespace, package)
        run_job(ctx, study, data, wish, print_job=print_job, json=json)
        return
    from steer_eval.cli.judge_output import print_judging
    from steer_eval.cli.output import print_json, print_report
    from steer_eval.judge.judging import has_findings
    from steer_eval.recompute import default_audit_folder, recompute
    from steer_eval.report import write_report
    from steer_eval.repository import Repositories, StudyRepositories, open_target
    from steer_eval.reproduce import default_run_folder, reproduce

    repositories = open_target(study, data, study_file)
    if isinstance(repositories, Repositories):
        report = recompute(repositories, level=level, run=run or default_audit_folder(repositories))
    else:
        folder = run or default_run_folder(repositories, f"reproduce {level}")
        if (folder / "journal.jsonl").exists():
            click.echo(f"going on with {folder}; give another --run to measure everything anew", err=True)
        report = reproduce(
            repositories,
            level=level,
            cells=cells,
            run=folder,
            max_minutes=max_minutes,
            judge_kind=judging["judge"],
            tell=lambda line: click.echo(printable(line), err=True),
        )
    write_report(report.run, [repo for repo in (repositories.model, repositories.data) if repo is not None])
    if not json:
        print_report(report)
    judged: dict[str, Any] | None = None
    try:
        if judging["judge"] != "recorded" and isinstance(repositories, StudyRepositories):
            judged, report = judge_rerun(report, repositories, judging)
    finally:
        # A judge that can't be reached takes nothing from the report.
        if json:
            print_json(report.to_json())
    if judged is not None and not json:
        print_judging(judged)
    unscored = judged is not None and has_findings(judged)
    ctx.exit(report.exit_code(strict=strict) or int(unscored))
