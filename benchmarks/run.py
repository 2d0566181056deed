"""Run side-by-side benchmarks: `python benchmarks/run.py [NAME…]`.

Invariant: `RESULTS.md` is rendered from `results.json` and never typed; a run of some comparisons leaves the entries of
the others as they are. What a run needs from other environments is looked for before anything is measured.

What is where:

- How things are measured: `measuring.py` (pairs of commands), `workers.py` (processes that stay and take turns) and
  `serving.py` (their other end), `environments.py` (the libraries' own environments), `results_file.py` (the form of
  the results).
- Speed: `grid_work.py` and `prepare.py` (the work that all sides do), `sweeping.py` (sweeps, perplexities, extraction),
  `limits.py` (rooflines, whose `products.py` notes matrix products, and growth); their workers are `ours.py`,
  `peer_hooks.py`, `peer_libraries.py`, `peer_lm_eval.py` and `peer_products.py`.
- What bounds it, each a program of its own that prints tables: `profile_sweep.py`, `kernel_gains.py`, `compiled.py`.
- SAEs: `sae_steps.py`; its workers are `sae_ours.py` and `sae_peers.py`, on the work of `sae_work.py`.
- Start-up: `starting.py`; its worker is `loading.py`.
- Commands as a whole: `validate_vs_sha256sum_and_import.py` (on what `large_repo.py` builds),
  `judge_cached_vs_calls.py` and `judge_concurrent_vs_serial.py` (at `judge_endpoint.py`, a server of `loopback.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import judge_cached_vs_calls
import judge_concurrent_vs_serial
import limits
import sae_steps
import starting
import sweeping
import validate_vs_sha256sum_and_import
from environments import python_of
from measuring import Asked, Comparison, MeasurementError, enough, machine
from results_file import continued, merged, read_results, stamp, write_results

RESULTS = Path(__file__).with_name("results.json")
PAIRS = 9

Group = Callable[[Asked], Sequence[Comparison]]
"""Measures the comparisons that it is asked for; those that share a side are one group, and share its runs."""


@dataclass(frozen=True)
class Benchmark:
    """A comparison that can be run.

    Args:
        ours: What is measured, in words.
        required: Ratio that is asked for; None if none is.
        group: Measures it, together with the others of the same group that are asked for.
        required_mb: Peak memory that is allowed above that of importing torch and jsonschema; None if any.
        required_s: Seconds that ours may take; None if any.
        libraries: Those that it needs in environments of their own.
        same: What both sides are held to as the same result, and how closely, in words; empty if to nothing.
    """

    ours: str
    required: float | None
    group: Group
    required_mb: float | None = None
    required_s: float | None = None
    libraries: tuple[str, ...] = ()
    same: str = ""


_GRID = "the texts of the packaged study's grid on SmolLM2-135M, 35 cells, 10 prompts, 80 tokens"
_SAME_TEXTS = (
    "each text of the peer's, token by token, up to the first near-tie of ours (the two largest logits within 1e-4 of "
    "each other)"
)
_SAME_PERPLEXITY = "the mean negative log-likelihood of each cell of the peer's, within 1e-4 of its size"
_SAME_SCORES = "the files of scores, byte by byte"
_ROOF = 0.6
_REQUIRED_ROOFS = ("roofline_prefill", "roofline_perplexity")
_PERPLEXITY = "perplexity of the packaged study's corpus in its 35 cells"


BENCHMARKS = {
    validate_vs_sha256sum_and_import.NAME: Benchmark(
        "`steer-eval validate` on a consistent repo of 193 MB: 13 vectors, carried vectors, transfer maps, two SAEs, "
        "feature tables, card and manifest",
        1 / 1.5,
        validate_vs_sha256sum_and_import.measure,
        required_mb=400.0,
        same="which files are not as their checksums say: none, and after one bit of the largest is flipped, that one",
    ),
    judge_cached_vs_calls.NAME: Benchmark(
        "`steer-eval judge` again on a finished run of the packaged study: every reply is in the log, no call is made",
        1.0,
        judge_cached_vs_calls.measure,
        same=_SAME_SCORES,
    ),
    judge_concurrent_vs_serial.NAME: Benchmark(
        "`steer-eval judge --concurrency 8` at an endpoint that answers in 0.1 s and takes eight calls, without a 429",
        2.0,
        judge_concurrent_vs_serial.measure,
        same=_SAME_SCORES,
    ),
    "sweep_vs_serial": Benchmark(f"{_GRID}, in float32", 14, sweeping.sweeps, same=_SAME_TEXTS),
    "sweep_vs_best_peer": Benchmark(
        f"{_GRID}, in float32", 3, sweeping.sweeps, libraries=sweeping.LIBRARIES, same=_SAME_TEXTS
    ),
    "sweep_bf16_vs_serial": Benchmark(f"{_GRID}, in bfloat16", 30, sweeping.sweeps),
    "perplexity_grid_vs_serial": Benchmark(_PERPLEXITY, 2, sweeping.perplexities, same=_SAME_PERPLEXITY),
    "perplexity_grid_vs_lm_eval": Benchmark(_PERPLEXITY, 2, sweeping.perplexities, same=_SAME_PERPLEXITY),
    "extract_vs_per_layer": Benchmark(
        "vectors of the packaged study's 5 layers from its 80 contrast pairs",
        6,
        sweeping.extract_vs_per_layer,
        same="the vectors of the peer's pairs, within 1e-4 of their norm",
    ),
    **{
        name: Benchmark(roofline.words, _ROOF if name in _REQUIRED_ROOFS else None, limits.rooflines)
        for name, roofline in limits.ROOFLINES.items()
    },
    **{name: Benchmark(f"a sweep of {limits.SMALL_SWEEP}", None, limits.growth) for name in limits.GROWTH},
    "sae_step_vs_dense": Benchmark(
        sae_steps.WORDS,
        2.5,
        sae_steps.step_vs_dense,
        same="the unexplained variance of each step's batch, within 1e-3 of its size",
    ),
    "sae_step_vs_sae_lens": Benchmark(sae_steps.WORDS, 3, sae_steps.step_vs_sae_lens, libraries=(sae_steps.LIBRARY,)),
    "start_help": Benchmark("`steer-eval --help`", None, starting.start_help, required_s=0.3),
    "start_validate": Benchmark(
        "`steer-eval validate` of the packaged study", None, starting.start_validate, required_s=1.5
    ),
    "start_model": Benchmark(
        "the packaged study's model from the cache into memory, in a process that was started for it and has imported "
        "torch, transformers' Auto classes and our modules: checksums, the modules of its architecture, and weights",
        None,
        starting.start_model,
        required_s=3.0,
        same="the sum of each parameter",
    ),
}
"""Every comparison, by its name. To add one, write a module with a group and register it here."""

_HEAD = """\
# Benchmarks

