"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

study_argument = click.argument("study", metavar="STUDY")
data_option = click.option("--data", metavar="REPO", help="Dataset repo; by default the one that the study names.")
study_option = click.option(
    "--study",
    "study_file",
    metavar="FILE|NAME",
    help="Study file, or the name of one that ships with the package, for a repo that has no study.yaml.",
)
json_option = click.option("--json", "json", is_flag=True, help="Print JSON alone on standard output.")
strict_option = click.option("--strict", is_flag=True, help="Exit with 1 on warnings and unchecked claims too.")
run_option = click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    help="Run directory; by default runs/<study>-<key>. An unfinished run is resumed.",
)
