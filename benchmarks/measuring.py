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

import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema

_NUMBER = {"type": "number", "exclusiveMinimum": 0}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["machine", "comparisons"],
    "additionalProperties": False,
    "properties": {
        "machine": {
            "type": "object",
            "required": ["cpu", "cores", "memory_gb", "system", "versions", "import_mb"],
            "additionalProperties": False,
            "properties": {
                "cpu": {"type": "string"},
                "cores": {"type": "integer", "minimum": 1},
                "memory_gb": _NUMBER,
                "system": {"type": "string"},
                "versions": {"type": "object", "additionalProperties": {"type": "string"}},
                "import_mb": _NUMBER,
            },
        },
        "comparisons": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "ours_s", "peer", "peer_s", "ratio", "spread", "identical", "peak_mb"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-z0-9_]+$"},
                    "ours_s": _NUMBER,
                    "peer": {"type": "string", "minLength": 1},
                    "peer_s": _NUMBER,
                    "ratio": _NUMBER,
                    "spread": {"type": "number", "minimum": 0},
                    "identical": {"type": ["boolean", "null"]},
                    "peak_mb": _NUMBER,
                    "pairs": {"type": "integer", "minimum": 1},
                },
            },
        },
    },
}
"""The form of `results.json`."""

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
        pairs: How many there were.
    """

    ours_s: float
    peer_s: float
    ratio: float
    spread: float
    peak_mb: float
    pairs: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]], peak_mb: float) -> Timing:
        """Sum up pairs.

        Args:
            pairs: Our seconds and the peer's, measured one after the other.
            peak_mb: Largest of our peaks.

        Raises:
            MeasurementError: There are too few pairs, or this process is larger than ours.
        """
        enough(len(pairs))
        if peak_mb <= own_peak_mb():
            message = "what is measured is no larger than what measures, so its peak memory can't be told"
            raise MeasurementError(message)
        ratios = [peer / ours for ours, peer in pairs]
        lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        ours_s, peer_s = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        return cls(ours_s, peer_s, median, (upper - lower) / median, peak_mb, len(pairs))


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

    @classmethod
    def of(cls, name: str, peer: str, timing: Timing, *, identical: bool | None) -> Comparison:
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
            timing.pairs,
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
    return Timing.of(
        [(mine.seconds, theirs.seconds) for mine, theirs in measured], max(mine.peak_mb for mine, _ in measured)
    )


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


def continued(
    results: Mapping[str, Any] | None, machine: Mapping[str, Any], names: Iterable[str]
) -> Mapping[str, Any] | None:
    """Results that new ones may stand beside.

    Args:
        results: The results so far; None if there are none.
        machine: Where the new ones are measured.
        names: The new ones.

    Returns:
        The results so far; None if there are none, or if all of them are of another machine and are measured again.

    Raises:
        MeasurementError: Entries that are not measured again are of another machine.
    """
    if results is None or _identity(results["machine"]) == _identity(machine):
        return results
    others = sorted({entry["name"] for entry in results["comparisons"]} - set(names))
    if others:
        message = f"{', '.join(others)}: measured on another machine or with other versions; run all comparisons again"
        raise MeasurementError(message)
    return None


def merged(results: Mapping[str, Any] | None, machine: Mapping[str, Any], new: Iterable[Comparison]) -> dict[str, Any]:
    """Results with some entries replaced, the others kept, all in the order of their names.

    Args:
        results: The results so far, of the same machine; None if there are none.
        machine: Where the new ones were measured.
        new: The new ones.
    """
    entries = {entry["name"]: entry for entry in (results["comparisons"] if results else ())}
    entries |= {entry.name: asdict(entry) for entry in new}
    return {"machine": dict(machine), "comparisons": [entries[name] for name in sorted(entries)]}


def read_results(path: Path) -> dict[str, Any] | None:
    """Results so far; None if there are none.

    Raises:
        MeasurementError: The file is not of the form of `SCHEMA`.
    """
    if not path.exists():
        return None
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(results, SCHEMA)
    except (ValueError, jsonschema.ValidationError) as error:
        raise MeasurementError(f"{path} is no results file: {error.args[0]}; delete it and run all again") from None
    return results


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write results, once they have the form of `SCHEMA`."""
    jsonschema.validate(dict(results), SCHEMA)
    path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _identity(machine: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for numbers to stand side by side; measured sizes vary by themselves."""
    return {key: value for key, value in machine.items() if key != "import_mb"}


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