Rendered from `results.json` by `python benchmarks/run.py`; `python benchmarks/run.py NAME` measures one comparison
again and keeps the others.

**Ratio** is the peer's time over ours, in every comparison: how many times faster than the peer; more than 1 is faster,
less is slower. The sides run as child processes in turn, ours and the peer's, after a run of each, or a small piece of
it, that is not counted; files are in the page cache. Comparisons that are run together and have a side in common
(sweeps, perplexities, growth) share its runs: each side has one turn in a round, and a pair is what two sides took in
the same round. The ratio is the median of the pairs' ratios, the times are medians of their own, and the **spread** is
the interquartile range of the pairs' ratios over their median. **Rounds** is how many pairs there are, from three,
where a round takes long, to nine, and **Least** the least of their ratios; `results.json` has all of them. What is
required is met or missed by the median; it is met within noise if the least lies below it. **Peak** is the largest
resident memory of our largest process, mapped files included, beside it that of the peer's, where that is a process of
its own. Our side of sweeps, perplexities, extraction, growth and rooflines has 8 GB for its batches (`--memory 8`),
whatever else is resident. **Same result** says whether both sides came to the same where both do the same; what was
compared and how closely stands below the table. Where the peer does a part of the work, that part is compared.

`sweep_*` and `growth_*` are the generation of texts. `steer-eval sweep` measures perplexities as well, which have
comparisons of their own (`perplexity_*`), and in bfloat16 a sample in float32 besides.

