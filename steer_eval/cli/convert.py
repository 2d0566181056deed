"""`steer-eval convert`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steer_eval.cli.options import json_option, tell_which
from steer_eval.cli.printable import printable

if TYPE_CHECKING:
    from steer_eval.convert_check import Checked
    from steer_eval.convert_plan import Plan, Step
    from steer_eval.findings import Finding

MAX_CARD_BYTES = 2**20


@click.command("convert")
@click.argument("target", metavar="DIR", callback=tell_which)
@click.option("--out", type=click.Path(path_type=Path), help="The new folder; by default DIR-safe, beside DIR or here.")
@click.option(
    "--check",
    is_flag=True,
    help="Prove that nothing was lost: compare every value and byte of OUT with DIR, after converting if OUT is "
    "absent. Exit with 1 where they differ.",
)
@click.option("--force", is_flag=True, help="Replace an OUT that an earlier conversion made and nobody changed since.")
@json_option
@click.pass_context
def command(ctx: click.Context, target: str, out: Path | None, check: bool, force: bool, json: bool) -> None:
    """Convert a model repo of PyTorch files to safetensors and SAELens folders, bit for bit.

    DIR is a model repo, a folder or on the Hub (NAMESPACE/NAME[@REVISION]), and is never changed. Steering vectors
    become vectors/*.safetensors, transferred vectors and transfer maps transfer/*.safetensors, SAEs
    saes/MODEL/layers.N/; every other file is copied, and manifest.json is written. A file that can't be read safely is
    left out and reported; a card that names old paths is an author's text, so it is reported too, and not rewritten.

    \b
    Examples:
      steer-eval convert artifacts/smollm2-135m-mature-anger --out safe --check
      steer-eval convert my-legacy-study
    """
    from steer_eval.cli.output import print_findings
    from steer_eval.convert import check_place, convert
    from steer_eval.convert_check import check_conversion
    from steer_eval.convert_plan import plan_conversion
    from steer_eval.findings import worst
    from steer_eval.hub.selection import everything
    from steer_eval.progress import progress_bar
    from steer_eval.repository import open_repository

    repo = open_repository(target, "model", everything)
    place = Path(os.path.normpath(repo.folder.absolute())) if repo.address is None else Path(repo.title)
    out = out or place.with_name(f"{place.name}-safe")
    plan = plan_conversion(repo.folder, repo.title if repo.address else "")
    check_place(plan, out)
    if force or not check or not os.path.lexists(out):
        with progress_bar("convert", len(plan.steps)) as advance:
            plan = convert(plan, out, force=force, on_file=advance)
    checked: list[Checked] | None = None
    beside: list[Finding] = []
    findings = list(plan.findings)
    if check:
        with progress_bar("check", len(plan.steps)) as advance:
            checked, beside = check_conversion(plan, out, on_file=advance)
        findings += [finding for each in checked for finding in each.findings] + beside
    findings += _old_paths(plan)
    if json:
        _print_json(target, out, plan.steps, checked, findings)
    else:
        _print_files(plan.steps, checked)
        if findings:
            print_findings(findings)
        click.echo(printable(_summary(plan, checked, beside, out)))
    ctx.exit(int(worst(findings) == "error"))


def _old_paths(plan: Plan) -> list[Finding]:
    """Lines of the card that name files which are others now; the author's text itself stays as it is."""
    from steer_eval.convert_plan import COPY
    from steer_eval.errors import FormatError
    from steer_eval.findings import Finding
    from steer_eval.formats.text import read_text
    from steer_eval.mentions import mentions

    became = {step.source.path: step.targets for step in plan.steps if step.source.kind != COPY}
    if not any(step.source.path == "README.md" for step in plan.steps):
        return []
    name = plan.name("README.md")
    try:
        text = read_text(plan.folder / "README.md", name, limit=MAX_CARD_BYTES)
    except FormatError:
        return []
    findings = []
    for mention in mentions(text, became.keys()):
        first, *others = [target for path in mention.paths for target in became[path]]
        new = f"{first} and {len(others)} more" if others else first
        message = f"the card still names {mention.words}, now {new}"
        where = f"line {mention.line}"
        findings.append(Finding("convert-old-path", "note", name, where, message, fix="name the new files"))
    return findings


def _print_files(steps: Sequence[Step], checked: Sequence[Checked] | None) -> None:
    """One line for each file."""
    from steer_eval.convert_plan import COPY

    width = max((len(step.source.path) for step in steps), default=0)
    for index, step in enumerate(steps):
        word = "copied" if step.source.kind == COPY else "converted"
        became = "" if step.source.kind == COPY else ", ".join(step.targets)
        if checked is not None:
            each = checked[index]
            count = f"{each.tensors} tensor{'s' * (each.tensors != 1)}, bit-exact"
            word = "differs" if each.findings else count if each.tensors else "same bytes"
        click.echo(printable(f"{word:<20}  {step.source.path:<{width}}  {became}").rstrip())


def _summary(plan: Plan, checked: Sequence[Checked] | None, beside: Sequence[Finding], out: Path) -> str:
    from steer_eval.convert_plan import COPY

    total = len(plan.steps)
    if checked is None:
        copied = sum(step.source.kind == COPY for step in plan.steps)
        parts = [f"{total - copied} files converted, {copied} copied"]
    else:
        bad = sum(bool(each.findings) for each in checked)
        parts = [f"{total} files, {f'{total - bad} of them' if bad else 'all'} bit-exact"]
    parts += [f"{len(plan.findings)} left out"] if plan.findings else []
    parts += ["the folder or its manifest is not in order"] if beside else []
    return f"{'; '.join(parts)}: {out}"


def _print_json(
    source: str, out: Path, steps: Sequence[Step], checked: Sequence[Checked] | None, findings: Sequence[Finding]
) -> None:
    from steer_eval.cli.output import print_json

    files: list[dict[str, Any]] = [
        {"source": step.source.path, "kind": step.source.kind, "targets": list(step.targets)} for step in steps
    ]
    for file, each in zip(files, checked or (), strict=False):
        file |= {"tensors": each.tensors, "bit_exact": not each.findings}
    print_json(
        {
            "schema": "steer-eval/convert/1",
            "source": source,
            "out": str(out),
            "checked": checked is not None,
            "files": files,
            "findings": [finding.to_json() for finding in findings],
        }
    )
