"""`python -m fuzz --inputs 100000 --seed 1`: fuzz every reader, and say how it went."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from fuzz import harness

REGRESSIONS = Path(__file__).parent / "regressions"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many inputs, over all readers")
    parser.add_argument("--seed", type=int, default=None, help="of the mutations; by default the time, and printed")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=harness.SECONDS, help="how long a reader may take")
    parser.add_argument("--only", default="", help="readers whose name contains this")
    parser.add_argument("--readers", default="fuzz.readers", help="module with a function readers()")
    parser.add_argument("--regressions", type=Path, default=REGRESSIONS, help="where failing inputs are kept")
    parser.add_argument("--replay", action="store_true", help="run the kept inputs instead of new ones")
    parser.add_argument("--json", action="store_true", help="the summary as JSON on standard output")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    readers = [each for each in importlib.import_module(options.readers).readers() if options.only in each.name]
    harness.warm_up(readers)
    cases, count = harness.generated(readers, seed), options.inputs
    if options.replay:
        known = list(harness.kept(readers, options.regressions))
        cases, count = known.__getitem__, len(known)
    summary = harness.run(
        readers, cases, count, workers=options.workers, seconds=options.seconds, regressions=options.regressions
    )
    out = sys.stderr if options.json else sys.stdout
    for reader in readers:
        counts = [each[reader.name] for each in (summary.accepted, summary.refused, summary.failed)]
        total = sum(counts)
        share = f"{counts[0] / total:6.1%}" if total else "     -"
        print(f"{reader.name:44} {total:7} inputs {share} accepted {counts[2]:5} failed", file=out)
    rate = summary.inputs / max(summary.seconds, 1e-9)
    print(
        f"{summary.inputs} inputs, seed {seed}, {summary.seconds:.1f} s, {rate:.0f} inputs/s, "
        f"peak {summary.peak_bytes / 2**20:.0f} MiB, {sum(summary.failed.values())} failures",
        file=out,
    )
    for failure in summary.failures:
        print(f"{failure.reader}: {failure.kind}: {failure.detail} [{failure.input}]", file=out)
    if options.json:
        print(json.dumps({**vars(summary), "failures": [asdict(failure) for failure in summary.failures]}))  # noqa: T201
    return 1 if any(summary.failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
