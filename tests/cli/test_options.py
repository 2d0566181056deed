from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from steer_eval.cli.options import memory_bytes, memory_option


@click.command()
@memory_option
def command(memory: float | None) -> None:
    found = memory_bytes(memory)
    click.echo("unset" if found is None else found)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300", "0", "-1", "much"])
def test_what_is_no_amount_of_memory_is_a_usage_error(value):
    result = CliRunner().invoke(command, ["--memory", value])
    assert result.exit_code == 2
    assert "Invalid value for '--memory'" in result.output
    assert value in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "unset"),
        (["--memory", "2"], "2000000000"),
        (["--memory", "0.5"], "500000000"),
        (["--memory", "1e-12"], "1"),
    ],
)
def test_gigabytes_are_bytes_of_which_there_is_at_least_one(arguments, expected):
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, result.output.strip()) == (0, expected)
