"""`steer-eval transfer`: carrying steering vectors from one model or layer to another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from steer_eval.cli.options import data_option, json_option, memory_bytes, memory_option, study_argument
from steer_eval.cli.planned import open_planned

if TYPE_CHECKING:
    from steer_eval.produce import LoadedModel
    from steer_eval.repository import StudyRepositories
    from steer_eval.transfer.plan import TransferPlan


@click.group("transfer")
def command() -> None:
    """Carry a study's steering vectors from one model or layer to another, and measure how far that can be believed.

    \b
    Examples:
      steer-eval transfer fit artifacts/smollm2-135m-mature-anger
      steer-eval transfer diagnose artifacts/smollm2-135m-mature-anger
      steer-eval transfer apply artifacts/smollm2-135m-mature-anger
    """


@command.command("fit")
@study_argument
@data_option
@memory_option
@json_option
def fit(study: str, data: str | None, memory: float | None, json: bool) -> None:
    """Fit the maps of the transfers that a study plans under `transfers:`.

    STUDY is the model repo; maps go to its transfer/ folder as safetensors, with their means and provenance. Maps that
    are there under the same provenance are not fitted again.

    \b
    Example:
      steer-eval transfer fit artifacts/smollm2-135m-mature-anger
    """
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.transfer.produce import produce_map

    repositories = _planned(study, data)
    rows: list[dict[str, Any]] = []
    for plan, models in _loaded(repositories):
        folders = {"data_folder": repositories.data.folder, "repo": repositories.model.folder}
        maps = produce_map(plan, models, **folders, memory=memory_bytes(memory))
        scale = maps.centring.scale if maps.centring else None
        recorded = {"rows": int(maps.provenance["n_rows"]), "texts": int(maps.provenance["n_texts"])}
        rows.append({"file": plan.map_file, "protocol": plan.protocol, **recorded, "alpha": maps.alpha, "scale": scale})
    write_manifest(repositories.model.folder)
    if json:
        print_json({"maps": rows})
        return
    for row in rows:
        fitted = f"{row['rows']} rows of {row['texts']} texts, alpha {row['alpha']:g}, scale {row['scale']:.3f}"
        click.echo(f"{repositories.model.name}/{row['file']}  {fitted}")


@command.command("diagnose")
@study_argument
@data_option
@memory_option
@json_option
def diagnose(study: str, data: str | None, memory: float | None, json: bool) -> None:
    """Measure each transfer on what its maps were not fitted on, every number beside its null.

    STUDY is the model repo; results go to its transfer/ folder as JSON. Beside the planned protocol, the plain one is
    measured: 30 sentences, a fixed penalty, a rotation without centring. Maps are fitted again for every draw of a
    null, which takes minutes; `draws` in the study says how many there are.

    \b
    Example:
      steer-eval transfer diagnose artifacts/smollm2-135m-mature-anger
    """
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.results_files import read_pairs
    from steer_eval.transfer.diagnose import produce_diagnostics

    repositories = _planned(study, data)
    pairs = read_pairs(repositories.data.folder, repositories.study)
    found = {}
    for plan, models in _loaded(repositories):
        folders = {"data_folder": repositories.data.folder, "repo": repositories.model.folder}
        document = produce_diagnostics(plan, models, pairs, **folders, memory=memory_bytes(memory))
        found[plan.diagnostics_file] = document
    write_manifest(repositories.model.folder)
    if json:
        print_json({"diagnostics": found})
        return
    for file, document in found.items():
        click.echo(f"{repositories.model.name}/{file}")
        for name, measured in document["protocols"].items():
            click.echo(f"  {name}: {measured['n_rows']} rows of {measured['n_texts']} texts")
            for title, key in (("debiased CKA", "debiased_cka"), ("SVCCA", "svcca")):
                click.echo(f"    {title:26} {_shown(measured[key])}")
            for kind, fitted in measured["maps"].items():
                for title, key in (
                    ("held-out R2", "held_out_r2"),
                    ("cosine", "cosine_to_native"),
                    ("retrieval", "retrieval"),
                ):
                    click.echo(f"    {kind + ' ' + title:26} {_shown(fitted[key])}")


@command.command("apply")
@study_argument
@data_option
@json_option
def apply(study: str, data: str | None, json: bool) -> None:
    """Carry the published vectors with the published maps.

    STUDY is the model repo, with vectors and maps. All kinds of a transfer go to one file in transfer/, beside the
    native vector, and each to vectors/transferred/, as a steering vector of the target with the norm of the native one.
    No model is loaded.

    \b
    Example:
      steer-eval transfer apply artifacts/smollm2-135m-mature-anger
    """
    from steer_eval.cli.output import print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.results_files import load_results
    from steer_eval.transfer.produce import produce_carried

    repositories = _planned(study, data)
    place = repositories.model.folder
    published = load_results(repositories.study, model_repo=place, data_repo=repositories.data.folder)
    rows = []
    for plan in repositories.study.transfers:
        for kind, vector in produce_carried(plan, published, repo=place).items():
            by_itself = float(vector.provenance["carried_norm"])
            rows.append({"file": plan.vector_file(kind), "kind": kind, "norm": vector.norm, "carried_norm": by_itself})
    write_manifest(place)
    if json:
        print_json({"vectors": rows})
        return
    for row in rows:
        norms = f"norm {row['norm']:.4f}, as carried {row['carried_norm']:.4f}"
        click.echo(f"{repositories.model.name}/{row['file']}  {norms}")


def _planned(study: str, data: str | None) -> StudyRepositories:
    """A study that plans a transfer, in a folder that can be written to."""
    fix = "add a section `transfers:` to study.yaml (docs/methods.md)"
    return open_planned(study, data, lambda plan: plan.transfers, what="transfer", fix=fix)


def _loaded(repositories: StudyRepositories) -> Iterator[tuple[TransferPlan, dict[str, LoadedModel]]]:
    """Each plan with the models of its ends; a model stays loaded as long as the next plan needs it."""
    from steer_eval.produce import LoadedModel

    models: dict[str, LoadedModel] = {}
    for plan in repositories.study.transfers:
        names = {plan.source.model, plan.target.model}
        models = {name: model for name, model in models.items() if name in names}
        for name in sorted(names - models.keys()):
            models[name] = LoadedModel(repositories.study.models[name], repositories.model.folder)
        yield plan, models


def _shown(tested: dict[str, float]) -> str:
    return f"{tested['value']:+.3f}  null 95 % {tested['null_95']:+.3f}, p {tested['p']:.3f}"
