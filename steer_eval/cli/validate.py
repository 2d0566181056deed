"""`steer-eval validate`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from steer_eval.cli.options import data_option, json_option, strict_option, study_argument

if TYPE_CHECKING:
    from steer_eval.findings import Finding
    from steer_eval.repository import Repositories, StudyRepositories
    from steer_eval.validate import Validation

Format = Literal["human", "json", "sarif", "github"]


@click.command("validate")
@study_argument
@data_option
@strict_option
@click.option(
    "--download",
    "fetch_all",
    is_flag=True,
    help="Fetch every file of a Hub repo whole, also large ones of which the header is enough to check the rest.",
)
@click.option(
    "--format",
    type=click.Choice(["human", "json", "sarif", "github"]),
    help="What to write: a table for people (the default), JSON, SARIF for code scanning, or workflow commands that "
    "annotate a pull request on GitHub.",
)
@json_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead of standard output; a summary still goes to standard error.",
)
@click.pass_context
def command(
    ctx: click.Context,
    study: str,
    data: str | None,
    strict: bool,
    fetch_all: bool,
    format: Format | None,  # noqa: A002 - the name is the option's, and its variable's
    json: bool,
    output: Path | None,
) -> None:
    """Check the files of a repo: schemas, checksums, arithmetic, completeness, cards, and each file against the others.

    STUDY is a model repo, with a study.yaml or without, as a folder or on the Hub (NAMESPACE/NAME[@REVISION], hf://...
    or its URL); its dataset repo is the one that the study or the card names, or --data. A dataset repo can also be
    checked alone (hf://datasets/...). No model is loaded, and nothing in a file is run. Of large files on the Hub only
    the headers are read, which notes say; --download fetches them. --json is short for --format json.

    \b
    Examples:
      steer-eval validate artifacts/smollm2-135m-mature-anger
      steer-eval validate artifacts/smollm2-135m-mature-anger --json --strict
      steer-eval validate artifacts/smollm2-135m-mature-anger --format sarif --output study.sarif
      steer-eval validate NAMESPACE/NAME@v1 --download
    """
    if json and format not in (None, "json"):
        raise click.UsageError(f"--json is short for --format json, which --format {format} contradicts.", ctx)
    chosen: Format = "json" if json else format or "human"
    from steer_eval.cli.output import counted, print_findings
    from steer_eval.errors import SteerEvalError
    from steer_eval.findings import worst
    from steer_eval.hub.selection import everything, without_weights
    from steer_eval.repository import open_target
    from steer_eval.validate import validate

    try:
        target = open_target(study, data, selection=everything if fetch_all else without_weights)
        validation = validate(target)
    except SteerEvalError as error:
        if chosen == "github":
            from steer_eval.cli.annotations import error_annotation

            click.echo(error_annotation(error))
        raise
    if output:
        _write(output, _document(chosen, validation, study, target))
        click.echo(f"{counted(validation.findings, len(validation.checked))}; written to {output}", err=True)
    elif chosen == "human":
        # Only standard output may be a terminal, with a width and colours.
        if validation.findings:
            print_findings(validation.findings)
        click.echo(f"{len(validation.checked)} files checked")
    else:
        click.echo(_document(chosen, validation, study, target), nl=False)
    if chosen == "github":
        _append_summary(validation, study)
    severity = worst(validation.findings)
    ctx.exit(int(severity == "error" or (strict and severity == "warning")))


def _document(chosen: Format, validation: Validation, study: str, target: Repositories | StudyRepositories) -> str:
    """What was found, in a format, as whole lines."""
    from steer_eval.cli.output import counted, encodable, json_text

    findings, checked = validation.findings, validation.checked
    if chosen == "json":
        whole = {
            "schema": "steer-eval/validate/1",
            "target": study,
            "revision": target.model.revision,
            "data": target.data.name if target.data else None,
            "data_revision": target.data.revision if target.data else None,
            "findings": [finding.to_json() for finding in findings],
            "checked": list(checked),
        }
        return json_text(whole) + "\n"
    if chosen == "sarif":
        from steer_eval import __version__
        from steer_eval.cli.sarif import sarif_log

        return json_text(sarif_log(_in_checkout(findings), version=__version__)) + "\n"
    if chosen == "github":
        from steer_eval.cli.annotations import workflow_commands

        lines = [*workflow_commands(_in_checkout(findings)), f"steer-eval validate: {counted(findings, len(checked))}"]
        return encodable("\n".join(lines)) + "\n"
    from rich.console import Console

    from steer_eval.cli.output import NO_WRAP, findings_text

    console = Console(file=StringIO(), width=NO_WRAP)
    table = findings_text(findings, console) + counted(findings) + "\n" if findings else ""
    return f"{table}{len(checked)} files checked\n"


def _in_checkout(findings: tuple[Finding, ...]) -> list[Finding]:
    """The findings, with their files as the checkout around the working folder names them."""
    from steer_eval.cli.place import checkout_root, path_in_checkout

    folder = Path.cwd()
    root = checkout_root(folder, os.environ.get("GITHUB_WORKSPACE"))
    return [replace(finding, file=path_in_checkout(finding.file, folder, root)) for finding in findings]


def _append_summary(validation: Validation, study: str) -> None:
    """Add the findings to the job's summary, where GitHub asks for one."""
    from steer_eval.cli.annotations import summary
    from steer_eval.cli.output import encodable

    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        section = summary(_in_checkout(validation.findings), target=study, checked=len(validation.checked))
        with _writing(path, "GITHUB_STEP_SUMMARY names it"), Path(path).open("a", encoding="utf-8") as file:
            file.write(encodable(section))


def _write(path: Path, text: str) -> None:
    from steer_eval.formats.atomic import write_text

    with _writing(path, "name another file with --output"):
        if path.exists() and not path.is_file():
            # A device or a pipe is written to, never replaced.
            path.write_text(text, encoding="utf-8")
        else:
            write_text(path, text)


@contextmanager
def _writing(path: str | Path, fix: str) -> Iterator[None]:
    from steer_eval.errors import SteerEvalError

    try:
        yield
    except OSError as error:
        raise SteerEvalError(f"{path} can't be written: {error.strerror}", fix) from error
