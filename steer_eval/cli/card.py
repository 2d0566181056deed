"""`steer-eval card`."""

from __future__ import annotations

import click

from steer_eval.cli.options import data_option, json_option, study_argument


@click.command("card")
@study_argument
@data_option
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a card differs from the data.")
@json_option
@click.pass_context
def command(ctx: click.Context, study: str, data: str | None, check: bool, json: bool) -> None:
    """Render the cards, figures and manifests of a study from its data.

    STUDY is the model repo; its dataset repo is found beside it. Both are written.

    \b
    Examples:
      steer-eval card artifacts/smollm2-135m-mature-anger
      steer-eval card artifacts/smollm2-135m-mature-anger --check
    """
    from steer_eval.cards import check_cards, render_data_repo, render_model_repo, write_rendered
    from steer_eval.cli.output import print_findings, print_json
    from steer_eval.formats.manifest import write_manifest
    from steer_eval.repository import open_study
    from steer_eval.results_files import load_results

    repositories = open_study(study, data)
    model, dataset = repositories.model, repositories.data
    results = load_results(repositories.study, model_repo=model.folder, data_repo=dataset.folder)
    if check:
        findings = check_cards(repositories.study, results, model=model, data=dataset)
        if json:
            print_json({"findings": [finding.to_json() for finding in findings]})
        elif findings:
            print_findings(findings)
        else:
            click.echo("both cards say what the data gives")
        ctx.exit(int(bool(findings)))
    written = []
    for repo, rendered in (
        (model, render_model_repo(repositories.study, results)),
        (dataset, render_data_repo(repositories.study, results)),
    ):
        written += [f"{repo.name}/{path}" for path in write_rendered(repo.folder, rendered)]
        write_manifest(repo.folder)
    if json:
        print_json({"written": written})
    else:
        click.echo("\n".join(f"wrote {path}" for path in written) or "both cards are up to date")
