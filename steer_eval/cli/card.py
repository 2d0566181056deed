"""`steer-eval card`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from steer_eval.cli.options import data_option, json_option, study_argument

if TYPE_CHECKING:
    from steer_eval.findings import Finding
    from steer_eval.legacy.identity import Asked
    from steer_eval.repository import Repositories, StudyRepositories


@click.command("card")
@study_argument
@data_option
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a card differs from the data.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Without study.yaml: write into model/ and dataset/ of this folder instead of into the repos.",
)
@click.option("--force", is_flag=True, help="Without study.yaml: also replace a card that was written by hand.")
@click.option("--repo-id", metavar="NS/NAME", help="Without study.yaml: Hub id of the model repo.")
@click.option("--data-id", metavar="NS/NAME", help="Without study.yaml: Hub id of the dataset repo.")
@click.option("--license", "licence", metavar="ID", help="Without study.yaml: licence to state in both cards.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    study: str,
    data: str | None,
    check: bool,
    out: Path | None,
    force: bool,
    repo_id: str | None,
    data_id: str | None,
    licence: str | None,
    json: bool,
) -> None:
    """Render the cards, figures and manifests of a study from its data.

    STUDY is the model repo; its dataset repo is found beside it. Both are written. Of a repo without study.yaml the
    cards are computed from its files alone; --check then looks up every number of the present cards in the data.

    \b
    Examples:
      steer-eval card artifacts/smollm2-135m-mature-anger
      steer-eval card artifacts/smollm2-135m-mature-anger --check
      steer-eval card old-study --data old-study-data --out cards
    """
    from steer_eval.legacy.identity import Asked
    from steer_eval.repository import StudyRepositories, open_target

    repositories = open_target(study, data)
    if not isinstance(repositories, StudyRepositories):
        asked = Asked(repo_id, data_id, licence)
        _without_study(ctx, repositories, asked, check=check, out=out, force=force, json=json)
        return
    for option, given in (
        ("--out", out),
        ("--force", force),
        ("--repo-id", repo_id),
        ("--data-id", data_id),
        ("--license", licence),
    ):
        if given:
            raise click.UsageError(f"{option} is for repos without study.yaml; {study} has one.", ctx)
    _of_study(ctx, repositories, check=check, json=json)


def _of_study(ctx: click.Context, repositories: StudyRepositories, *, check: bool, json: bool) -> None:
    from steer_eval.cards import check_cards, present_pin, render_data_repo, render_model_repo, write_rendered
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.results_files import load_results

    model, dataset = repositories.model, repositories.data
    results = load_results(repositories.study, model_repo=model.folder, data_repo=dataset.folder)
    if check:
        findings = check_cards(repositories.study, results, model=model, data=dataset)
        _show_findings(findings, "both cards say what the data gives", json=json)
        ctx.exit(int(bool(findings)))
    for repo in (model, dataset):
        repo.check_writable()
    written = []
    for repo, rendered in (
        (model, render_model_repo(repositories.study, results, present_pin(repositories.study, model.folder))),
        (dataset, render_data_repo(repositories.study, results)),
    ):
        written += [f"{repo.name}/{path}" for path in write_rendered(repo.folder, rendered)]
        write_manifest(repo.folder)
    _show_written(written, json=json)


def _without_study(
    ctx: click.Context,
    repositories: Repositories,
    asked: Asked,
    *,
    check: bool,
    out: Path | None,
    force: bool,
    json: bool,
) -> None:
    from steer_eval.findings import worst
    from steer_eval.legacy_cards import check_legacy, open_legacy, write_legacy

    study = open_legacy(repositories, asked)
    if check:
        findings = check_legacy(repositories, study)
        _show_findings(findings, "the data contradicts no number of the cards", json=json)
        ctx.exit(int(worst(findings) == "error"))
    _show_written(write_legacy(repositories, study, out=out, force=force), json=json)


def _show_findings(findings: list[Finding], none: str, *, json: bool) -> None:
    from steer_eval.cli.output import print_findings, print_json

    if json:
        print_json({"findings": [finding.to_json() for finding in findings]})
    elif findings:
        print_findings(findings)
    else:
        click.echo(none)


def _show_written(written: list[str], *, json: bool) -> None:
    from steer_eval.cli.output import print_json

    if json:
        print_json({"written": written})
    else:
        click.echo("\n".join(f"wrote {path}" for path in written) or "both cards are up to date")
