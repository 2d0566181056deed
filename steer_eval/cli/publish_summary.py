"""What `steer-eval publish --json` said, for GitHub: annotations, the job's summary and the step's outputs.

Invariant: a pure reading of that document; the files that GitHub names are only ever added to.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from steer_eval.cli.annotations import cell, workflow_commands
from steer_eval.cli.output import encodable
from steer_eval.cli.place import checkout_root, path_in_checkout
from steer_eval.findings import Finding

_SAID = {
    "refused": "Nothing was pushed: findings stand against it.",
    "planned": "Nothing was pushed: it was a dry run.",
    "unchanged": "The Hub has all of it.",
    "published": "Published.",
    "proposed": "Proposed, in pull requests.",
}


def main(arguments: list[str]) -> None:
    """Read the document that the first argument names, and tell GitHub."""
    document = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    folder = Path.cwd()
    root = checkout_root(folder, os.environ.get("GITHUB_WORKSPACE"))
    findings = [
        replace(finding, file=path_in_checkout(finding.file, folder, root))
        for finding in (Finding(**each) for each in document["findings"])
    ]
    for command in workflow_commands(findings):
        click.echo(encodable(command))
    click.echo(f"steer-eval publish: {_SAID[document['outcome']]}")
    _add("GITHUB_STEP_SUMMARY", summary(document))
    _add("GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in outputs(document).items()))


def outputs(document: Mapping[str, Any]) -> dict[str, str]:
    """The step's outputs: the commit of each repo that has one."""
    names = {"model": "model-commit", "dataset": "data-commit"}
    return {names[repo["kind"]]: repo["commit"] for repo in document["repos"] if repo["commit"]}


def summary(document: Mapping[str, Any]) -> str:
    """The document as a Markdown section."""
    lines = [f"### steer-eval publish: {cell(document['target'])}", "", _SAID[document["outcome"]], ""]
    if document["repos"]:
        lines += ["| repo | commit | added | changed | deleted | tag |", "|---|---|---|---|---|---|"]
    for repo in document["repos"]:
        actions = [change["action"] for change in repo["changes"]]
        counts = [str(actions.count(word)) for word in ("added", "changed", "deleted")]
        where = repo["pull_request"] or repo["commit"] or "–"
        cells = [f"{repo['kind']} {repo['repo']}", where, *counts, repo["tag"] or "–"]
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    severities = [each["severity"] for each in document["findings"]]
    lines += ["", f"{severities.count('error')} errors, {severities.count('warning')} warnings"]
    return "\n".join(lines) + "\n\n"


def _add(variable: str, text: str) -> None:
    if file := os.environ.get(variable):
        with Path(file).open("a", encoding="utf-8", errors="backslashreplace") as target:
            target.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
