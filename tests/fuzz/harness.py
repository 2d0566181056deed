"""Runs readers on mutated files in processes of their own, each call under a `Guard`.

Invariant: whatever the guard catches is a `Failure` with the input that caused it, even if the process died of it:
every input stands in memory that outlives the process before the reader is called.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from fuzz.guard import Caught, Guard, limit_memory, peak_bytes
from fuzz.mutations import MAX_BYTES, mutated
from fuzz.readers import Reader

SECONDS = 5.0
"""How long a reader may take; a process that is stuck outside of Python is ended after four times as long."""
KEPT = 3
"""Inputs that are kept of each kind of failure."""

_HEADER = struct.Struct("<4Q")
_SLOT = _HEADER.size + MAX_BYTES
_ACCEPTED, _REFUSED, _FAILED = range(3)


@dataclass(frozen=True)
class Failure:
    """An input that a reader does not survive.

    Args:
        reader: The reader.
        kind: `exception`, `audit`, `memory`, `time`, `warning` or `crash`.
        detail: What happened, and where.
        input: Name of the file with the input, in the reader's folder of regressions.
    """

    reader: str
    kind: str
    detail: str
    input: str


@dataclass
class Summary:
    """What a run found."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def inputs(self) -> int:
        return sum(map(sum, (each.values() for each in (self.accepted, self.refused, self.failed))))


@dataclass(frozen=True)
class Case:
    """One input: which reader, and its bytes."""

    reader: int
    content: bytes


def generated(readers: Sequence[Reader], seed: int) -> Callable[[int], Case]:
    """The inputs of a run by their number; the readers take turns."""

    def case(number: int) -> Case:
        index = number % len(readers)
        reader = readers[index]
        # Strings seed the generator by their digest, the same in every process.
        content = mutated(reader.seeds, reader.mutations, Random(f"{seed}/{reader.name}/{number}"))  # noqa: S311
        return Case(index, content)

    return case


def run(
    readers: Sequence[Reader],
    cases: Callable[[int], Case],
    count: int,
    *,
    workers: int = 1,
    seconds: float = SECONDS,
    regressions: Path,
) -> Summary:
    """Run readers on inputs, in processes of their own.

    Args:
        readers: The readers.
        cases: Gives the input of a number from 0.
        count: How many inputs.
        workers: How many processes at a time.
        seconds: How long a reader may take.
        regressions: Where inputs that fail are kept, in a folder per reader.
    """
    started = time.monotonic()
    root = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - memory, where there is one
    scratch = Path(tempfile.mkdtemp(prefix="steer-eval-fuzz-", dir=root))
    summary = Summary()
    pool: list[_Worker] = []
    try:
        for index in range(workers):
            numbers = range(index, count, workers)
            pool.append(_Worker(readers, cases, numbers, scratch / str(index), summary, seconds, regressions))
        while [worker for worker in pool if not worker.is_done()]:
            time.sleep(0.02)
    finally:
        for worker in pool:
            worker.end()
        shutil.rmtree(scratch, ignore_errors=True)
    summary.seconds = time.monotonic() - started
    return summary


