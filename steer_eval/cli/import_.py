"""`steer-eval import`."""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.cli.options import json_option
from steer_eval.cli.printable import printable
from steer_eval.errors import SteerEvalError


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--base-model", metavar="ID", required=True, help="Hub id of the model that the control vector is of.")
@click.option("--name", metavar="NAME", required=True, help="What files call the model: lower-case letters, digits, _.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Model repo, to whose vectors folder the vectors go.",
)
@click.option(
    "--method",
    metavar="NAME",
    default="unknown",
    show_default=True,
    help="How the directions were found, where the file does not say.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
def command(file: Path, base_model: str, name: str, out: Path, method: str, force: bool, json: bool) -> None:
    """Read a control vector in GGUF, of llama.cpp, repeng and others, into vector files of ours.

    FILE has a tensor direction.N for each layer: what is added to the output of decoder block N, counted from 0. Each
    becomes vectors/<NAME>_L<N>_caa.safetensors, whose provenance names FILE and its SHA-256.

    \b
    Example:
      steer-eval import artifacts/calm.gguf --base-model Qwen/Qwen3-4B --name qwen3_4b --out artifacts/calm
    """
    from steer_eval.cli.output import print_json
    from steer_eval.export.control_vector_import import import_control_vector
    from steer_eval.formats.vector import file_name, parse_file_name, write_vector

    if parse_file_name(file_name(name, 0)) != (name, 0):
        raise SteerEvalError(f"--name {name} can't be part of a file's name", "use lower-case letters, digits and _")
    vectors = import_control_vector(file, model=base_model, method=method)
    paths = {layer: out / file_name(name, layer) for layer in vectors}
    present = [str(path) for path in paths.values() if path.exists()]
    if present and not force:
        raise SteerEvalError(f"{', '.join(present)} is there already", "name another place with --out, or give --force")
    for layer, vector in vectors.items():
        write_vector(paths[layer], vector)
    if json:
        rows = [{"file": str(paths[layer]), "layer": layer, "norm": vector.norm} for layer, vector in vectors.items()]
        print_json({"schema": "steer-eval/import/1", "vectors": rows})
        return
    for layer, vector in vectors.items():
        click.echo(printable(f"{paths[layer]}  norm {vector.norm:.4f}"))
