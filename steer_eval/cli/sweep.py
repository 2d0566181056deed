"""`steer-eval sweep`."""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.cli.options import data_option, json_option, run_option, study_argument


@click.command("sweep")
@study_argument
@data_option
@run_option
@json_option
def command(study: str, data: str | None, run: Path | None, json: bool) -> None:
    """Measure a study's cells: perplexity of all, greedy text of those that do not collapse, controls included.

    STUDY is the model repo; sweep_<model>.jsonl goes to the dataset repo. An interrupted sweep is resumed.

    \b
    Example:
      steer-eval sweep artifacts/smollm2-135m-mature-anger
    """
    from steer_eval.cells import plan, wants_text
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.measure import measure
    from steer_eval.produce import LoadedModel, bench, environment_record
    from steer_eval.repository import open_study
    from steer_eval.reproduce import default_run_folder
    from steer_eval.results_files import load_results, sweep_file, write_environments, write_sweep
    from steer_eval.run import opened_run

    repositories = open_study(study, data)
    what, dataset = repositories.study, repositories.data
    published = load_results(what, model_repo=repositories.model.folder, data_repo=dataset.folder)
    summary = []
    records = {}
    with opened_run(run or default_run_folder(repositories, "sweep"), what.text) as journal:
        for name, reference in what.models.items():
            model = LoadedModel(reference, repositories.model.folder)
            cells = plan(what, name)
            place = bench(what, model, published, journal)
            rows = measure(place, cells, [cell for cell in cells if wants_text(what, cell)])
            write_sweep(dataset.folder, name, rows)
            records[name] = environment_record(model)
            texts = sum(len(row.generations) for row in rows)
            summary.append({"file": sweep_file(name), "cells": len(rows), "texts": texts})
        write_environments(dataset.folder, records)
    write_manifest(dataset.folder)
    if json:
        print_json({"sweeps": summary})
    else:
        for entry in summary:
            click.echo(f"{dataset.name}/{entry['file']}  {entry['cells']} cells, {entry['texts']} texts")