class _Worker:
    """One process after the other that works through some numbers; a process that dies is followed by the next."""

    def __init__(
        self,
        readers: Sequence[Reader],
        cases: Callable[[int], Case],
        numbers: range,
        scratch: Path,
        summary: Summary,
        seconds: float,
        regressions: Path,
    ) -> None:
        self.readers, self.cases, self.numbers = readers, cases, numbers
        self.scratch, self.summary, self.seconds, self.regressions = scratch, summary, seconds, regressions
        # Shared with the processes, so that a death loses nothing.
        self.slot = mmap.mmap(-1, _SLOT)
        self.counts = mmap.mmap(-1, 3 * 8 * len(readers))
        self.log = scratch.with_suffix(".log")
        self.position = 0
        self.seen = (0, 0.0)
        self.pid: int | None = None
        self._start()

    def is_done(self) -> bool:
        """Whether all inputs are done; looks after the process, and must be called again and again."""
        if self.pid is None:
            return True
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            self._watch()
            return False
        self.pid = None
        self._collect()
        if status == 0 and not _HEADER.unpack_from(self.slot)[3]:
            self._add_counts()
            return True
        turn, reader, length, inside = _HEADER.unpack_from(self.slot)
        if not inside:
            raise RuntimeError(f"the fuzzer itself failed before input {self.numbers[turn]} was read, or after it")
        content = bytes(self.slot[_HEADER.size : _HEADER.size + length])
        code = os.waitstatus_to_exitcode(status)
        stuck = code == -signal.SIGKILL
        name = self.readers[reader].name
        detail = "no answer, not even to an alarm" if stuck else f"the process ended with {code}"
        self._count(reader, _FAILED)
        _keep(self.summary.failures, self.regressions, name, content, "time" if stuck else "crash", detail)
        self.position = turn + 1
        self._start()
        if self.pid is None:
            self._add_counts()
        return self.pid is None

    def end(self) -> None:
        """End the process, should there be one: nobody looks after it any more."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None

    def _count(self, reader: int, outcome: int) -> None:
        place = 8 * (3 * reader + outcome)
        self.counts[place : place + 8] = (int.from_bytes(self.counts[place : place + 8]) + 1).to_bytes(8)

    def _add_counts(self) -> None:
        for index, reader in enumerate(self.readers):
            outcomes = struct.unpack_from(">3Q", self.counts, 24 * index)
            for counter, count in zip(
                (self.summary.accepted, self.summary.refused, self.summary.failed), outcomes, strict=True
            ):
                counter[reader.name] += count

    def _start(self) -> None:
        if self.position >= len(self.numbers):
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self.seen = (-1, time.monotonic())
        self.pid = os.fork()
        if self.pid:
            return
        # The child: whatever happens, it must not return into the parent's program.
        code = 1
        try:
            self._work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _work(self) -> None:
        log: list[Failure] = []
        guard = Guard(self.seconds)
        places = _prepare(self.readers, self.scratch)
        limit_memory()

        def save() -> None:
            document = {"failures": [asdict(failure) for failure in log], "peak": peak_bytes()}
            temporary = self.log.with_suffix(".new")
            temporary.write_text(json.dumps(document))
            temporary.replace(self.log)

        for turn in range(self.position, len(self.numbers)):
            case = self.cases(self.numbers[turn])
            reader = self.readers[case.reader]
            content = case.content[:MAX_BYTES]
            self.slot[_HEADER.size : _HEADER.size + len(content)] = content
            folder = places[case.reader]
            with (folder / reader.file).open("wb") as file:
                file.write(content)
            _HEADER.pack_into(self.slot, 0, turn, case.reader, len(content), 1)
            try:
                self._count(case.reader, _ACCEPTED if guard.call(reader, folder) else _REFUSED)
            except Caught as caught:
                self._count(case.reader, _FAILED)
                known = self.summary.failures
                _keep(log, self.regressions, reader.name, content, caught.kind, str(caught), known=known)
                save()
            _HEADER.pack_into(self.slot, 0, turn, case.reader, len(content), 0)
            if turn % 64 == 0:
                save()
        save()

    def _watch(self) -> None:
        turn, now = _HEADER.unpack_from(self.slot)[0], time.monotonic()
        if turn != self.seen[0]:
            self.seen = (turn, now)
        elif now - self.seen[1] > 4 * self.seconds and self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    def _collect(self) -> None:
        """Take over the failures that the process has noted."""
        with suppress(FileNotFoundError):
            noted = json.loads(self.log.read_text())
            self.log.unlink()
            self.summary.failures += [Failure(**failure) for failure in noted["failures"]]
            self.summary.peak_bytes = max(self.summary.peak_bytes, noted["peak"])


def _prepare(readers: Sequence[Reader], scratch: Path) -> list[Path]:
    """A folder per reader with what stands beside its input."""
    places = []
    for index, reader in enumerate(readers):
        folder = scratch / str(index) / "repo"
        (folder / reader.file).parent.mkdir(parents=True, exist_ok=True)
        for name, content in reader.beside.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        for name, target in reader.links.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)
        places.append(folder)
    return places


def _keep(
    failures: list[Failure],
    regressions: Path,
    reader: str,
    content: bytes,
    kind: str,
    detail: str,
    *,
    known: Sequence[Failure] = (),
) -> None:
    """Note a failure and write its input, unless there are enough of the same sort."""
    place = detail.rsplit(" at ", 1)[-1][:80]
    same = (each for each in (*known, *failures) if (each.reader, each.kind) == (reader, kind))
    if sum(place in each.detail for each in same) >= KEPT:
        return
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.bin"
    folder = regressions / reader
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    failures.append(Failure(reader, kind, detail, name))


def warm_up(readers: Iterable[Reader]) -> None:
    """Read every seed once, so that what is imported and cached on first use is there before anything is watched.

    Raises:
        ValueError: A reader does not accept any of its seeds.
    """
    with tempfile.TemporaryDirectory() as scratch:
        chosen = list(readers)
        for reader, folder in zip(chosen, _prepare(chosen, Path(scratch)), strict=True):
            accepted = 0
            for seed in (*reader.seeds, b""):
                (folder / reader.file).write_bytes(seed)
                with suppress(*reader.refusals):
                    accepted += reader.read(folder)
            if not accepted:
                raise ValueError(f"{reader.name} accepts none of its seeds")


def kept(readers: Sequence[Reader], regressions: Path) -> Iterator[Case]:
    """The inputs that once failed."""
    for index, reader in enumerate(readers):
        for path in sorted((regressions / reader.name).glob("*.bin")):
            yield Case(index, path.read_bytes())
