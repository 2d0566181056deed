"""`steer-eval compare`."""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.cli.options import (
    data_option,
    json_option,
    memory_bytes,
    memory_option,
    run_option,
    study_argument,
)


@click.command("compare")
@study_argument
@data_option
@click.option("--model", metavar="NAME", help="Model to compare methods on; by default all that the study plans.")
@run_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the tables go to, with what they were measured on; by default the dataset repo. A repo of the "
    "Hub is not written to.",
)
@memory_option
@json_option
def command(
    study: str,
    data: str | None,
    model: str | None,
    run: Path | None,
    out: Path | None,
    memory: float | None,
    json: bool,
) -> None:
    """Compare ways to steer a model, each beside its random control, on the same prompts.

    STUDY is the model repo, a folder or on the Hub (NAMESPACE/NAME[@REVISION]); its study.yaml plans the comparison
    under `comparisons:`. Vectors, SAEs and carried vectors are taken as published. comparison_<model>.jsonl goes to
    the dataset repo, or to --out. An interrupted comparison is resumed. Its texts are scored by `steer-eval judge`.

    \b
    Examples:
      steer-eval compare artifacts/smollm2-135m-mature-anger
      steer-eval compare NAMESPACE/NAME --model small --out again
    """
    from steer_eval.cli.compare_output import print_comparison
    from steer_eval.cli.output import print_json
    from steer_eval.comparison.produce import produce_comparison
    from steer_eval.errors import SteerEvalError
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.hub.selection import everything
    from steer_eval.repository import open_study
    from steer_eval.reproduce import default_run_folder
    from steer_eval.results_files import comparison_file
    from steer_eval.run import opened_run

    repositories = open_study(study, data, everything)
    what, dataset = repositories.study, repositories.data
    if model is not None and model not in what.models:
        raise SteerEvalError(f"{study} has no model {model}", f"its models are {', '.join(sorted(what.models))}")
    planned = [plan.model for plan in what.comparisons if model in (None, plan.model)]
    if not planned:
        of_model = "" if model is None else f" on {model}"
        raise SteerEvalError(
            f"{study} plans no comparison of methods{of_model}",
            "add a section `comparisons:` to study.yaml (docs/study-format.md)",
        )
    if out is None:
        dataset.check_writable("--out")
    place = out or dataset.folder
    tables = {}
    with opened_run(run or default_run_folder(repositories, "compare"), what.text) as journal:
        for name in planned:
            tables[name] = produce_comparison(repositories, name, journal, out=place, memory=memory_bytes(memory))
    if out is None:
        write_manifest(place)
    if json:
        print_json(
            {
                "comparisons": [
                    {"model": name, "file": comparison_file(name), "methods": [line.to_json() for line in lines]}
                    for name, lines in tables.items()
                ]
            }
        )
        return
    for name, lines in tables.items():
        print_comparison(f"{out or dataset.name}/{comparison_file(name)}", lines)
