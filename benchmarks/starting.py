"""How long it takes until something happens: help, a check of a small repo, a model in memory.

Invariant: commands are timed as whole processes, from their start to their end; loading a model is timed in a process
that has its libraries already. Files are in the page cache, and the peer is what the same thing takes at least.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from measuring import Asked, Command, Comparison, Cost, MeasurementError, compare, own_peak_mb, run
from workers import Side, in_rounds, warmed_up

STUDY = Path(__file__).parents[1] / "artifacts" / "smollm2-135m-mature-anger"
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
    """Our model from the cache, its checksums verified, against transformers alone on the same folder."""
    command = _script("loading.py", str(STUDY))
    ours, peer = ({"do": name} for name in ("ours", "plain"))
    with warmed_up(command, ours) as mine, warmed_up(command, peer) as theirs:
        rounds = in_rounds({"ours": Side(mine, ours), "peer": Side(theirs, peer)}, rounds=asked.pairs)
    same = rounds.last("ours").result == rounds.last("peer").result
    what = "transformers' `from_pretrained` on the same folder, nothing verified"
    return [Comparison.of("start_model", what, rounds.timing("ours", "peer"), identical=same)]