Where a peer does a part of the work, its time is scaled to all of it. Loading a model is left out everywhere but in
`start_model`. For `roofline_*` the peer is the limit: the same matrix products alone, each in the fastest way that we
know of, so the ratio is the share of the limit that we reach. For `growth_*` the peer is our own, with twice as much of
one thing, so the ratio is how many times longer that takes; a table of its own has four times as much.

The versions below are ours. `steering-vectors`, `repeng` and SAELens run in environments of their own, as they exclude
each other's requirements; the peer's words have the versions there.
"""

_COLUMNS = (
    "Comparison",
    "Ours",
    "Peer",
    "Ratio",
    "Required",
    "Least",
    "Spread",
    "Rounds",
    "Same result",
    "Peak",
    "Above the import",
    "Peer's peak",
)


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
        *_whole(results),
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
    ]
    for entry in results["comparisons"]:
        benchmark = benchmarks.get(entry["name"])
        above = entry["peak_mb"] - host["import_mb"]
        cells = (
            f"`{entry['name']}`",
            _seconds(entry["ours_s"], benchmark.required_s if benchmark else None),
            f"{entry['peer_s']:.2f} s",
            f"**{entry['ratio']:.2f}**",
            _ratio(entry, benchmark.required if benchmark else None),
            # Results of before something was noted are shown without.
            f"{min(entry['rounds']):.2f}" if "rounds" in entry else "",
            f"{entry['spread']:.0%}",
            str(entry.get("pairs", "")),
            {True: "yes", False: "**no**", None: "n/a"}[entry["identical"]],
            f"{entry['peak_mb']:.0f} MB",
            _memory(above, benchmark.required_mb if benchmark else None),
            f"{entry['peer_peak_mb']:.0f} MB" if "peer_peak_mb" in entry else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    for entry in results["comparisons"]:
        benchmark = benchmarks.get(entry["name"])
        ours = benchmark.ours if benchmark else "not among the comparisons any more"
        said = f"{_same(entry, benchmark)}{_near_ties(entry)}{_measured(entry)}"
        lines += ["", f"- `{entry['name']}`: {ours}. Peer: {entry['peer']}.{said}"]
    return "\n".join(lines + _growth(results["comparisons"])) + "\n"


def _whole(results: Mapping[str, Any]) -> list[str]:
    """How long everything took, if it was run at once."""
    whole = results.get("whole_run")
    if not whole:
        return []
    return [f"All {whole['comparisons']} comparisons took {whole['minutes']:.1f} min together, on {whole['date']}."]


def _same(entry: Mapping[str, Any], benchmark: Benchmark | None) -> str:
    """What was compared."""
    if entry["identical"] is None or benchmark is None or not benchmark.same:
        return ""
    return f" Compared: {benchmark.same}."


def _near_ties(entry: Mapping[str, Any]) -> str:
    """How many texts part at a near-tie, and where."""
    if "near_ties" not in entry:
        return ""
    places = "; ".join(f"cell {cell}, prompt {prompt}, token {token}" for cell, prompt, token in entry["near_ties"])
    return f" Texts that part at a near-tie: {len(entry['near_ties'])}{f' ({places})' if places else ''}."


def _measured(entry: Mapping[str, Any]) -> str:
    """When, and with which code."""
    measured = entry.get("measured")
    if not measured:
        return ""
    commit = f", commit {measured['commit']}" if "commit" in measured else ""
    return f" Measured on {measured['date']} with {measured['steer_eval']}{commit}."


def _growth(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What more of one thing costs, as a table."""
    grown = [entry for entry in entries if "points" in entry]
    if not grown:
        return []
    times = sorted({point["times"] for entry in grown for point in entry["points"]})
    lines = ["", "## Growth", "", f"| Comparison | {' | '.join(f'{number} times' for number in times)} |"]
    lines.append(f"|---|{'---|' * len(times)}")
    for entry in grown:
        points = {point["times"]: f"{point['seconds']:.2f} s ({point['ratio']:.2f})" for point in entry["points"]}
        lines.append(f"| `{entry['name']}` | {' | '.join(points.get(number, '') for number in times)} |")
    return lines


