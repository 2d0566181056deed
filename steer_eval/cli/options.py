"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

_GIGABYTE = 1e9


def tell_which(_ctx: click.Context, _parameter: click.Parameter, target: str | None) -> str | None:
    """Say that a folder is read where its name is that of a repo on the Hub as well."""
    if target is not None:
        from steer_eval.repository import shadows

        address = shadows(target)
        if address is not None:
            click.echo(f"note: the folder {target} is read; the repo of the Hub is {address.uri}", err=True)
    return target


class _Gigabytes(click.FloatRange):
    """A finite number of gigabytes, larger than 0."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; what is no number of bytes either is a usage error."""
        gigabytes: float = super().convert(value, param, ctx)
        if not math.isfinite(gigabytes * _GIGABYTE):
            self.fail(f"{value} is no amount of memory; give a number of gigabytes, for example 4.", param, ctx)
        return gigabytes


study_argument = click.argument("study", metavar="STUDY", callback=tell_which)
data_option = click.option(
    "--data", metavar="REPO", callback=tell_which, help="Dataset repo; by default the one that the study names."
)
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
memory_option = click.option(
    "--memory",
    type=_Gigabytes(),
    metavar="GB",
    help="Memory for batches, beside the model's weights; by default half of what is free. It changes the speed, not "
    "the results.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Precision to compute in; by default the study's. bfloat16 is faster and not exact.",
)


def memory_bytes(gigabytes: float | None) -> int | None:
    """What `--memory` means in bytes."""
    return None if gigabytes is None else max(1, int(gigabytes * _GIGABYTE))
