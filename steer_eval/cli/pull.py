"""`steer-eval pull`."""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.cli.options import data_option, json_option


@click.command("pull")
@click.argument("repo", metavar="REPO")
@data_option
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder that the repos' folders go into; by default the working folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that changed both here and on the Hub.")
@json_option
def command(repo: str, data: str | None, to: Path, overwrite: bool, json: bool) -> None:
    """Bring a study from the Hub here, as two plain folders to edit, validate and publish again.

    REPO is NAMESPACE/NAME[@REVISION], hf://..., or the repo's URL; its dataset repo comes with it, at the commit that
    it pins. What is here already is not fetched again. Files that changed here are kept; if they changed on the Hub as
    well, nothing is written and they are named.

    \b
    Examples:
      steer-eval pull NAMESPACE/NAME
      steer-eval pull NAMESPACE/NAME@v1 --to studies
    """
    from steer_eval.cli.output import print_json
    from steer_eval.cli.printable import printable
    from steer_eval.pull import pull, summary

    plans = pull(repo, data, to, overwrite=overwrite)
    if json:
        print_json(summary(plans))
        return
    for each in plans:
        counts = ((each.write, "written"), (each.remove, "removed"), (each.unchanged, "unchanged"))
        said = ", ".join(f"{len(paths)} {word}" for paths, word in counts if paths) or "no files"
        click.echo(
            printable(f"{each.folder}: {each.origin.kind} repo {each.origin.repo}@{each.origin.revision}, {said}")
        )
        for path in each.kept:
            click.echo(printable(f"  kept as it was changed here: {path}"))
