"""The commands that README.md shows are commands, and the table in it is of the packaged study."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from steer_eval.cli.main import COMMANDS, cli
from steer_eval.study import load_study

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```console\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
SHOWN = [line for line in (*LINES, *re.findall(r"`(steer-eval [^`]+)`", TEXT)) if line.startswith("steer-eval ")]
SHOWN = [line for line in SHOWN if "COMMAND" not in line]


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_line_is_understood(line: str) -> None:
    """Its command, and each of its options; what files they name is the reader's."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="steer-eval", **cli.context_settings)
    while isinstance(command, click.Group):
        name = words.pop(0)
        inner = command.get_command(context, name)
        assert inner is not None, name
        command = inner
    command.make_parser(context).parse_args(words)
    shown = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert shown <= {option for parameter in command.params for option in parameter.opts}
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert all(shown & set(option.opts) for option in options if option.required)


def test_every_command_stands_in_the_table() -> None:
    table = TEXT.partition("| to | commands |")[2].partition("\n\n")[0]

    assert [name for name in COMMANDS if f"`{name}`" not in table] == []


def test_claims_in_the_shortened_table_are_those_of_the_study(packaged_study: Path) -> None:
    [table] = re.findall(r"```text\n(claim .*?)…\n```", TEXT, re.S)
    starts = [column.start() for column in re.finditer(r"\S+(?: \S+)*", table.splitlines()[0])]
    words: list[str] = []
    expected = []
    for line in table.splitlines()[2:]:
        cell, rest = line[: starts[1] - 1].strip(), line[starts[1] - 1 :].split()
        words += [cell] if rest else []
        expected += rest[:1]
        if not rest:
            words[-1] += f" {cell}"
    claims = {
        claim.words: str(claim.expected).lower() if isinstance(claim.expected, bool) else claim.expected.text
        for claim in load_study(packaged_study / "study.yaml").claims
    }

    assert len(words) > 5
    assert [(each, claims.get(each)) for each in words] == list(zip(words, expected, strict=True))
