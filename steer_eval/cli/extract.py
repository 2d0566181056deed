"""`steer-eval extract`."""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.cli.options import data_option, dtype_option, json_option, memory_bytes, memory_option, study_argument


@click.command("extract")
@study_argument
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder whose vectors/ the vectors go to; by default the model repo. A repo of the Hub is not written to.",
)
@memory_option
@dtype_option
@json_option
def command(
    study: str, data: str | None, out: Path | None, memory: float | None, dtype: str | None, json: bool
) -> None:
    """Extract a study's steering vectors from its contrast pairs.

    STUDY is the model repo, a folder or on the Hub (NAMESPACE/NAME[@REVISION]); vectors go to the vectors/ folder of
    it, or of --out, as safetensors with their provenance. In another precision than float32, by --dtype or by the
    study, a sample of pairs is read in float32 as well, and the provenance states how far the two are apart.

    \b
    Examples:
      steer-eval extract artifacts/smollm2-135m-mature-anger
      steer-eval extract NAMESPACE/NAME --out again
    """
    from steer_eval.repository import open_study

    # Before the imports that take seconds, so that a study that can't be read is told at once.
    repositories = open_study(study, data)

    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.formats.vector import file_name
    from steer_eval.precision import DRIFT, state_vector_drift, vector_drift
    from steer_eval.produce import LoadedModel, produce_vectors
    from steer_eval.results_files import read_pairs

    if out is None:
        repositories.model.check_writable("--out")
    place = out or repositories.model.folder
    plan = repositories.study
    pairs = read_pairs(repositories.data.folder, plan)
    rows = []
    for name, reference in plan.models.items():
        model = LoadedModel(reference, repositories.model.folder, dtype=dtype)
        layers = plan.vector_layers(name)
        vectors = produce_vectors(plan, model, pairs, layers, place, memory=memory_bytes(memory))
        unstated = [layer for layer, vector in vectors.items() if DRIFT not in vector.provenance]
        if model.lm.dtype != "float32" and unstated:
            exact = LoadedModel(reference, repositories.model.folder, dtype="float32")
            measured = vector_drift(model.lm, exact.lm, pairs, unstated, memory=memory_bytes(memory))
            state_vector_drift(place, name, vectors, measured)
        rows += [{"file": file_name(name, layer), "norm": vectors[layer].norm} for layer in sorted(vectors)]
    if out is None:
        write_manifest(place)
    if json:
        print_json({"vectors": rows})
    else:
        for row in rows:
            click.echo(f"{out or repositories.model.name}/{row['file']}  norm {row['norm']:.4f}")
