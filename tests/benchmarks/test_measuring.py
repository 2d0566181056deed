"""Measurements are taken in pairs and summed up rightly; nothing here depends on real times."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jsonschema
import measuring
import pytest
from environments import python_of
from measuring import Command, Comparison, Cost, MeasurementError, Timing
from results_file import SCHEMA

OURS, PEER = [Command(("ours",))], [Command(("peer",))]
HUGE = 1e6
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


def test_runs_alternate_after_one_of_each_that_is_not_counted():
    watch = Stopwatch([1e9, 1, 1, 1], [1e-9, 2, 2, 2])
    timing = measuring.compare(OURS, PEER, pairs=3, runner=watch)

    assert watch.asked == ["ours", "peer"] * 4
    expected = Timing(ours_s=1, peer_s=2, ratio=2, spread=0, peak_mb=HUGE, rounds=(2, 2, 2), peer_peak_mb=2 * HUGE)
    assert timing == expected


def test_the_ratio_is_the_median_of_pairs_and_the_spread_their_quartiles():
    # Ratios 4, 1, 2, 3, 10 in this order. The medians alone would give 4 / 2.
    watch = Stopwatch([0, 1, 8, 2, 2, 1], [0, 4, 8, 4, 6, 10])
    timing = measuring.compare(OURS, PEER, pairs=5, runner=watch)

    assert (timing.ours_s, timing.peer_s) == (2, 6)
    assert timing.ratio == 3
    assert timing.spread == pytest.approx((4 - 2) / 3)
    # The rounds are kept as they came; what no run counted is not among them.
    assert timing.rounds == (4, 1, 2, 3, 10)


def test_an_entry_has_its_rounds_with_no_more_digits_than_they_have():
    timing = Timing.of([(3.0, 1.0), (3.0, 2.0), (3.0, 7.0)], HUGE, 123.456 + measuring.own_peak_mb())
    entry = Comparison.of("a", "other", timing, identical=None)

    assert (entry.pairs, entry.rounds, entry.ratio) == (3, (0.333, 0.667, 2.333), 0.667)
    assert entry.peer_peak_mb == round(timing.peer_peak_mb, 1)


@pytest.mark.parametrize("peak_mb", [None, 1.0])
def test_a_peer_no_larger_than_the_measuring_process_has_no_peak(peak_mb):
    assert Timing.of([(1.0, 1.0)] * 3, HUGE, peak_mb).peer_peak_mb is None


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

    jsonschema.validate(described, SCHEMA["properties"]["machine"])
