"""`steer-eval sweep`."""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.cli.options import (
    data_option,
    dtype_option,
    json_option,
    memory_bytes,
    memory_option,
    run_option,
    study_argument,
)


@click.command("sweep")
@study_argument
@data_option
@run_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the sweeps go to, with what they were measured on; by default the dataset repo. A repo of the "
    "Hub is not written to.",
)
@memory_option
@dtype_option
@json_option
def command(
    study: str,
    data: str | None,
    run: Path | None,
    out: Path | None,
    memory: float | None,
    dtype: str | None,
    json: bool,
) -> None:
    """Measure a study's cells: perplexity of all, greedy text of those that do not collapse, controls included.

    STUDY is the model repo, a folder or on the Hub (NAMESPACE/NAME[@REVISION]); sweep_<model>.jsonl goes to the dataset
    repo, or to --out. An interrupted sweep is resumed. In another precision than float32, by --dtype or by the study, a
    sample of cells is measured in float32 as well, and environment.json states how far the two are apart.

    \b
    Examples:
      steer-eval sweep artifacts/smollm2-135m-mature-anger
      steer-eval sweep NAMESPACE/NAME --out again
      steer-eval sweep artifacts/smollm2-135m-mature-anger --dtype bfloat16 --memory 2 --out faster
    """
    from steer_eval.repository import open_study

    # Before the imports that take seconds, so that a study that can't be read is told at once.
    repositories = open_study(study, data)

    from steer_eval.cells import plan, wants_text
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.measure import measure
    from steer_eval.precision import drift
    from steer_eval.produce import LoadedModel, bench, environment_record
    from steer_eval.reproduce import default_run_folder
    from steer_eval.results_files import load_results, sweep_file, write_environments, write_sweep
    from steer_eval.run import opened_run

    what, dataset = repositories.study, repositories.data
    if out is None:
        dataset.check_writable("--out")
    place = out or dataset.folder
    published = load_results(what, model_repo=repositories.model.folder, data_repo=dataset.folder)
    summary = []
    records = {}
    with opened_run(run or default_run_folder(repositories, "sweep"), what.text) as journal:
        for name, reference in what.models.items():
            model = LoadedModel(reference, repositories.model.folder, dtype=dtype)
            cells = plan(what, name)
            ready = bench(what, model, published, journal, memory=memory_bytes(memory))
            rows = measure(ready, cells, [cell for cell in cells if wants_text(what, cell)])
            write_sweep(place, name, rows)
            records[name] = environment_record(model, memory=memory_bytes(memory))
            if model.lm.dtype != "float32":
                exact = LoadedModel(reference, repositories.model.folder, dtype="float32")
                reference_bench = bench(what, exact, published, journal, memory=memory_bytes(memory))
                records[name]["drift"] = drift(rows, reference_bench)
            texts = sum(len(row.generations) for row in rows)
            summary.append({"file": sweep_file(name), "cells": len(rows), "texts": texts})
        write_environments(place, records)
    if out is None:
        write_manifest(place)
    if json:
        print_json({"sweeps": summary})
    else:
        for entry in summary:
            click.echo(f"{out or dataset.name}/{entry['file']}  {entry['cells']} cells, {entry['texts']} texts")
