"""Several commands of `steer-eval`, one after the other in one process: importing torch once is enough."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import contextlib, io, json, sys
from steer_eval.cli.main import main
answers = []
for command in json.loads(sys.stdin.read()):
    # Of bytes and strict, as the streams of a process are.
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    sys.argv = ["steer-eval", *command]
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    answers.append([code, *(stream.buffer.getvalue().decode() for stream in (out, err))])
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    stdout: str
    stderr: str


def in_one_process(
    environment: Mapping[str, str], *commands: Sequence[str | Path], cwd: Path | None = None, timeout: float = 300
) -> list[Answer]:
    """Run commands in a new process with an environment; an exception that reaches its top fails the test."""
    process = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=dict(environment),
        cwd=cwd,
        input=json.dumps([[str(part) for part in command] for command in commands]),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return [Answer(*each) for each in json.loads(process.stdout.splitlines()[-1])]
