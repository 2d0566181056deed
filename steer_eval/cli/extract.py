"""`steer-eval extract`."""

from __future__ import annotations

import click

from steer_eval.cli.options import data_option, json_option, study_argument


@click.command("extract")
@study_argument
@data_option
@json_option
def command(study: str, data: str | None, json: bool) -> None:
    """Extract a study's steering vectors from its contrast pairs.

    STUDY is the model repo; vectors go to its vectors/ folder as safetensors with their provenance.

    \b
    Example:
      steer-eval extract artifacts/smollm2-135m-mature-anger
    """
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.formats.vector import file_name
    from steer_eval.produce import LoadedModel, produce_vectors
    from steer_eval.repository import open_study
    from steer_eval.results_files import read_pairs

    repositories = open_study(study, data)
    plan = repositories.study
    pairs = read_pairs(repositories.data.folder, plan)
    rows = []
    for name, reference in plan.models.items():
        model = LoadedModel(reference, repositories.model.folder)
        vectors = produce_vectors(plan, model, pairs, plan.vector_layers(name), repositories.model.folder)
        rows += [{"file": file_name(name, layer), "norm": vectors[layer].norm} for layer in sorted(vectors)]
    write_manifest(repositories.model.folder)
    if json:
        print_json({"vectors": rows})
    else:
        for row in rows:
            click.echo(f"{repositories.model.name}/{row['file']}  norm {row['norm']:.4f}")
