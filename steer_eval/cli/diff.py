"""`steer-eval diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from steer_eval.cli.options import json_option, study_option

if TYPE_CHECKING:
    from steer_eval.repository import Repositories, StudyRepositories


@click.command("diff")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--data-old", metavar="REPO", help="Dataset repo of OLD; by default the one that it names.")
@click.option("--data-new", metavar="REPO", help="Dataset repo of NEW; by default the one that it names.")
@study_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    old: str,
    new: str,
    data_old: str | None,
    data_new: str | None,
    study_file: str | None,
    json: bool,
) -> None:
    """Show what differs between two studies, or two revisions of one: artifacts, numbers of the cards, claims.

    OLD and NEW are model repos with their dataset repos, or dataset repos alone: folders, or repos of the Hub as
    NAMESPACE/NAME[@REVISION]. Claims are judged by each side's own data. Manifests and hidden files are left out.
    Exit codes: 0 nothing differs, 1 something does, 2 a side can't be read.

    \b
    Examples:
      steer-eval diff artifacts/smollm2-135m-mature-anger NAMESPACE/smollm2-135m-mature-anger
      steer-eval diff NAMESPACE/NAME@v1 NAMESPACE/NAME@v2 --json
    """
    from steer_eval.cli.difference_output import print_difference
    from steer_eval.cli.output import print_json
    from steer_eval.difference.compare import compare
    from steer_eval.difference.side import read_side

    before, after = _open(old, data_old, study_file), _open(new, data_new, study_file)
    # A study that ships goes with the repo on the Hub; it is that of a copy here as well.
    before = _open(old, data_old, name) if (name := _lacks_the_study_of(before, after)) else before
    after = _open(new, data_new, name) if (name := _lacks_the_study_of(after, before)) else after
    difference = compare(read_side(before), read_side(after))
    if json:
        print_json(difference.to_json())
    else:
        print_difference(difference)
    ctx.exit(int(not difference.same))


def _open(target: str, data: str | None, study: str | None) -> Repositories | StudyRepositories:
    from steer_eval.hub.selection import everything
    from steer_eval.repository import open_target

    return open_target(target, data, study, everything)


def _lacks_the_study_of(one: Repositories | StudyRepositories, other: Repositories | StudyRepositories) -> str | None:
    """Name of the study that ships for one of two repos, if the other has none."""
    from steer_eval.repository import StudyRepositories, shipped_studies
    from steer_eval.study import load_study

    if one.study is not None or one.data is None or not isinstance(other, StudyRepositories) or not other.words:
        return None
    return next((name for name, path in shipped_studies().items() if load_study(path) == other.study), None)