def _limit(text: str, met: bool) -> str:
    return f"{text} ({'met' if met else '**missed**'})"


def _seconds(seconds: float, allowed: float | None) -> str:
    text = f"{seconds:.2f} s"
    return text if allowed is None else _limit(f"{text}, ≤ {allowed:g} s", seconds <= allowed)


def _ratio(entry: Mapping[str, Any], required: float | None) -> str:
    if required is None:
        return ""
    met = entry["ratio"] >= required
    if met and min(entry.get("rounds", [entry["ratio"]])) < required:
        return f"≥ {required:.2f} (met, within noise)"
    return _limit(f"≥ {required:.2f}", met)


def _memory(above: float, allowed: float | None) -> str:
    text = f"{above:.0f} MB"
    return text if allowed is None else _limit(f"{text}, ≤ {allowed:.0f} MB", above <= allowed)


def grouped(names: Sequence[str], benchmarks: Mapping[str, Benchmark]) -> dict[Group, tuple[str, ...]]:
    """Comparisons by the group that measures them, each group where the first of its comparisons was."""
    together: dict[Group, tuple[str, ...]] = {}
    for name in names:
        group = benchmarks[name].group
        together[group] = (*together.get(group, ()), name)
    return together


def main(
    arguments: Sequence[str] | None = None,
    benchmarks: Mapping[str, Benchmark] = BENCHMARKS,
    described: Callable[[str], dict[str, Any]] = machine,
) -> int:
    """Run comparisons and write both files.

    Args:
        arguments: Of the command line.
        benchmarks: What can be run, by name.
        described: Describes this machine, given an interpreter.

    Returns:
        1 if two sides gave different results, 2 if something could not be measured, else 0: times are for people to
        judge.
    """
    parser = argparse.ArgumentParser(description="Run side-by-side benchmarks.")
    parser.add_argument("name", nargs="*", help=f"comparisons to run, all by default: {', '.join(benchmarks)}")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of runs; take more on a busy machine")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the results file; RESULTS.md goes beside it")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.name if name not in benchmarks]:
        parser.error(f"there is no comparison {', '.join(unknown)}; there are {', '.join(benchmarks)}")
    names = list(dict.fromkeys(options.name or benchmarks))
    began = time.monotonic()
    try:
        # What can't be measured or merged is better known of before an hour of measuring than after.
        enough(options.pairs)
        for library in sorted({library for name in names for library in benchmarks[name].libraries}):
            python_of(library)
        host, code = described(sys.executable), stamp()
        before = continued(read_results(options.results), host, names)
        measured: list[Comparison] = []
        with tempfile.TemporaryDirectory(prefix="steer-eval-bench-") as shared:
            for group, together in grouped(names, benchmarks).items():
                print(f"{', '.join(together)}: at most {options.pairs} pairs", file=sys.stderr)
                start = time.monotonic()
                with tempfile.TemporaryDirectory(prefix="steer-eval-bench-") as folder:
                    found = group(Asked(together, options.pairs, Path(folder), Path(shared)))
                measured += found
                # What is done is kept, whatever comes after it.
                results = merged(before, host, measured, code)
                _write(options.results, results, benchmarks)
                for each in found:
                    print(f"{each.name}: ratio {each.ratio}, spread {each.spread:.0%}", file=sys.stderr)
                print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
        minutes = (time.monotonic() - began) / 60
        if set(names) == set(benchmarks):
            whole = {"minutes": round(max(minutes, 0.1), 1), "comparisons": len(measured), "date": code["date"]}
            _write(options.results, {**results, "whole_run": whole}, benchmarks)
    except MeasurementError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{len(measured)} comparisons, {minutes:.1f} min", file=sys.stderr)
    return int(any(entry.identical is False for entry in measured))


def _write(path: Path, results: Mapping[str, Any], benchmarks: Mapping[str, Benchmark]) -> None:
    """Write both files."""
    write_results(path, results)
    path.with_name("RESULTS.md").write_text(rendered(results, benchmarks), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
