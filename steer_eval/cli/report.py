"""`steer-eval report`."""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.cli.options import json_option, study_option, tell_which


@click.command("report")
@click.argument("target", metavar="TARGET", callback=tell_which)
@click.option(
    "--data",
    metavar="REPO",
    callback=tell_which,
    help="Dataset repo; by default the one that the study or the card names. Of a run: the published data, to be shown "
    "beside the run's.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page; by default report.html, in the run directory if TARGET is one.",
)
@study_option
@json_option
def command(target: str, data: str | None, out: Path | None, study_file: str | None, json: bool) -> None:
    """Write one self-contained HTML page about a study: verdicts, findings, heat maps, curves, features and texts.

    SAEs, transfers and comparisons of methods are on it as well, each number beside its null or its control.

    TARGET is a run directory that `steer-eval reproduce` left, or a model repo: a folder, or a Hub repo as
    NAMESPACE/NAME[@REVISION]. Nothing is run; a repo's claims are recomputed from its published data. With --json
    the data of the page is printed, and the page is only written where --out says.

    \b
    Examples:
      steer-eval report artifacts/smollm2-135m-mature-anger --out report.html
      steer-eval report runs/smollm2-135m-mature-anger-0123456789ab
    """
    from steer_eval.cli.output import print_json
    from steer_eval.cli.printable import printable
    from steer_eval.errors import SteerEvalError
    from steer_eval.formats.atomic import write_text
    from steer_eval.report import FILE, render, write_report
    from steer_eval.report_data import is_run, load_page
    from steer_eval.repository import open_repository

    if json and out is None:
        print_json(load_page(target, data, study_file).to_json())
        return
    try:
        if out is None and study_file is None and is_run(Path(target)):
            out = write_report(Path(target), [open_repository(data, "dataset")] if data else [])
        else:
            page = load_page(target, data, study_file)
            out = out or Path(FILE)
            write_text(out, render(page))
            if json:
                print_json(page.to_json())
                return
    except OSError as error:
        raise SteerEvalError(f"the page can't be written: {error}", "give another file with --out") from None
    click.echo(printable(f"wrote {out}"))
