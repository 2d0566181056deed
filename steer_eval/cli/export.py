"""`steer-eval export`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from steer_eval.cli.options import json_option
from steer_eval.cli.printable import printable
from steer_eval.errors import SteerEvalError
from steer_eval.export import FORMATS


@click.command("export")
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...")
@click.option("--to", "target", type=click.Choice(list(FORMATS)), required=True, help="The other tool, or its format.")
@click.option(
    "--out",
    metavar="PATH",
    help="Where to write: the file, or the folder if there are several; by default named after the model, here.",
)
@click.option("--coef", type=float, default=1.0, show_default=True, help="Multiple of the vectors that is to be added.")
@click.option("--model", metavar="NAME", help="What the files call the model, if there are vectors of several.")
@click.option(
    "--layer",
    type=click.IntRange(min=0),
    multiple=True,
    help="Layer to export, from 0; by default all. Can be repeated.",
)
@click.option(
    "--model-type", metavar="TYPE", help="model_type of the model's config.json; by default fetched from the Hub."
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
def command(
    artifacts: tuple[str, ...],
    target: str,
    out: str | None,
    coef: float,
    model: str | None,
    layer: tuple[int, ...],
    model_type: str | None,
    force: bool,
    json: bool,
) -> None:
    """Write vectors or an SAE as another tool loads them, and print how it does.

    For saelens, sparsify and sae-both (a folder that both load), ARTIFACT is the SAE: a SAELens folder or a .pt file.
    For the others it is a vector file, a folder of vector files, or a model repo (a folder, or a Hub repo as
    NAMESPACE/NAME[@REVISION]). Files and folders can be on the Hub as well: hf://NAMESPACE/NAME[@REVISION]/PATH. Other
    tools add all vectors of a file at once; a study steers one layer at a time, which --layer exports. Values are
    exported as they are: --coef goes into the file for lm-eval, and into the printed lines for the others.

    \b
    Examples:
      steer-eval export artifacts/smollm2-135m-mature-anger --to llama-cpp --layer 18 --coef 2
      steer-eval export smollm2_L18_caa.safetensors --to steering-vectors
    """
    from steer_eval.cli.output import print_json
    from steer_eval.export import load_format
    from steer_eval.export.format import Options
    from steer_eval.export.model_type import model_type_of
    from steer_eval.export.source import open_sae, open_vectors
    from steer_eval.formats.atomic import write_bytes

    if not math.isfinite(coef):
        raise click.UsageError(f"--coef is a number, not {coef}")
    form = load_format(target)
    artifact: Any = open_vectors(artifacts, model, layer) if form.takes == "vectors" else open_sae(artifacts)
    if form.needs_model_type and model_type is None:
        model_type = model_type_of(artifact.model)
    options = Options(coef, model_type or "")
    files = form.render(artifact, options)
    paths = _paths(files, out)
    present = [str(path) for path in paths if path.exists()]
    if present and not force:
        raise SteerEvalError(f"{', '.join(present)} is there already", "name another place with --out, or give --force")
    for path, content in zip(paths, files.values(), strict=True):
        write_bytes(path, content)
    usage = form.usage(paths, artifact, options)
    if json:
        written = [{"path": str(path), "bytes": len(files[name])} for path, name in zip(paths, files, strict=True)]
        print_json({"schema": "steer-eval/export/1", "format": target, "files": written, "usage": usage})
        return
    for path in paths:
        click.echo(printable(f"wrote {path}"))
    click.echo(printable(f"\n{usage}"))


def _paths(files: Iterable[str], out: str | None) -> list[Path]:
    """Where the files go: `--out` is the one file's path unless it is or looks like a folder."""
    names = list(files)
    if out is not None and names == [Path(names[0]).name] and not (out.endswith("/") or Path(out).is_dir()):
        return [Path(out)]
    return [Path(out or ".") / name for name in names]
