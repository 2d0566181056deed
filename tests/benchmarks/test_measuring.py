"""Measurements are taken in pairs, summed up rightly and kept beside others; nothing here depends on real times."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import jsonschema
import measuring
import pytest
import run
from environments import python_of
from measuring import Asked, Command, Comparison, Cost, MeasurementError, Timing

OURS, PEER = [Command(("ours",))], [Command(("peer",))]
HUGE = 1e6
MACHINE = {
    "cpu": "one",
    "cores": 2,
    "memory_gb": 16.0,
    "system": "Linux x86_64",
    "versions": {"torch": "2.13.0"},
    "import_mb": 230.0,
}
PYTHON = (sys.executable, "-I", "-S", "-c")


class Stopwatch:
    """Gives prepared durations instead of running anything, and remembers what was asked for."""

    def __init__(self, ours: Sequence[float], peer: Sequence[float], peak_mb: float = HUGE) -> None:
        self.durations = {"ours": iter(ours), "peer": iter(peer)}
        self.peak_mb = peak_mb
        self.asked: list[str] = []

    def __call__(self, commands: Sequence[Command]) -> Cost:
        [command] = commands
        name = command.arguments[0]
        self.asked.append(name)
        return Cost(next(self.durations[name]), self.peak_mb if name == "ours" else 2 * self.peak_mb)


def entry(name: str, **changes: object) -> Comparison:
    return replace(Comparison(name, 2.0, "other", 3.0, 1.5, 0.1, True, 99.5, 7), **changes)


def test_runs_alternate_after_one_of_each_that_is_not_counted():
    watch = Stopwatch([1e9, 1, 1, 1], [1e-9, 2, 2, 2])
    timing = measuring.compare(OURS, PEER, pairs=3, runner=watch)

    assert watch.asked == ["ours", "peer"] * 4
    assert timing == Timing(ours_s=1, peer_s=2, ratio=2, spread=0, peak_mb=HUGE, pairs=3)


def test_the_ratio_is_the_median_of_pairs_and_the_spread_their_quartiles():
    # Ratios 4, 1, 2, 3, 10 in this order. The medians alone would give 4 / 2.
    watch = Stopwatch([0, 1, 8, 2, 2, 1], [0, 4, 8, 4, 6, 10])
    timing = measuring.compare(OURS, PEER, pairs=5, runner=watch)

    assert (timing.ours_s, timing.peer_s) == (2, 6)
    assert timing.ratio == 3
    assert timing.spread == pytest.approx((4 - 2) / 3)


def test_the_median_of_an_even_number_lies_between():
    timing = measuring.compare(OURS, PEER, pairs=4, runner=Stopwatch([0, 1, 1, 1, 1], [0, 1, 2, 4, 8]))

    assert timing.ratio == timing.peer_s == 3


def test_two_pairs_are_too_few():
    with pytest.raises(MeasurementError, match="at least 3"):
        measuring.compare(OURS, PEER, pairs=2, runner=Stopwatch([1] * 3, [1] * 3))


def test_a_peak_below_that_of_the_measuring_process_is_not_believed():
    """A child starts with its parent's peak, so such a number would be the parent's."""
    watch = Stopwatch([1] * 4, [1] * 4, peak_mb=measuring.own_peak_mb() / 2)

    with pytest.raises(MeasurementError, match="peak memory can't be told"):
        measuring.compare(OURS, PEER, pairs=3, runner=watch)


def test_the_peak_is_that_of_the_largest_process():
    small = Command((*PYTHON, "pass"))
    size = int(measuring.own_peak_mb() * 1e6) + 200_000_000
    large = Command((*PYTHON, f"bytearray(b'x') * {size}"))

    assert measuring.run([small, large, small]).peak_mb >= size / 1e6
    assert measuring.run([small]).peak_mb < size / 1e6


def test_a_command_runs_where_and_with_what_it_says(tmp_path):
    code = "import os; open(os.environ['NAME'], 'w').close()"
    measuring.run([Command((*PYTHON, code), tmp_path, {"NAME": "here"})])

    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_command_that_fails_ends_the_measurement_with_what_it_said(tmp_path):
    fails = Command((*PYTHON, "import sys; sys.exit('no such repo')"))
    after = Command((*PYTHON, "open('ran', 'w').close()"), tmp_path)

    with pytest.raises(MeasurementError, match="ended with 1: no such repo"):
        measuring.run([fails, after])
    assert list(tmp_path.iterdir()) == []


def test_some_entries_are_replaced_and_the_others_kept():
    before = measuring.merged(None, MACHINE, [entry("b"), entry("c"), entry("a")])
    after = measuring.merged(before, {**MACHINE, "import_mb": 231.0}, [entry("b", ratio=9.0), entry("d")])

    assert [each["name"] for each in before["comparisons"]] == ["a", "b", "c"]
    expected = [entry("a"), entry("b", ratio=9.0), entry("c"), entry("d")]
    assert after["comparisons"] == [asdict(each) for each in expected]
    assert after["machine"]["import_mb"] == 231.0


def test_entries_of_another_machine_never_stand_beside_new_ones():
    before = measuring.merged(None, MACHINE, [entry("a"), entry("b")])
    other = {**MACHINE, "cpu": "two"}

    assert measuring.continued(before, {**MACHINE, "import_mb": 231.0}, ["a"]) == before
    with pytest.raises(MeasurementError, match=r"^b: measured on another machine"):
        measuring.continued(before, other, ["a", "c"])
    assert measuring.continued(before, other, ["a", "b"]) is None
    assert measuring.continued(None, other, ["a"]) is None


def test_a_results_file_reads_as_it_was_written(tmp_path):
    path = tmp_path / "results.json"
    results = measuring.merged(None, MACHINE, [entry("a", identical=None)])
    measuring.write_results(path, results)

    assert measuring.read_results(path) == results
    assert measuring.read_results(tmp_path / "absent.json") is None


def test_results_from_before_rounds_were_counted_are_read_and_shown_without(tmp_path):
    path = tmp_path / "results.json"
    results = measuring.merged(None, MACHINE, [entry("a"), entry("b")])
    del results["comparisons"][0]["pairs"]
    measuring.write_results(path, results)

    [old, new] = [
        line for line in run.rendered(measuring.read_results(path), {}).splitlines() if line.startswith("| `")
    ]
    assert ("| 10% |  | yes |" in old, "| 10% | 7 | yes |" in new) == (True, True)


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(measuring.SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results.update(note="x"),
        lambda results: results["machine"].update(load=1.0),
        lambda results: results["comparisons"][0].update(better=True),
        lambda results: results["comparisons"][0].pop("spread"),
        lambda results: results["comparisons"][0].update(ratio=0),
        lambda results: results["comparisons"][0].update(pairs=0),
        lambda results: results["comparisons"][0].update(identical="yes"),
    ],
    ids=["more", "more of the machine", "more of an entry", "less", "no ratio", "no rounds", "no answer"],
)
def test_results_of_another_form_are_neither_written_nor_read(tmp_path, change):
    path = tmp_path / "results.json"
    results = measuring.merged(None, MACHINE, [entry("a")])
    change(results)

    with pytest.raises(jsonschema.ValidationError):
        measuring.write_results(path, results)
    assert not path.exists()
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(MeasurementError, match="no results file"):
        measuring.read_results(path)


class Groups:
    """Groups that give prepared ratios, and remember what they were asked for together."""

    def __init__(self, ratios: dict[str, float]) -> None:
        self.ratios = ratios
        self.asked: list[Asked] = []

    def group(self) -> run.Group:
        def measured(asked: Asked) -> list[Comparison]:
            assert list(asked.folder.iterdir()) == []
            (asked.folder / "left").touch()
            self.asked.append(asked)
            return [entry(name, ratio=self.ratios[name], identical=name != "other") for name in asked.names]

        return measured


def test_a_run_of_some_comparisons_keeps_the_others_and_writes_both_files(tmp_path, capsys):
    path = tmp_path / "results.json"
    groups = Groups({"fast": 2.0, "slow": 0.5, "other": 1.0})
    benchmarks = {name: run.Benchmark("ours", 1.0, groups.group()) for name in groups.ratios}

    def measured(*names: str) -> int:
        return run.main(["--results", str(path), *names], benchmarks, lambda _: MACHINE)

    assert measured("fast", "slow") == 0
    assert re.search(r"^2 comparisons, 0\.0 min$", capsys.readouterr().err, re.MULTILINE)
    groups.ratios["slow"] = 0.75
    assert measured("other", "slow") == 1, "the two sides of one differ"
    assert [(asked.names, asked.pairs) for asked in groups.asked] == [
        ((name,), run.PAIRS) for name in ("fast", "slow", "other", "slow")
    ]
    results = measuring.read_results(path)
    assert {each["name"]: each["ratio"] for each in results["comparisons"]} == {"fast": 2.0, "other": 1.0, "slow": 0.75}
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert text == run.rendered(results, benchmarks)
    [fast, other, slow] = [line for line in text.splitlines() if line.startswith("| `")]
    assert "| **2.00** | ≥ 1.00 (met) | 10% | 7 | yes |" in fast
    assert "| **no** |" in other
    assert "| **0.75** | ≥ 1.00 (**missed**) |" in slow


def test_comparisons_of_a_group_are_measured_together_and_only_those_asked_for(tmp_path):
    groups = Groups(dict.fromkeys("abcde", 1.0))
    two, three = groups.group(), groups.group()
    benchmarks = {name: run.Benchmark("ours", None, three if name in "ace" else two) for name in "abcde"}
    path = tmp_path / "results.json"

    run.main(["--results", str(path), "e", "b", "a", "e"], benchmarks, lambda _: MACHINE)
    assert [asked.names for asked in groups.asked] == [("e", "a"), ("b",)]
    # What is written once for the run is seen by all.
    assert len({asked.shared for asked in groups.asked}) == 1
    assert not groups.asked[0].shared.exists()
    assert [each["name"] for each in measuring.read_results(path)["comparisons"]] == ["a", "b", "e"]


def test_what_was_measured_before_a_failure_is_kept(tmp_path):
    def fails(_asked: Asked) -> list[Comparison]:
        raise MeasurementError("no such cell")

    good = Groups({"a": 1.0})
    benchmarks = {"a": run.Benchmark("ours", None, good.group()), "b": run.Benchmark("ours", None, fails)}
    path = tmp_path / "results.json"

    assert run.main(["--results", str(path)], benchmarks, lambda _: MACHINE) == 2
    assert [each["name"] for each in measuring.read_results(path)["comparisons"]] == ["a"]


def test_what_can_not_be_measured_is_known_of_before_anything_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "python_of", partial(python_of, environments=tmp_path))
    groups = Groups({"a": 1.0, "b": 1.0})
    benchmarks = {
        "a": run.Benchmark("ours", None, groups.group()),
        "b": run.Benchmark("ours", None, groups.group(), libraries=("repeng",)),
    }
    arguments = ["--results", str(tmp_path / "results.json")]

    assert run.main(arguments, benchmarks, lambda _: MACHINE) == 2
    assert "repeng/bin/python is absent: `make bench` builds" in capsys.readouterr().err
    assert run.main([*arguments, "a", "--pairs", "2"], benchmarks, lambda _: MACHINE) == 2
    assert "2 pairs say nothing" in capsys.readouterr().err
    assert groups.asked == []
    assert run.main([*arguments, "a"], benchmarks, lambda _: MACHINE) == 0, "it is not needed for this one"


def test_an_environment_without_its_library_is_told_apart(tmp_path):
    for name in ("steering-vectors", "json"):
        bin_folder = tmp_path / name / "bin"
        bin_folder.mkdir(parents=True)
        (bin_folder / "python").symlink_to(sys.executable)

    assert python_of("json", tmp_path) == str(tmp_path / "json" / "bin" / "python")
    with pytest.raises(MeasurementError, match=r"has no steering-vectors: delete .*-vectors, and `make bench`"):
        python_of("steering-vectors", tmp_path)


def test_the_machine_is_described_as_results_need_it():
    described = measuring.machine(sys.executable)

    measuring_form = measuring.SCHEMA["properties"]["machine"]
    jsonschema.validate(described, measuring_form)


def test_the_published_results_are_in_order_and_rendered():
    results = measuring.read_results(run.RESULTS)

    assert {each["name"] for each in results["comparisons"]} <= run.BENCHMARKS.keys()
    rendered = run.RESULTS.with_name("RESULTS.md").read_text(encoding="utf-8")
    assert rendered == run.rendered(results, run.BENCHMARKS)
