"""Reproductions on Hugging Face Jobs, for `steer-eval reproduce`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from steer_eval.jobs.job import Job
    from steer_eval.jobs.submit import Submitted
    from steer_eval.jobs.write import Wish

Command = Callable[..., Any]
HERE, HF_JOBS = "here", "hf-jobs"
INTERRUPTED = 130


def job_options(command: Command) -> Command:
    """The options of `reproduce` that say where it runs."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--on",
        type=click.Choice([HERE, HF_JOBS]),
        default=HERE,
        show_default=True,
        help="Where to run: on this machine, or as a job on Hugging Face Jobs, which costs money.",
    ),
    click.option("--flavor", metavar="NAME", help="Hardware of the job (`hf jobs hardware`); by default cpu-basic."),
    click.option(
        "--results",
        metavar="NS/NAME",
        help="Dataset repo that the job opens a pull request with its run on; by default <you>/<study>-reproductions.",
    ),
    click.option("--namespace", metavar="NAME", help="Whose job it is, who pays for it; by default you."),
    click.option(
        "--package", metavar="SPEC", help="steer-eval as the job installs it; by default as it is installed here."
    ),
    click.option("--print-job", is_flag=True, help="Show exactly what would be submitted, and submit nothing."),
)


def run_job(ctx: click.Context, target: str, data: str | None, wish: Wish, *, print_job: bool, json: bool) -> None:
    """Write the job, and submit and follow it unless it is only to be shown.

    Args:
        ctx: The command; its exit code is set.
        target: The model repo.
        data: Its dataset repo.
        wish: What is asked of the job.
        print_job: Whether to show the job alone.
        json: Whether to print it as JSON.
    """
    from steer_eval.cli.output import print_json
    from steer_eval.jobs.submit import submit
    from steer_eval.jobs.write import write_job

    job = write_job(target, data, wish)
    if print_job:
        if json:
            print_json(job.to_json())
        else:
            _print_job(job)
        return
    submitted = submit(job)
    click.echo(f"job {submitted.name}: {submitted.url}", err=True)
    ended = _followed(ctx, submitted)
    if json:
        print_json({**job.to_json(), "submitted": ended.to_json()})
    _conclude(ctx, ended)


def _followed(ctx: click.Context, submitted: Submitted) -> Submitted:
    from steer_eval.cli.printable import printable
    from steer_eval.jobs.submit import follow

    try:
        return follow(submitted, lambda line: click.echo(printable(line), err=True))
    except KeyboardInterrupt:
        click.echo(
            f"\nThe job goes on. Follow it with `hf jobs logs -f {submitted.name}`, or stop it with "
            f"`hf jobs cancel {submitted.name}`.",
            err=True,
        )
        ctx.exit(INTERRUPTED)


def _conclude(ctx: click.Context, ended: Submitted) -> None:
    """Say how the job ended; its exit code is the reproduction's."""
    from steer_eval.cli.printable import printable
    from steer_eval.jobs.submit import DONE

    if ended.stage != DONE or ended.exit_code is None:
        said = f": {ended.message}" if ended.message else ""
        click.echo(printable(f"Error: job {ended.name} ended as {ended.stage} without results{said}"), err=True)
        click.echo(f"  To mend it: read its log, `hf jobs logs {ended.name}`", err=True)
        ctx.exit(2)
    click.echo(printable(f"results: {ended.pull_request}"), err=True)
    ctx.exit(ended.exit_code)


def _print_job(job: Job) -> None:
    """The job for people: all of the request, and the script as it is."""
    from steer_eval.jobs.job import SCRIPT

    payload = job.payload()
    payload["environment"] = {**payload["environment"], SCRIPT: "(the script below)"}
    rows = {
        "submitted as": f"POST /api/jobs/{job.namespace}",
        "image": payload["dockerImage"],
        "hardware": payload["flavor"],
        "stopped after": f"{payload['timeoutSeconds'] // 60} minutes",
        "command": " ".join([*payload["command"][:-1], repr(payload["command"][-1])]),
        "environment": ", ".join(f"{name}={value}" for name, value in payload["environment"].items()),
        "secrets": f"{', '.join(payload['secrets'])} (your token)",
        "labels": ", ".join(f"{name}={value}" for name, value in payload["labels"].items()),
        "results": f"a pull request to the {'private ' if job.settings['results']['private'] else ''}dataset repo "
        f"{job.settings['results']['repo']}",
    }
    for name, value in rows.items():
        click.echo(f"{name:<14} {value}")
    click.echo()
    click.echo(job.script, nl=False)


def refuse_without_job(ctx: click.Context, on: str, **options: object) -> None:
    """Refuse options of a job where none is asked for.

    Raises:
        click.UsageError: One of them is given.
    """
    given = [name for name, value in options.items() if value]
    if on == HERE and given:
        raise click.UsageError(f"--{given[0].replace('_', '-')} is for --on {HF_JOBS}.", ctx)
