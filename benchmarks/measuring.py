"""Ways of doing the same thing, measured side by side.

Invariant: every number comes from child processes of this one, run in turn (ours, the peer's, ours, the peer's, …)
after one run of each that is not counted, so that a machine that is busy for a while is busy for both. A ratio is that
of a pair, and what is reported is the median of the pairs' ratios: the peer's time over ours, in every comparison, so
that more than 1 always means that ours is faster. Where several comparisons share a side (`workers.py`), each side runs
once in a round, and a pair is what two of them took in the same round.

The kernel counts the memory of whoever starts a process towards that process's peak. So whoever measures must stay
smaller than what is measured: no torch in here.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

MIN_PAIRS = 3
_VERSIONS = ("torch", "transformers", "numpy", "jsonschema")
_IMPORT = "import torch, jsonschema"


class MeasurementError(RuntimeError):
    """A measurement that says nothing, and why."""


@dataclass(frozen=True)
class Command:
    """A program that is run and timed.

    Args:
        arguments: The program and its arguments.
        folder: Where it is run.
        environment: Variables that are set for it, beside this process's.
    """

    arguments: tuple[str, ...]
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a run cost.

    Args:
        seconds: Wall-clock time from before the first process starts until the last one has ended.
        peak_mb: Resident memory of the largest process at its largest, in MB (10^6 bytes), mapped files included.
    """

    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Timing:
    """What pairs of runs give.

    Args:
        ours_s: Median of our seconds.
        peer_s: Median of the peer's.
        ratio: Median of the pairs' `peer / ours`.
        spread: Interquartile range of the pairs' ratios over their median.
        peak_mb: Largest of our peaks.
        rounds: The pairs' ratios, in the order in which they were measured.
        peer_peak_mb: Largest of the peer's peaks; None if it can't be told.
    """

    ours_s: float
    peer_s: float
    ratio: float
    spread: float
    peak_mb: float
    rounds: tuple[float, ...]
    peer_peak_mb: float | None = None

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]], peak_mb: float, peer_peak_mb: float | None = None) -> Timing:
        """Sum up pairs.

        Args:
            pairs: Our seconds and the peer's, measured one after the other.
            peak_mb: Largest of our peaks.
            peer_peak_mb: Largest of the peer's, if the peer is processes of its own. It is left out where it is no
                larger than this process, as it can't be told then.

        Raises:
            MeasurementError: There are too few pairs, or this process is larger than ours.
        """
        enough(len(pairs))
        if peak_mb <= own_peak_mb():
            message = "what is measured is no larger than what measures, so its peak memory can't be told"
            raise MeasurementError(message)
        told = peer_peak_mb if peer_peak_mb is not None and peer_peak_mb > own_peak_mb() else None
        ratios = tuple(peer / ours for ours, peer in pairs)
        lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        ours_s, peer_s = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        return cls(ours_s, peer_s, median, (upper - lower) / median, peak_mb, ratios, told)


@dataclass(frozen=True)
class Asked:
    """What whoever measures a group of comparisons is asked for.

    Args:
        names: The comparisons.
        pairs: How many pairs; groups whose pairs are dear take fewer.
        folder: An empty folder for files.
        shared: A folder that stays as long as the program runs, for what several groups read.
    """

    names: tuple[str, ...]
    pairs: int
    folder: Path
    shared: Path


@dataclass(frozen=True)
class Point:
    """What so many times the work costs.

    Args:
        times: How many times.
        seconds: Median.
        ratio: Median of the pairs' ratios to the work done once.
    """

    times: int
    seconds: float
    ratio: float


