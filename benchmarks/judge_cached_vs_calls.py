"""Judging a finished run again, held to judging it the first time.

Invariant: both sides are the same command on the same cells and end in the same scores; ours finds every reply in the
log and makes no call, the peer starts from an empty folder. The endpoint is on the loopback and answers at once, so
that what is compared is our own overhead, at its worst.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from judge_endpoint import MODEL, STUDY, serving
from measuring import Asked, Command, Comparison, Cost, MeasurementError, compare, run

NAME = "judge_cached_vs_calls"
PEER = "the first run, whose calls an endpoint on the loopback answers at once"
CONCURRENCY = 8
ROOT = Path(__file__).parents[1]
SCORES = f"judge_{MODEL}_smollm2.jsonl"


def measure(asked: Asked) -> list[Comparison]:
    """Judge, and measure."""
    done, fresh = asked.folder / "done", asked.folder / "fresh"
    with serving(0.0, CONCURRENCY) as endpoint:
        ours, peer = command(endpoint.url, done), command(endpoint.url, fresh)
        run([ours])
        calls = endpoint.answered
        made = []

        def runner(commands: Sequence[Command]) -> Cost:
            shutil.rmtree(fresh, ignore_errors=True)
            before = endpoint.answered
            cost = run(commands)
            made.append((commands == [ours], endpoint.answered - before))
            return cost

        timing = compare([ours], [peer], pairs=asked.pairs, runner=runner)
        if any(count != (0 if own else calls) for own, count in made):
            raise MeasurementError(f"not every run made the calls that it should: {made}")
        same = (done / SCORES).read_bytes() == (fresh / SCORES).read_bytes()
    return [Comparison.of(NAME, PEER, timing, identical=same)]


def command(url: str, out: Path, *, concurrency: int = CONCURRENCY) -> Command:
    """Judging all cells of the packaged study by an endpoint."""
    program = Path(sys.executable).with_name("steer-eval")
    if not program.exists():
        raise MeasurementError(f"{program} is absent: run with the interpreter that steer-eval is installed for")
    arguments = ("judge", STUDY, "--judge", "api", "--base-url", url, "--model", MODEL, "--out", str(out))
    return Command((str(program), *arguments, "--concurrency", str(concurrency)), ROOT)
