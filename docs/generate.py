"""Write the generated pages: the CLI reference from Click, measures and rules from their registries.

`python docs/generate.py` writes them; a test checks that they are up to date.
"""

from __future__ import annotations

from pathlib import Path

import click

from steer_eval.claims.facts import DEFINITIONS
from steer_eval.claims.measures import REGISTRY
from steer_eval.cli.main import cli
from steer_eval.rules.catalogue import RULES

DOCS = Path(__file__).parent


def cli_reference() -> str:
    """The help of every command, as Markdown."""
    root = click.Context(cli, info_name="steer-eval", **cli.context_settings)
    pages = ["# Command line\n\nGenerated from the commands by `python docs/generate.py`.\n"]
    pages.append(f"## steer-eval\n\n```text\n{cli.get_help(root)}\n```\n")
    for name in cli.list_commands(root):
        _, command, _ = cli.resolve_command(root, [name])
        context = click.Context(command, parent=root, info_name=name)
        pages.append(f"## steer-eval {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(pages)


def measures_reference() -> str:
    """Every measure with its definition, as Markdown."""
    lines = [
        "# Measures",
        "",
        "What a claim of a `study.yaml` can name. Generated from the registry by `python docs/generate.py`.",
        "",
        "| measure | definition | unit | evidence |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{measure.name}` | {_cell(measure.definition)} | {measure.unit} | {', '.join(sorted(measure.evidence))} |"
        for measure in REGISTRY.values()
    ]
    lines += [
        "",
        "## What an audit looks up",
        "",
        "What the words of a card can be about ([claims.md](claims.md)), each a number of the published data.",
        "",
        "| measure | definition |",
        "|---|---|",
        *(f"| `{name}` | {_cell(definition)} |" for name, definition in DEFINITIONS.items()),
    ]
    return "\n".join(lines) + "\n"


def rules_reference() -> str:
    """Every rule with its severity, as Markdown."""
    lines = [
        "# Rules",
        "",
        "What a finding of `steer-eval validate` can be about. Generated from the catalogue by "
        "`python docs/generate.py`.",
        "",
        "| rule | severity | what is wrong |",
        "|---|---|---|",
    ]
    lines += [f"| `{rule.name}` | {rule.severity} | {rule.summary} |" for rule in RULES]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text as it stands in a table, whose cells a bar would end."""
    return text.replace("|", "\\|")


PAGES = {"cli.md": cli_reference, "measures.md": measures_reference, "rules.md": rules_reference}

if __name__ == "__main__":
    for page, render in PAGES.items():
        (DOCS / page).write_text(render(), encoding="utf-8")
