"""`steer-eval publish`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steer_eval.cli.options import json_option
from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steer_eval.findings import Finding, Severity
    from steer_eval.publish.plan import Action, Change, RepoPlan
    from steer_eval.publish.publication import Plan, Publication, Wishes
    from steer_eval.publish.stage import Staged

_SIGNS: dict[Action, str] = {"added": "+", "changed": "~", "deleted": "-", "kept": "?"}
_WORDS = {
    "refused": "Nothing was pushed: mend what is found above, and run it again.",
    "planned": "Nothing was pushed: this was --dry-run.",
    "unchanged": "Nothing to do: the Hub has all of it.",
}


@click.command("publish")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="NS/NAME", help="Hub id of the model repo.")
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of the dataset repo; by default the one that the study names.",
)
@click.option("--data-to", metavar="NS/NAME", help="Hub id of the dataset repo; by default that of --to and `-data`.")
@click.option("--license", "licence", metavar="ID", help="Without study.yaml: licence to state in both cards.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Files that are not published.")
@click.option(
    "--allow",
    multiple=True,
    metavar="PATTERN",
    help="Files that are published though they are of an unknown kind, very large, or name a home folder. Files with "
    "tokens or keys never are.",
)
@click.option("--delete", multiple=True, metavar="PATTERN", help="Files on the Hub to delete, whoever put them there.")
@click.option("--dry-run", is_flag=True, help="Check and plan; push nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before pushing.")
@click.option("--create-pr", is_flag=True, help="Push to pull requests; the model's pins the commit in the data's.")
@click.option("--private", is_flag=True, help="Create the repos as private ones.")
@click.option("--tag", metavar="NAME", help="Tag of both commits; one that is there on another commit is not moved.")
@click.option("--collection", metavar="TITLE|SLUG", help="Collection that both repos are added to.")
@click.option("--message", metavar="TEXT", help="Title of the commits.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path,
    to: str,
    data: str | None,
    data_to: str | None,
    licence: str | None,
    exclude: tuple[str, ...],
    allow: tuple[str, ...],
    delete: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    create_pr: bool,
    private: bool,
    tag: str | None,
    collection: str | None,
    message: str | None,
    json: bool,
) -> None:
    """Check a study, and push it to the Hub: the dataset repo, then the model repo that pins its commit.

    DIR is the folder of the model repo, with a study.yaml or without, and is never changed: legacy files are converted,
    cards, config.json and manifests rendered, and `repo:` and `data:` of the study set in a copy. Errors, secrets and
    files that do not belong are findings, and nothing is pushed. What would change on the Hub is shown and asked about.
    Each repo changes by one commit, and by none if there is nothing to change; if somebody else pushed in between, it
    is refused. Then it is all downloaded again and checked.

    \b
    Examples:
      steer-eval publish artifacts/smollm2-135m-mature-anger --to NAMESPACE/smollm2-135m-mature-anger --dry-run
      steer-eval publish my-study --to NAMESPACE/my-study --tag v1.0 --yes
      steer-eval publish my-study --to lab/my-study --create-pr --exclude 'notes/*'
    """
    if create_pr and tag:
        raise click.UsageError("--tag is for published commits; with --create-pr there is none yet.", ctx)
    data_to = data_to or f"{to}-data"
    for option, value in (("--to", to), ("--data-to", data_to)):
        _check_id(ctx, option, value)

    from steer_eval import __version__
    from steer_eval.findings import worst
    from steer_eval.publish.belongs import Choice
    from steer_eval.publish.origin import behind, remember
    from steer_eval.publish.publication import Wishes, make_plan
    from steer_eval.publish.scratch import scratch_folder
    from steer_eval.publish.stage import stage
    from steer_eval.publish.unchecked import is_unchecked
    from steer_eval.repository import Repositories, open_target

    title = message or f"Publish {to.rpartition('/')[2]} with steer-eval {__version__}"
    wishes = Wishes(title, create_pr, private, tag, collection, delete)
    _check_folder(folder)
    target = open_target(str(folder), data)
    if licence and not isinstance(target, Repositories):
        raise click.UsageError(f"--license is for repos without study.yaml; {folder} has one.", ctx)
    with scratch_folder() as scratch:
        staged = stage(target, scratch, to=to, data_to=data_to, licence=licence, choice=Choice(exclude, allow))
        findings = list(staged.findings)
        if worst(findings) == "error":
            _end(ctx, "refused", folder, findings, json=json)
        plan = make_plan(staged, wishes)
        findings += plan.findings
        folders = [(plan.model, target.model.folder), *([(plan.data, target.data.folder)] if target.data else [])]
        # A pull request is looked at before it changes anything, and what was pushed can be of a run that was killed.
        severity: Severity = "warning" if create_pr or is_unchecked(to, data_to) else "error"
        for repo, place in folders:
            findings += behind(repo, place, severity)
        if worst(findings) == "error":
            _end(ctx, "refused", folder, findings, plan, json=json)
        if dry_run:
            _end(ctx, "planned", folder, findings, plan, json=json)
        if not plan.is_to_be_checked and not collection:
            _end(ctx, "unchanged", folder, findings, plan, json=json)
        if not json:
            _show(findings, plan)
        published = _publish(ctx, plan, staged, wishes, yes=yes)
        for repo, place in folders:
            pushed = published.model if repo.kind == "model" else published.data
            if not pushed.request:
                remember(repo, place, staged.model if repo.kind == "model" else staged.data, pushed.commit)
    _finish(ctx, published, folder, findings, json=json)


def _check_folder(folder: Path) -> None:
    from steer_eval.errors import SteerEvalError
    from steer_eval.hub.address import parse_address

    if folder.is_dir():
        return
    text = str(folder)
    if parse_address(text) is not None:
        message = f"{text} is no folder here, and what is published comes from folders"
        raise SteerEvalError(message, f"bring it here first, if it is a repo of the Hub: steer-eval pull {text}")
    raise SteerEvalError(f"there is no folder {text}", "give the folder of the model repo")


def _check_id(ctx: click.Context, option: str, value: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise click.BadParameter(str(error), ctx, param_hint=option) from None
    if value.count("/") != 1:
        raise click.BadParameter(f"{value} has no namespace; give NAMESPACE/NAME.", ctx, param_hint=option)


def _publish(ctx: click.Context, plan: Plan, staged: Staged, wishes: Wishes, *, yes: bool) -> Publication:
    """Ask, and push."""
    from steer_eval.errors import SteerEvalError
    from steer_eval.publish.publication import carry_out
    from steer_eval.publish.push import check_rights

    for repo in plan.repos:
        if repo.changes_files or repo.needs_tag:
            check_rights(repo, create_pr=wishes.create_pr)
    if not yes:
        if not sys.stdin.isatty():
            raise SteerEvalError("there is nobody to ask, so nothing was pushed", "look at the plan, and give --yes")
        where = "pull requests to" if wishes.create_pr else ""
        names = " and ".join(repo.repo for repo in plan.repos)
        if not click.confirm(f"Push to {where} {names}?".replace("  ", " "), err=True):
            click.echo("Nothing was pushed.", err=True)
            ctx.exit(2)
    return carry_out(plan, staged, wishes, on_step=lambda step: click.echo(printable(step), err=True))


def _end(
    ctx: click.Context,
    outcome: str,
    folder: Path,
    findings: Sequence[Finding],
    plan: Plan | None = None,
    *,
    json: bool,
) -> None:
    """Say why nothing is pushed, and exit."""
    if json:
        _print_json(outcome, folder, findings, plan)
    else:
        _show(findings, plan)
        click.echo(_WORDS[outcome])
    ctx.exit(int(outcome == "refused"))


def _finish(
    ctx: click.Context,
    published: Publication,
    folder: Path,
    findings: Sequence[Finding],
    *,
    json: bool,
) -> None:
    """Say what was published and what came of the check, and exit."""
    from steer_eval.cli.output import counted, print_findings
    from steer_eval.findings import worst

    verification = published.verification
    errors = [each for each in verification.findings if each.severity == "error"] if verification else []
    outcome = "proposed" if published.model.request or published.data.request else "published"
    if json:
        _print_json(outcome, folder, findings, published.plan, published)
    else:
        if errors:
            print_findings(errors)
        for repo, pushed in zip(published.plan.repos, (published.data, published.model), strict=True):
            tagged = f", tag {repo.tag}" if repo.tag and not errors else ""
            click.echo(f"{repo.kind} {repo.repo}: {pushed.request or pushed.commit}{tagged}")
        if published.data.request and published.model.request:
            click.echo(f"The model's request pins {published.data.commit}, of the data's: merge the data's first.")
        if verification:
            checked = counted(verification.findings, verification.files)
            click.echo(f"downloaded again: {checked}")
        if published.collection:
            click.echo(f"collection {published.collection}")
    ctx.exit(int(worst(errors) == "error"))


def _show(findings: Sequence[Finding], plan: Plan | None) -> None:
    """The findings, and the plan as a difference to the Hub."""
    from steer_eval.cli.output import print_findings

    if findings:
        print_findings(list(findings))
    for repo in plan.repos if plan else ():
        click.echo(printable("\n".join(_lines(repo))))


def _lines(repo: RepoPlan) -> list[str]:
    from steer_eval.publish.belongs import HUBS_OWN
    from steer_eval.publish.plan import bytes_said

    state = "new, private" if repo.is_new and repo.private else "new" if repo.is_new else f"at {repo.remote.head}"
    lines = [f"{repo.kind} {repo.repo} ({state})"]
    width = max((len(change.path) for change in repo.changes), default=0)
    for action, sign in _SIGNS.items():
        lines += [
            f"  {sign} {change.path:<{width}}  {_size(change)}".rstrip()
            for change in repo.of(action)
            # What the Hub writes into every repo; nobody needs to hear that it stays.
            if change.path not in HUBS_OWN
        ]
    unchanged = [change for change in repo.changes if change.action == "unchanged"]
    if unchanged:
        size = bytes_said(sum(change.size or 0 for change in unchanged))
        lines.append(f"  = {len(unchanged)} file{'s' * (len(unchanged) > 1)} unchanged, {size}")
    if repo.needs_tag:
        lines.append(f"  tag {repo.tag}")
    return lines


def _size(change: Change) -> str:
    from steer_eval.publish.plan import bytes_said

    match change.action:
        case "added":
            return bytes_said(change.size or 0)
        case "changed":
            return f"{bytes_said(change.size or 0)}, was {bytes_said(change.was or 0)}"
        case "deleted":
            return f"deleted, was {bytes_said(change.was or 0)}"
        case _:
            return f"{bytes_said(change.size or 0)}, not published by steer-eval: kept"


def _print_json(
    outcome: str,
    folder: Path,
    findings: Sequence[Finding],
    plan: Plan | None,
    published: Publication | None = None,
) -> None:
    from steer_eval.cli.output import print_json
    from steer_eval.publish.plan import SCHEMA

    repos: list[dict[str, Any]] = []
    for repo in plan.repos if plan else ():
        entry = {**repo.to_json(), "commit": None, "pull_request": None, "tag": None}
        if published is not None:
            pushed = published.data if repo.kind == "dataset" else published.model
            entry |= {"commit": pushed.commit, "pull_request": pushed.request, "tag": repo.tag}
        elif outcome == "unchanged":
            entry |= {"commit": repo.remote.head, "tag": repo.tag}
        repos.append(entry)
    verification = published.verification if published else None
    print_json(
        {
            "schema": SCHEMA,
            "outcome": outcome,
            "target": str(folder),
            "findings": [finding.to_json() for finding in findings],
            "repos": repos,
            "collection": published.collection if published else None,
            "verification": None
            if verification is None
            else {
                "files": verification.files,
                "findings": [finding.to_json() for finding in verification.findings],
            },
        }
    )
