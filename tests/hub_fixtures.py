"""The Hub on localhost for tests, and programs that are run against it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """An empty Hub; a request that it could not answer because of a mistake of its own fails the test."""
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        yield server
    assert not server.failures, "\n\n".join(server.failures)


def run_python(script: str, env: Mapping[str, str], *arguments: str, timeout: float = 120) -> str:
    """Run a script in a process of its own, which must succeed; gives what it printed."""
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=dict(env), capture_output=True, text=True, timeout=timeout
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-6000:]
    return process.stdout


def run_client(script: str, env: Mapping[str, str], *arguments: str, timeout: float = 120) -> Any:
    """The same, for a script whose last line of output is JSON; gives that."""
    return json.loads(run_python(script, env, *arguments, timeout=timeout).splitlines()[-1])


def cli_command(*arguments: str | Path) -> list[str]:
    """The command line of `steer-eval`, for processes that a test starts itself."""
    return [sys.executable, "-c", "from steer_eval.cli.main import main; main()", *map(str, arguments)]


def run_cli(
    *arguments: str | Path, env: Mapping[str, str], cwd: Path | None = None, timeout: float = 300, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `steer-eval` in a process of its own."""
    return subprocess.run(
        cli_command(*arguments), env=dict(env), cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout
    )
