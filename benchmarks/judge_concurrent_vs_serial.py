"""Calls side by side, held to one call after the other, at an endpoint that refuses more than it allows.

Invariant: the endpoint answers in a tenth of a second and takes eight calls at once; a single 429 makes the measurement
void, because what is claimed is concurrency that stays below the limit.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from judge_cached_vs_calls import SCORES, command
from judge_endpoint import serving
from measuring import Asked, Command, Comparison, Cost, MeasurementError, compare, run

NAME = "judge_concurrent_vs_serial"
LIMIT = 8
SECONDS = 0.1
PAIRS = 3
"""More say no more: what is waited for is the endpoint."""
PEER = "the same with --concurrency 1"


def measure(asked: Asked) -> list[Comparison]:
    """Judge, and measure."""
    sides = (asked.folder / "ours", asked.folder / "peer")
    with serving(SECONDS, LIMIT) as endpoint:

        def runner(commands: Sequence[Command]) -> Cost:
            for side in sides:
                if str(side) in commands[0].arguments:
                    shutil.rmtree(side, ignore_errors=True)
            return run(commands)

        ours = command(endpoint.url, sides[0], concurrency=LIMIT)
        peer = command(endpoint.url, sides[1], concurrency=1)
        timing = compare([ours], [peer], pairs=min(asked.pairs, PAIRS), runner=runner)
        if endpoint.refused:
            raise MeasurementError(f"{endpoint.refused} calls were refused with 429")
        same = (sides[0] / SCORES).read_bytes() == (sides[1] / SCORES).read_bytes()
    return [Comparison.of(NAME, PEER, timing, identical=same)]
