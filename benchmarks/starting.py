"""How long it takes until something happens: help, a check of a small repo, a model in memory.

Invariant: commands are timed as whole processes, from their start to their end; loading a model is timed in a process
that was started for it, and has imported the libraries already. Files are in the page cache, and the peer is what the
same thing takes at least.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import Asked, Command, Comparison, Cost, MeasurementError, compare, own_peak_mb, run
from workers import Worker

STUDY = Path(__file__).parents[1] / "artifacts" / "smollm2-135m-mature-anger"
LOADS = 5
"""Pairs of loads: the processes that are started for them take several times as long."""
_OFFLINE = {"HF_HUB_OFFLINE": "1"}


def _ours(*arguments: str) -> Command:
    command = Path(sys.executable).with_name("steer-eval")
    if not command.exists():
        raise MeasurementError(f"{command} is absent: run with the interpreter that steer-eval is installed for")
    return Command((str(command), *arguments), None, _OFFLINE)


def _python(code: str) -> Command:
    return Command((sys.executable, "-c", code), None, _OFFLINE)


def _script(name: str, *arguments: str) -> Command:
    return Command((sys.executable, str(Path(__file__).with_name(name)), *arguments), None, _OFFLINE)


def _bounded(commands: Sequence[Command]) -> Cost:
    """Run commands that may be smaller than this process: then their peak is no more than ours, and that is given."""
    cost = run(commands)
    return Cost(cost.seconds, max(cost.peak_mb, math.nextafter(own_peak_mb(), math.inf)))


def start_help(asked: Asked) -> list[Comparison]:
    """`steer-eval --help` against the interpreter and Click alone."""
    timing = compare([_ours("--help")], [_python("import click")], pairs=asked.pairs, runner=_bounded)
    return [Comparison.of("start_help", "python -c 'import click'", timing, identical=None)]


def start_validate(asked: Asked) -> list[Comparison]:
    """`steer-eval validate` of our artifacts against the imports that reading rows and schemas takes."""
    imports = "import numpy, jsonschema, datasets"
    timing = compare([_ours("validate", str(STUDY))], [_python(imports)], pairs=asked.pairs)
    return [Comparison.of("start_validate", f"python -c '{imports}'", timing, identical=None)]


def start_model(asked: Asked) -> list[Comparison]:
    """Our model from the cache into memory, against transformers alone on the same folder."""
    found: dict[str, Any] = {}
    ours, plain = (_script("loading.py", str(STUDY), way) for way in ("ours", "plain"))
    timing = compare([ours], [plain], pairs=min(asked.pairs, LOADS), runner=loading(found))
    what = "transformers' tokenizer and `from_pretrained` on the same folder, nothing verified"
    return [Comparison.of("start_model", what, timing, identical=found["ours"] == found["plain"])]


def loading(found: dict[str, Any]) -> Callable[[Sequence[Command]], Cost]:
    """What runs a worker for one load: started anew, timed by its own clock once its libraries are there.

    Args:
        found: Where the weights that were loaded are noted, by the last argument of the command.
    """

    def load(commands: Sequence[Command]) -> Cost:
        [command] = commands
        with Worker(command) as worker:
            seconds = worker.ask({"do": "load"}).seconds
            # They are mapped from the file, and parts may not have been read yet: that is no part of the load.
            found[command.arguments[-1]] = worker.ask({"do": "weights"}).result
        return Cost(seconds, worker.peak_mb)

    return load
