"""Ways of doing the same thing, each in a process that stays and does its part when asked.

Invariant: as in `measuring.py`, numbers come from sides that take turns, after a piece of work of each that is not
counted. A round is one turn of each, and every ratio is that of two sides in the same round; so comparisons that have a
side in common share its turns. Loading a model takes longer than some of the work, so here the processes stay, and the
seconds are those that they measure around the work alone. Whoever is not asked waits for its input and does nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from measuring import Command, MeasurementError, Timing, enough, peak_of

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
            # A request that a dead worker did not take is written again here; why it died is told by `ask`.
            with suppress(BrokenPipeError):
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


Start = Callable[[Command], Worker]
"""What starts a worker."""


@contextmanager
def warmed_up(command: Command, warm_up: Request, *, start: Start = Worker) -> Iterator[Worker]:
    """A worker that has done a small piece of work, which is not counted.

    Args:
        command: How to start it.
        warm_up: The piece of work.
        start: What starts it.
    """
    with start(command) as worker:
        worker.ask(warm_up)
        yield worker


def told_versions(worker: Worker) -> str:
    """The versions in a library's environment, in words: the library's own first, then what it runs on."""
    (_, own), *others = worker.ask({"do": "versions"}).result.items()
    return f"{own} on {', '.join(f'{name} {version}' for name, version in others)}"


@dataclass(frozen=True)
class Side:
    """One way of doing the work.

    Args:
        worker: Who does it. Several sides may have the same; its peak is then that of all of them.
        request: What it is asked in each round.
    """

    worker: Worker
    request: Request


@dataclass(frozen=True)
class Rounds:
    """What sides answered that took turns.

    Args:
        sides: The sides by name, in the order of their turns.
        answers: Their answers, one mapping per round.
    """

    sides: Mapping[str, Side]
    answers: Sequence[Mapping[str, Answer]]

    def last(self, side: str) -> Answer:
        """What a side answered in the last round."""
        return self.answers[-1][side]

    def timing(self, ours: str, peer: str, *, scaled: bool = True) -> Timing:
        """Two of the sides as pairs, one pair from each round.

        Args:
            ours: Our way; its worker has ended, as its peak is known only then.
            peer: The other way; it may do less of the work, as its `units` then say.
            scaled: Whether the peer's time is scaled to our units.
        """
        both = [(answers[ours], answers[peer]) for answers in self.answers]
        pairs = [(own.seconds, other.cost * own.units if scaled else other.seconds) for own, other in both]
        theirs = self.sides[peer].worker
        # The peak of a process that has several turns in a round says nothing of one of them.
        alone = sum(side.worker is theirs for side in self.sides.values()) == 1
        return Timing.of(pairs, self.sides[ours].worker.peak_mb, theirs.peak_mb if alone else None)


def in_rounds(sides: Mapping[str, Side], *, rounds: int) -> Rounds:
    """Measure sides in turn. What will be compared should stand side by side, so that nothing comes between.

    Args:
        sides: The sides by name, in the order of their turns; their workers are warm.
        rounds: How often each is measured.

    Raises:
        MeasurementError: A worker failed, or there are too few rounds.
    """
    enough(rounds)
    answers = [{name: side.worker.ask(side.request) for name, side in sides.items()} for _ in range(rounds)]
    return Rounds(sides, answers)