@dataclass(frozen=True)
class Comparison:
    """One entry of the results.

    Args:
        name: What is compared.
        ours_s: Median of our seconds.
        peer: What ours is held to.
        peer_s: Median of the peer's seconds.
        ratio: Median of the pairs' `peer / ours`: how many times faster than the peer.
        spread: Interquartile range of the pairs' ratios over their median.
        identical: Whether both gave the same result; None where they give different things.
        peak_mb: Largest of our peaks, in MB.
        pairs: How many pairs were measured.
        rounds: The pairs' ratios, in the order in which they were measured.
        peer_peak_mb: Largest of the peer's peaks, in MB; None if it can't be told.
        near_ties: `(cell, prompt, token)` where a text parts from the peer's at a near-tie of the two largest logits,
            which makes it no other text; None where no texts are compared.
        points: What more of the same work costs; None where that is not asked.
    """

    name: str
    ours_s: float
    peer: str
    peer_s: float
    ratio: float
    spread: float
    identical: bool | None
    peak_mb: float
    pairs: int
    rounds: tuple[float, ...]
    peer_peak_mb: float | None = None
    near_ties: tuple[tuple[int, int, int], ...] | None = None
    points: tuple[Point, ...] | None = None

    @classmethod
    def of(
        cls,
        name: str,
        peer: str,
        timing: Timing,
        *,
        identical: bool | None,
        near_ties: tuple[tuple[int, int, int], ...] | None = None,
        points: tuple[Point, ...] | None = None,
    ) -> Comparison:
        """An entry from a timing, with no more digits than it has."""
        return cls(
            name,
            round(timing.ours_s, 4),
            peer,
            round(timing.peer_s, 4),
            round(timing.ratio, 3),
            round(timing.spread, 3),
            identical,
            round(timing.peak_mb, 1),
            len(timing.rounds),
            tuple(round(ratio, 3) for ratio in timing.rounds),
            None if timing.peer_peak_mb is None else round(timing.peer_peak_mb, 1),
            near_ties,
            points,
        )


def run(commands: Sequence[Command]) -> Cost:
    """Run commands one after another.

    Args:
        commands: What to run; each must end with exit code 0.

    Raises:
        MeasurementError: One of them failed; the message has what it wrote to standard error.
    """
    peak = 0.0
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        for command in commands:
            process = subprocess.Popen(
                command.arguments,
                cwd=command.folder,
                env={**os.environ, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            _, status, usage = os.wait4(process.pid, 0)
            # The process is gone already, and its object must know.
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = max(peak, peak_of(usage))
            if process.returncode:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()[-2000:]
                raise MeasurementError(f"{' '.join(command.arguments)} ended with {process.returncode}: {said}")
        seconds = time.perf_counter() - start
    return Cost(seconds, peak)


def compare(
    ours: Sequence[Command],
    peer: Sequence[Command],
    *,
    pairs: int,
    runner: Callable[[Sequence[Command]], Cost] = run,
) -> Timing:
    """Measure two ways of doing the same thing.

    Args:
        ours: Commands that do it our way.
        peer: Commands that do it the other way.
        pairs: How often both are measured.
        runner: What runs commands.

    Raises:
        MeasurementError: A command failed, there are too few pairs, or this process is larger than ours.
    """
    enough(pairs)
    # Programs and files are read from the disk once; both sides find them in memory from then on.
    runner(ours)
    runner(peer)
    measured = [(runner(ours), runner(peer)) for _ in range(pairs)]
    peaks = (max(cost.peak_mb for cost in side) for side in zip(*measured, strict=True))
    return Timing.of([(mine.seconds, theirs.seconds) for mine, theirs in measured], *peaks)


def enough(pairs: int) -> None:
    """Check that so many pairs have a spread, before they are measured.

    Raises:
        MeasurementError: There are too few.
    """
    if pairs < MIN_PAIRS:
        raise MeasurementError(f"{pairs} pairs say nothing about their spread; take at least {MIN_PAIRS}")


def own_peak_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    return peak_of(resource.getrusage(resource.RUSAGE_SELF))


def warm(paths: Iterable[Path]) -> None:
    """Read files, so that they are in the page cache."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(2**20):
                pass


def machine(python: str) -> dict[str, Any]:
    """What the numbers depend on.

    Args:
        python: The interpreter that runs what is measured.

    Returns:
        Processor, cores, memory, system and versions, and `import_mb`: the peak memory of importing torch and
        jsonschema, which no program that uses them can go below.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}}
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "import_mb": round(run([Command((python, "-c", _IMPORT))]).peak_mb, 1),
    }


def peak_of(usage: resource.struct_rusage) -> float:
    """Largest resident memory in what the system says of a process, in MB."""
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss * (1 if platform.system() == "Darwin" else 1024) / 1e6


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
