"""`steer-eval sae`: training SAEs and ranking their features."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from steer_eval.cli.options import data_option, json_option, study_argument
from steer_eval.cli.planned import open_planned

if TYPE_CHECKING:
    from steer_eval.sae.plan import SaePlan
    from steer_eval.study import Study


@click.group("sae")
def command() -> None:
    """Train a study's sparse autoencoders, and rank their features by what steering does to them.

    \b
    Examples:
      steer-eval sae train artifacts/smollm2-135m-mature-anger
      steer-eval sae features artifacts/smollm2-135m-mature-anger
    """


@command.command("train")
@study_argument
@data_option
@json_option
def train(study: str, data: str | None, json: bool) -> None:
    """Train the Top-K SAEs that a study plans under `saes:`.

    STUDY is the model repo; SAEs go to its saes/ folder in the layout of SAELens. Activations and checkpoints stay in
    the cache, so an interrupted run goes on where it stopped, and an SAE that is there is not trained again.

    \b
    Example:
      steer-eval sae train artifacts/smollm2-135m-mature-anger
    """
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.formats.saelens import folder_name
    from steer_eval.produce import LoadedModel
    from steer_eval.sae.produce import produce_sae
    from steer_eval.sae.stored import trained_quality

    fix = "add a section `saes:` to study.yaml (docs/study-format.md)"
    repositories = open_planned(study, data, lambda plan: plan.saes, what="SAE", fix=fix)
    plan = repositories.study
    rows = []
    for name in {wanted.model: None for wanted in plan.saes}:
        model = LoadedModel(plan.models[name], repositories.model.folder)
        for wanted in plan.saes:
            if wanted.model == name:
                folders = {"data_folder": repositories.data.folder, "repo": repositories.model.folder}
                sae = produce_sae(wanted, model, **folders, on_note=partial(click.echo, err=True))
                folder = folder_name(name, wanted.layer)
                quality = trained_quality(sae.provenance, folder)
                rows.append({"folder": folder, "features": sae.d_sae, "k": sae.k, **quality})
    write_manifest(repositories.model.folder)
    if json:
        print_json({"saes": rows})
        return
    for row in rows:
        fit = f"FVU {row['held_out_fvu']:.3f} on {row['held_out_tokens']} tokens held out, L0 {row['held_out_l0']:.1f}"
        dead = f"dead {100 * row['dead_share']:.1f} %"
        entropy = f"cross-entropy {row['cross_entropy']:.3f} -> {row['cross_entropy_sae']:.3f} nats"
        click.echo(f"{repositories.model.name}/{row['folder']}  {fit}, {dead}, {entropy}")


@command.command("features")
@study_argument
@data_option
@json_option
def features(study: str, data: str | None, json: bool) -> None:
    """Rank an SAE's features by what steering does to them, on the published texts of a cell.

    STUDY is the model repo, with the SAE that the table is of. No text is generated: the sweep's texts are read again,
    with and without the edit.

    \b
    Example:
      steer-eval sae features artifacts/smollm2-135m-mature-anger
    """
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.produce import LoadedModel
    from steer_eval.results_files import load_results
    from steer_eval.sae.produce_table import produce_feature_table
    from steer_eval.sae.results import features_file

    fix = "add saes.table to study.yaml (docs/study-format.md)"
    repositories = open_planned(study, data, _with_tables, what="feature table", fix=fix)
    plan = repositories.study
    model_repo, data_repo = repositories.model.folder, repositories.data.folder
    published = load_results(plan, model_repo=model_repo, data_repo=data_repo)
    tables = {}
    for wanted in _with_tables(plan):
        model = LoadedModel(plan.models[wanted.model], model_repo)
        tables[features_file(wanted.model, wanted.layer)] = produce_feature_table(
            plan, wanted, model, published, data_folder=data_repo, repo=model_repo
        )
    write_manifest(model_repo)
    if json:
        print_json({"tables": tables})
        return
    for file, table in tables.items():
        found = table["discoveries"]
        click.echo(
            f"{repositories.model.name}/{file}: {found['delta']} of {table['n_features']} features change at a false "
            f"discovery rate of 5 %; on the same text {found['forced_delta']}, and by a random direction there "
            f"{found['random_forced_delta']}"
        )
        for row in table["top_features"]:
            ends = ", ".join(f"{end:+.3f}" for end in row["delta_interval"] or ()) or "no interval"
            click.echo(
                f"  {row['feature_id']:>6}  delta {row['delta']:+.3f} [{ends}]  q {row['delta_q']:.2g}"
                f"  same text {row['forced_delta']:+.3f}  vector alone {row['predicted']:+.3f}"
            )


def _with_tables(study: Study) -> list[SaePlan]:
    """The SAEs of which a feature table is planned."""
    return [wanted for wanted in study.saes if wanted.table]
