"""Workers answer when asked, take turns, and their costs become ratios of pairs; nothing here depends on real times."""

from __future__ import annotations

import itertools
import sys
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import pytest
import workers
from hypothesis import given
from hypothesis import strategies as st
from measuring import Command, MeasurementError, Timing
from workers import Answer, Rounds, Side, Worker, warmed_up

HERE = Path(workers.__file__).parent
WARM, WORK = {"do": "warm"}, {"do": "work"}
SERVING = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from serving import serve
block = bytearray(60_000_000)
print("libraries print what they like")

def add(left, right):
    print("also while they work")
    return left + right, {{"sum": left + right}}

def fail():
    raise RuntimeError("no such cell")

serve({{"add": add, "fail": fail}})
"""


def worker(code: str = SERVING) -> Command:
    return Command((sys.executable, "-c", code))


def test_a_worker_answers_with_what_came_out_and_how_long_it_took():
    with Worker(worker()) as running:
        first = running.ask({"do": "add", "left": 1, "right": 2})
        second = running.ask({"do": "add", "left": 3, "right": 4})
    assert (first.units, first.result) == (3, {"sum": 3})
    assert (second.units, second.result) == (7, {"sum": 7})
    assert first.seconds > 0
    assert running.peak_mb >= 60


def test_a_worker_that_fails_says_why():
    with pytest.raises(MeasurementError, match="no such cell"), Worker(worker()) as running:
        running.ask({"do": "fail"})
    with pytest.raises(MeasurementError, match="early"), Worker(worker("import sys; sys.exit('early')")) as running:
        running.ask({"do": "add"})


def test_a_worker_that_is_dead_when_asked_still_says_why():
    """Closing its pipe tries to write the request again, which must not take the place of what it said."""

    def asked_late() -> None:
        with Worker(worker("import sys; sys.exit('early')")) as running:
            running._process.wait()
            running.ask({"do": "add"})

    with pytest.raises(MeasurementError, match="early"):
        asked_late()


def test_a_library_tells_the_versions_of_its_environment():
    code = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from serving import serve, versions
serve({{"versions": versions("numpy", "torch", "hypothesis")}})
"""
    numpy, torch, hypothesis = (metadata.version(name) for name in ("numpy", "torch", "hypothesis"))
    with Worker(worker(code)) as running:
        assert workers.told_versions(running) == f"{numpy} on torch {torch}, hypothesis {hypothesis}"


class Prepared:
    """Gives prepared answers, and remembers in what order workers were started, asked and ended."""

    def __init__(self, answers: dict[str, list[Answer]]) -> None:
        self.answers = {name: iter(given) for name, given in answers.items()}
        self.seen: list[str] = []

    def __call__(self, command: Command) -> Prepared._One:
        return Prepared._One(self, command.arguments[0])

    class _One:
        def __init__(self, parent: Prepared, name: str) -> None:
            self.parent, self.name, self.peak_mb = parent, name, 0.0

        def __enter__(self) -> Prepared._One:
            return self

        def __exit__(self, *_: object) -> None:
            self.peak_mb = 1e6
            self.parent.seen.append(f"{self.name} ends")

        def ask(self, request: dict[str, str]) -> Answer:
            self.parent.seen.append(f"{self.name} {request['do']}")
            return next(self.parent.answers[self.name]) if request["do"] == "work" else Answer(1e9, 1, None)


def rounds(answers: dict[str, list[Answer]]) -> tuple[list[str], Rounds]:
    prepared = Prepared(answers)
    with ExitStack() as stack:
        sides = {
            name: Side(stack.enter_context(warmed_up(Command((name,)), WARM, start=prepared)), WORK) for name in answers
        }
        measured = workers.in_rounds(sides, rounds=min(map(len, answers.values())))
    return prepared.seen, measured


def test_sides_take_turns_after_a_warm_up_and_the_peer_is_scaled_to_our_units():
    ours = [Answer(2.0, 100, "a"), Answer(2.0, 100, "b"), Answer(4.0, 100, "c")]
    peer = [Answer(3.0, 10, "x"), Answer(4.0, 10, "y"), Answer(2.0, 10, "z")]
    seen, measured = rounds({"ours": ours, "peer": peer})
    timing = measured.timing("ours", "peer")
    assert seen == ["ours warm", "peer warm", *["ours work", "peer work"] * 3, "peer ends", "ours ends"]
    # Ratios 15, 20 and 5.
    assert timing.ratio == 15
    assert timing.spread == pytest.approx((17.5 - 10) / 15)
    assert (timing.ours_s, timing.peer_s, timing.peak_mb, timing.peer_peak_mb) == (2, 30, 1e6, 1e6)
    assert timing.rounds == (15, 20, 5)
    assert (measured.last("ours").result, measured.last("peer").result) == ("c", "z")


seconds = st.floats(0.1, 1e3)


@given(st.lists(st.fixed_dictionaries({"a": seconds, "b": seconds, "c": seconds}), min_size=3, max_size=6))
def test_a_pair_among_several_sides_is_what_the_two_alone_would_give(times):
    """Whoever else has turns, a ratio is that of two sides of one round."""
    answers = {name: [Answer(each[name], 1, None) for each in times] for name in "abc"}
    seen, several = rounds(answers)
    assert [line for line in seen if line.endswith("work")] == ["a work", "b work", "c work"] * len(times)
    for ours, peer in itertools.permutations("abc", 2):
        pairs = [(each[ours], each[peer]) for each in times]
        assert several.timing(ours, peer) == Timing.of(pairs, 1e6, 1e6)
        # Pairs of different rounds would give what is not in this range.
        ratios = [theirs / mine for mine, theirs in pairs]
        assert min(ratios) <= several.timing(ours, peer).ratio <= max(ratios)


def test_two_sides_may_have_one_worker():
    prepared = Prepared({"peer": [Answer(float(number), 1, number) for number in range(1, 7)]})
    with prepared(Command(("peer",))) as worker:
        measured = workers.in_rounds({"small": Side(worker, WORK), "large": Side(worker, WORK)}, rounds=3)
    assert prepared.seen == [*["peer work"] * 6, "peer ends"]
    assert (measured.last("small").result, measured.last("large").result) == (5, 6)
    timing = measured.timing("small", "large")
    assert timing.ratio == pytest.approx(4 / 3)
    assert timing.peer_peak_mb is None, "it would be that of both"


def test_a_doubled_piece_of_work_is_not_scaled():
    _, measured = rounds({"ours": [Answer(2.0, 10, None)] * 3, "peer": [Answer(3.0, 20, None)] * 3})
    timing = measured.timing("ours", "peer", scaled=False)
    assert (timing.peer_s, timing.ratio) == (3, 1.5)


def test_a_peak_is_not_told_before_the_worker_has_ended():
    prepared = Prepared({"ours": [Answer(1.0, 1, None)] * 3, "peer": [Answer(1.0, 1, None)] * 3})
    with prepared(Command(("ours",))) as ours, prepared(Command(("peer",))) as peer:
        measured = workers.in_rounds({"ours": Side(ours, WORK), "peer": Side(peer, WORK)}, rounds=3)
        with pytest.raises(MeasurementError, match="peak memory can't be told"):
            measured.timing("ours", "peer")


def test_two_rounds_are_too_few_and_nothing_is_asked():
    with pytest.raises(MeasurementError, match="at least 3"):
        rounds({"ours": [Answer(1.0, 1, None)] * 2, "peer": []})
