"""Run side-by-side benchmarks: `python benchmarks/run.py [NAME…]`.

Invariant: `RESULTS.md` is rendered from `results.json` and never typed; a run of some comparisons leaves the entries of
the others as they are.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import judge_cached_vs_calls
import judge_concurrent_vs_serial
import validate_vs_sha256sum_and_import
from measuring import Comparison, MeasurementError, continued, machine, merged, read_results, write_results

RESULTS = Path(__file__).with_name("results.json")
PAIRS = 9


@dataclass(frozen=True)
class Benchmark:
    """A comparison that can be run.

    Args:
        ours: What is measured, in words.
        required: Ratio that is asked for.
        measure: Measures it, given an empty folder and the number of pairs.
        required_mb: Peak memory that is allowed above that of importing torch and jsonschema; None if any.
    """

    ours: str
    required: float
    measure: Callable[[Path, int], Comparison]
    required_mb: float | None = None


BENCHMARKS = {
    validate_vs_sha256sum_and_import.NAME: Benchmark(
        "`steer-eval validate` on a consistent repo of 193 MB: 13 vectors, carried vectors, transfer maps, two SAEs, "
        "feature tables, card and manifest",
        1 / 1.5,
        validate_vs_sha256sum_and_import.measure,
        400.0,
    ),
    judge_cached_vs_calls.NAME: Benchmark(
        "`steer-eval judge` again on a finished run of the packaged study: every reply is in the log, no call is made",
        1.0,
        judge_cached_vs_calls.measure,
    ),
    judge_concurrent_vs_serial.NAME: Benchmark(
        "`steer-eval judge --concurrency 8` at an endpoint that answers in 0.1 s and takes eight calls, without a 429",
        2.0,
        judge_concurrent_vs_serial.measure,
    ),
}
"""Every comparison, by its name. To add one, write a module with a `measure` and register it here."""

_HEAD = """\
# Benchmarks

Rendered from `results.json` by `python benchmarks/run.py`; `python benchmarks/run.py NAME` measures one comparison
again and keeps the others.

**Ratio** is the peer's time over ours, in every comparison: how many times faster than the peer; more than 1 is faster,
less is slower. Both sides run as child processes in turn, ours and the peer's, after one run of each that is not
counted; files are in the page cache. The ratio is the median of the pairs' ratios, the times are medians of their own,
and the **spread** is the interquartile range of the pairs' ratios over their median. **Peak** is the largest resident
memory of our largest process, mapped files included.
"""


def rendered(results: Mapping[str, Any], benchmarks: Mapping[str, Benchmark]) -> str:
    """The results as Markdown.

    Args:
        results: As in `results.json`.
        benchmarks: What is required, by name.
    """
    host, versions = results["machine"], results["machine"]["versions"]
    lines = [
        _HEAD,
        f"Machine: {host['cpu']}, {host['cores']} cores, {host['memory_gb']:g} GB, {host['system']};",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        f"A process that only imports torch and jsonschema peaks at {host['import_mb']:.0f} MB.",
        "",
        "| Comparison | Ours | Peer | Ratio | Required | Spread | Same result | Peak | Above the import |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in results["comparisons"]:
        benchmark = benchmarks.get(entry["name"])
        above = entry["peak_mb"] - host["import_mb"]
        cells = (
            f"`{entry['name']}`",
            f"{entry['ours_s']:.2f} s",
            f"{entry['peer_s']:.2f} s",
            f"**{entry['ratio']:.2f}**",
            _limit(f"≥ {benchmark.required:.2f}", entry["ratio"] >= benchmark.required) if benchmark else "",
            f"{entry['spread']:.0%}",
            {True: "yes", False: "**no**", None: "n/a"}[entry["identical"]],
            f"{entry['peak_mb']:.0f} MB",
            _memory(above, benchmark.required_mb if benchmark else None),
        )
        lines.append(f"| {' | '.join(cells)} |")
    for entry in results["comparisons"]:
        benchmark = benchmarks.get(entry["name"])
        ours = benchmark.ours if benchmark else "not among the comparisons any more"
        lines += ["", f"- `{entry['name']}`: {ours}. Peer: {entry['peer']}."]
    return "\n".join(lines) + "\n"


def _limit(text: str, met: bool) -> str:
    return f"{text} ({'met' if met else '**missed**'})"


def _memory(above: float, allowed: float | None) -> str:
    text = f"{above:.0f} MB"
    return text if allowed is None else _limit(f"{text}, ≤ {allowed:.0f} MB", above <= allowed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run comparisons and write both files.

    Returns:
        1 if two sides gave different results, else 0: times are for people to judge.
    """
    parser = argparse.ArgumentParser(description="Run side-by-side benchmarks.")
    parser.add_argument("name", nargs="*", help=f"comparisons to run, all by default: {', '.join(BENCHMARKS)}")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of runs; take more on a busy machine")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the results file; RESULTS.md goes beside it")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.name if name not in BENCHMARKS]:
        parser.error(f"there is no comparison {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    try:
        # A file that can't be merged into is better known of before an hour of measuring than after.
        host, names = machine(sys.executable), options.name or list(BENCHMARKS)
        before = continued(read_results(options.results), host, names)
        measured: list[Comparison] = []
        for name in names:
            print(f"{name}: {options.pairs} pairs", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="steer-eval-bench-") as folder:
                measured.append(BENCHMARKS[name].measure(Path(folder), options.pairs))
            # What is done is kept, whatever comes after it.
            results = merged(before, host, measured)
            write_results(options.results, results)
            options.results.with_name("RESULTS.md").write_text(rendered(results, BENCHMARKS), encoding="utf-8")
            print(f"{name}: ratio {measured[-1].ratio}, spread {measured[-1].spread:.0%}", file=sys.stderr)
    except MeasurementError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return int(any(entry.identical is False for entry in measured))


if __name__ == "__main__":
    sys.exit(main())
