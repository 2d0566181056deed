"""Two ways of doing the same thing, each in a process that stays and does its part when asked.

Invariant: as in `measuring.py`, numbers come from pairs (ours, the peer's, ours, the peer's, …) after a small piece of
work of each that is not counted. Loading a model takes longer than some of the work, so here the processes stay, and
the seconds are those that they measure around the work alone. Whoever is not asked waits for its input and does
nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from measuring import MIN_PAIRS, Command, MeasurementError, Timing, own_peak_mb, peak_of

Request = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a worker says of a piece of work.

    Args:
        seconds: How long it took.
        units: How much it was, in what both sides count (tokens, texts, cells).
        result: What came out, to be compared.
    """

    seconds: float
    units: float
    result: Any

    @property
    def cost(self) -> float:
        """Seconds per unit."""
        return self.seconds / self.units


class Worker:
    """A process that answers lines of JSON with lines of JSON.

    Args:
        command: How to start it.
    """

    def __init__(self, command: Command) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        threads = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))), "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            command.arguments,
            cwd=command.folder,
            env={**os.environ, **threads, **command.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._name = " ".join(command.arguments)
        self.peak_mb = 0.0

    def __enter__(self) -> Worker:
        return self

    def ask(self, request: Request) -> Answer:
        """Let it do something.

        Raises:
            MeasurementError: It failed; the message has what it wrote to standard error.
        """
        requests, answers = self._pipes()
        try:
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()[-2000:]
            raise MeasurementError(f"{self._name} failed on {json.dumps(request)[:200]}: {said}")
        return Answer(**json.loads(line))

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes():
            pipe.close()
        if self._process.returncode is None:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.peak_mb = peak_of(usage)
        self._errors.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise MeasurementError(f"{self._name} has no pipes")
        return self._process.stdin, self._process.stdout


@dataclass(frozen=True)
class Side:
    """One way of doing the work.

    Args:
        command: How its process is started.
        warm_up: What it is asked first, not counted.
        request: What it is asked in each round.
    """

    command: Command
    warm_up: Request
    request: Request


def in_rounds(
    ours: Side, peer: Side, *, pairs: int, scaled: bool = True, start: Callable[[Command], Worker] = Worker
) -> tuple[Timing, Answer, Answer]:
    """Measure two sides in turn.

    Args:
        ours: Our way.
        peer: The other way; it may do less of the work, as its `units` then say.
        pairs: How often both are measured.
        scaled: Whether the peer's time is scaled to our units.
        start: What starts processes.

    Returns:
        The timing, and the last answers of both.

    Raises:
        MeasurementError: A worker failed, or there are too few pairs.
    """
    if pairs < MIN_PAIRS:
        raise MeasurementError(f"{pairs} pairs say nothing about their spread; take at least {MIN_PAIRS}")
    with start(ours.command) as mine, start(peer.command) as theirs:
        mine.ask(ours.warm_up)
        theirs.ask(peer.warm_up)
        measured = [(mine.ask(ours.request), theirs.ask(peer.request)) for _ in range(pairs)]
    if mine.peak_mb <= own_peak_mb():
        raise MeasurementError("what is measured is no larger than what measures, so its peak memory can't be told")
    peers = [other.cost * own.units if scaled else other.seconds for own, other in measured]
    ratios = [seconds / own.seconds for seconds, (own, _) in zip(peers, measured, strict=True)]
    lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    timing = Timing(
        statistics.median(own.seconds for own, _ in measured),
        statistics.median(peers),
        median,
        (upper - lower) / median,
        mine.peak_mb,
    )
    return timing, *measured[-1]
