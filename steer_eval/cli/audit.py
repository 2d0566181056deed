"""`steer-eval audit`."""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.cli.options import json_option, strict_option, tell_which
from steer_eval.cli.printable import printable


@click.command("audit")
@click.argument("file", metavar="FILE.md")
@click.option(
    "--data", metavar="REPO", callback=tell_which, required=True, help="Dataset repo with the published data."
)
@click.option(
    "--model",
    "model_repo",
    metavar="REPO",
    callback=tell_which,
    help="Model repo with vectors, SAEs and feature tables; by default the folder or Hub repo of FILE.md.",
)
@click.option(
    "--annotate",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="COPY.md",
    help="Also write a copy of the text with a mark behind every number.",
)
@strict_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, file: str, data: str, model_repo: str | None, annotate: Path | None, strict: bool, json: bool
) -> None:
    """Check every number of a Markdown text about a study against the study's published data.

    FILE.md is a card, a report or a draft, here or on the Hub (hf://NAMESPACE/NAME/FILE.md); a Hub repo alone stands
    for its card. Each number gets one verdict, with its line: reproduced, contradicted, or not checkable with the
    reason.

    \b
    Examples:
      steer-eval audit artifacts/my-study/README.md --data artifacts/my-study-data
      steer-eval audit report.md --data my-study-data --model my-study --annotate report.audited.md
    """
    from steer_eval.annotate import annotated
    from steer_eval.audit import audit_text, unseen_in_model_repo
    from steer_eval.claims.verdict import FAILING
    from steer_eval.cli.output import print_audit, print_json
    from steer_eval.errors import SteerEvalError
    from steer_eval.formats.atomic import write_text
    from steer_eval.formats.strict_json import MAX_FILE_BYTES
    from steer_eval.formats.text import read_text
    from steer_eval.repository import Repositories, open_repository, open_text
    from steer_eval.validate import validate

    place, model = open_text(file, model_repo)
    if not place.is_file():
        what = "a folder" if place.is_dir() else "absent"
        raise SteerEvalError(f"{file} is {what}", "name a Markdown file, such as the README.md of a model repo")
    text = read_text(place, file, limit=MAX_FILE_BYTES)
    dataset = open_repository(data, "dataset")
    validation = validate(Repositories(model, dataset))
    audit = audit_text(text, file, validation.inventory, validation.findings)
    if model_repo is None and (unseen := unseen_in_model_repo(audit, validation.inventory)):
        numbers = "1 number" if unseen == 1 else f"{unseen} numbers"
        hint = (
            f"{numbers} could not be checked, and {model.name} has no vectors, SAEs or feature tables: they may be "
            "about these, which also say how models are called. Name the model repo with --model"
        )
        click.echo(printable(hint), err=True)
    if annotate is not None:
        if annotate.resolve() == place.resolve():
            raise SteerEvalError(f"{annotate} is the text itself", "name another file with --annotate")
        write_text(annotate, annotated(text, audit))
    if json:
        print_json(audit.to_json(data=data))
    else:
        print_audit(audit)
    words = {verdict.word for verdict in audit.verdicts}
    if words <= {"not-checkable"}:
        click.echo("no number of the text could be checked", err=True)
        ctx.exit(2)
    ctx.exit(int(bool(words & FAILING) or (strict and bool(audit.unchecked or audit.findings))))
