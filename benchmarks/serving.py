"""The other end of `workers.py`: answers requests on standard input, in whatever environment it is run.

Invariant: standard output carries answers and nothing else, whatever libraries print once this is imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_ANSWERS = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

Handler = Callable[..., tuple[float, Any]]
"""Takes a request's fields, and returns how many units it did and what came out."""


def work(folder: str) -> dict[str, Any]:
    """What all sides do: see `prepare.py`."""
    done: dict[str, Any] = json.loads((Path(folder) / "work.json").read_text(encoding="utf-8"))
    return done


def threads() -> int:
    """As many as there are cores for us."""
    return len(os.sched_getaffinity(0))


def versions(*packages: str) -> Handler:
    """A handler that tells the versions of some packages in the worker's environment."""

    def told() -> tuple[float, Any]:
        return len(packages), {package: metadata.version(package) for package in packages}

    return told


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer until standard input ends. A request's field `do` names the handler."""
    for line in sys.stdin:
        request = json.loads(line)
        handler = handlers[request.pop("do")]
        start = time.perf_counter()
        units, result = handler(**request)
        seconds = time.perf_counter() - start
        _ANSWERS.write(json.dumps({"seconds": seconds, "units": units, "result": result}) + "\n")
        _ANSWERS.flush()
