"""Real consumers of exports, and a server of Hub repositories, each in a virtual environment of its own.

`make interop` builds the environments and runs these tests; without STEER_EVAL_INTEROP, the folder of the environments,
they are skipped. What a consumer does is a script of `consumers/`, run as a process: it reads one JSON document from
standard input and prints one as its last line.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
VARIABLE = "STEER_EVAL_INTEROP"

Consumer = Callable[..., tuple[Any, str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            if VARIABLE not in os.environ:
                item.add_marker(pytest.mark.skip(reason=f"{VARIABLE} is not set: run `make interop`"))


@pytest.fixture(scope="session")
def consumer() -> Consumer:
    """Run a consumer's script: its answer, and what it wrote to standard error."""

    def run(name: str, **request: Any) -> tuple[Any, str]:
        python = Path(os.environ[VARIABLE]).resolve() / name / "bin" / "python"
        script = HERE / "consumers" / f"{name.replace('-', '_')}.py"
        # Whatever this run's caches hold is nothing to the other tool, and it downloads nothing.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1"}
        environment.pop("PYTHONPATH", None)
        # -P: scripts here are called like the libraries that they import.
        answer = subprocess.run(
            [python, "-P", script],
            input=json.dumps(request),
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert answer.returncode == 0, answer.stderr[-4000:]
        return json.loads(answer.stdout.splitlines()[-1]), answer.stderr

    return run
