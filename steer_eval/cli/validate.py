"""`steer-eval validate`."""

from __future__ import annotations

import click

from steer_eval.cli.options import data_option, json_option, strict_option, study_argument


@click.command("validate")
@study_argument
@data_option
@strict_option
@json_option
@click.pass_context
def command(ctx: click.Context, study: str, data: str | None, strict: bool, json: bool) -> None:
    """Check the files of a study: schemas, checksums, arithmetic, completeness, cards.

    STUDY is the model repo; its dataset repo is found beside it. No model is loaded.

    \b
    Examples:
      steer-eval validate artifacts/smollm2-135m-mature-anger
      steer-eval validate artifacts/smollm2-135m-mature-anger --json --strict
    """
    from steer_eval.cli.output import print_findings, print_json
    from steer_eval.findings import worst
    from steer_eval.repository import open_study
    from steer_eval.validate import validate

    validation = validate(open_study(study, data))
    if json:
        print_json(
            {
                "schema": "steer-eval/validate/1",
                "target": study,
                "findings": [finding.to_json() for finding in validation.findings],
                "checked": list(validation.checked),
            }
        )
    else:
        if validation.findings:
            print_findings(validation.findings)
        click.echo(f"{len(validation.checked)} files checked")
    severity = worst(validation.findings)
    ctx.exit(int(severity == "error" or (strict and severity == "warning")))
