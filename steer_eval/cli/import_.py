"""`steer-eval import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from steer_eval.cli.options import json_option
from steer_eval.cli.printable import printable
from steer_eval.errors import SteerEvalError


@click.command("import")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", required=True, help="Short name of the model in the repo, as in study.yaml.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The model repo that takes it."
)
@click.option(
    "--base-model",
    metavar="ID",
    help="Of a control vector: Hub id of its model; by default the one that the file names, if it does.",
)
@click.option(
    "--method",
    metavar="NAME",
    default="unknown",
    show_default=True,
    help="Of a control vector: how the directions were found, where the file does not say.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
def command(artifact: Path, name: str, out: Path, base_model: str | None, method: str, force: bool, json: bool) -> None:
    """Take a control vector or an SAE of another tool into a model repo.

    ARTIFACT is a control vector in GGUF (of llama.cpp, repeng and others), or a SAELens folder. Of a control vector,
    the tensor direction.N is what is added to the output of decoder block N, counted from 0, and becomes
    vectors/<NAME>_L<N>_caa.safetensors. What is written names its source by SHA-256.

    \b
    Example:
      steer-eval import artifacts/calm.gguf --base-model Qwen/Qwen3-4B --name qwen3_4b --out artifacts/calm
    """
    from steer_eval.cli.output import print_json

    rows = (
        _sae(artifact, name, out, force)
        if artifact.is_dir()
        else _vectors(artifact, name, out, base_model, method, force)
    )
    if json:
        print_json({"schema": "steer-eval/import/1", "files": rows})
        return
    for row in rows:
        click.echo(printable(f"{row['path']}  norm {row['norm']:.4f}" if "norm" in row else row["path"]))


def _vectors(file: Path, name: str, out: Path, model: str | None, method: str, force: bool) -> list[dict[str, Any]]:
    from steer_eval.export.control_vector_import import import_control_vector
    from steer_eval.formats.vector import file_name, parse_file_name, write_vector

    if parse_file_name(file_name(name, 0)) != (name, 0):
        raise SteerEvalError(f"--name {name} can't be part of a file's name", "use lower-case letters, digits and _")
    vectors = import_control_vector(file, model=model, method=method)
    paths = {layer: out / file_name(name, layer) for layer in vectors}
    _refuse([path for path in paths.values() if path.exists()], force)
    for layer, vector in vectors.items():
        write_vector(paths[layer], vector)
    return [{"path": str(paths[layer]), "layer": layer, "norm": vector.norm} for layer, vector in vectors.items()]


def _sae(folder: Path, name: str, out: Path, force: bool) -> list[dict[str, Any]]:
    from steer_eval.export.saelens import import_saelens
    from steer_eval.formats.saelens import folder_name, read_saelens

    layer = read_saelens(folder).layer
    target = out / folder_name(name, layer)
    _refuse([target] if target.exists() else [], force)
    return [{"path": str(import_saelens(folder, out, name)), "layer": layer}]


def _refuse(present: list[Path], force: bool) -> None:
    if present and not force:
        names = ", ".join(str(path) for path in present)
        raise SteerEvalError(f"{names} is there already", "name another repo with --out, or give --force")
