"""Workers answer when asked, and their costs become ratios; the peers' texts are compared as CONTRACTS has it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import sweeping
import workers
from measuring import Command, MeasurementError
from workers import Answer, Side, Worker

HERE = Path(workers.__file__).parent
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


class Prepared:
    """Gives prepared answers, and remembers in what order it was asked."""

    def __init__(self, answers: dict[str, list[Answer]]) -> None:
        self.answers = {name: iter(given) for name, given in answers.items()}
        self.asked: list[str] = []

    def __call__(self, command: Command) -> Prepared._One:
        return Prepared._One(self, command.arguments[0])

    class _One:
        def __init__(self, parent: Prepared, name: str) -> None:
            self.parent, self.name, self.peak_mb = parent, name, 1e6

        def __enter__(self) -> Prepared._One:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def ask(self, request: dict[str, str]) -> Answer:
            self.parent.asked.append(f"{self.name} {request['do']}")
            return next(self.parent.answers[self.name]) if request["do"] == "work" else Answer(1e9, 1, None)


def side(name: str) -> Side:
    return Side(Command((name,)), {"do": "warm"}, {"do": "work"})


def rounds(ours: list[Answer], peer: list[Answer], **options: object):
    prepared = Prepared({"ours": ours, "peer": peer})
    answer = workers.in_rounds(side("ours"), side("peer"), pairs=len(ours), start=prepared, **options)
    return prepared.asked, *answer


def test_sides_take_turns_after_a_warm_up_and_the_peer_is_scaled_to_our_units():
    ours = [Answer(2.0, 100, "a"), Answer(2.0, 100, "b"), Answer(4.0, 100, "c")]
    peer = [Answer(3.0, 10, "x"), Answer(4.0, 10, "y"), Answer(2.0, 10, "z")]
    asked, timing, mine, theirs = rounds(ours, peer)
    assert asked == ["ours warm", "peer warm", *["ours work", "peer work"] * 3]
    # Ratios 15, 20 and 5.
    assert timing.ratio == 15
    assert timing.spread == pytest.approx((17.5 - 10) / 15)
    assert (timing.ours_s, timing.peer_s) == (2, 30)
    assert (mine.result, theirs.result) == ("c", "z")


def test_a_doubled_piece_of_work_is_not_scaled():
    _, timing, _, _ = rounds([Answer(2.0, 10, None)] * 3, [Answer(3.0, 20, None)] * 3, scaled=False)
    assert (timing.peer_s, timing.ratio) == (3, 1.5)


def test_two_rounds_are_too_few():
    with pytest.raises(MeasurementError, match="at least 3"):
        rounds([Answer(1.0, 1, None)] * 2, [Answer(1.0, 1, None)] * 2)


def test_the_sample_is_spread_over_layers_coefficients_and_prompts():
    layers, coefficients, prompts = 5, 7, 10
    work = {"cells": [[layer, c] for layer in range(layers) for c in range(coefficients)], "prompts": [[]] * prompts}
    rows = sweeping.serial_rows(work)
    assert len(rows) == sweeping.SAMPLE
    cells = [work["cells"][cell] for cell, _ in rows]
    assert {layer for layer, _ in cells} == set(range(layers))
    assert len({coefficient for _, coefficient in cells}) >= 5
    assert len({prompt for _, prompt in rows}) == sweeping.SAMPLE
    assert sweeping.sample(2) == [0, 1]


@pytest.mark.parametrize(
    ("tokens", "tie", "same"),
    [
        ([5, 6, 7], None, True),
        ([5, 6, 7, 2], None, True),
        ([5, 6, 8], None, False),
        ([5, 6], None, False),
        ([5, 6, 8], 2, True),
        ([5, 9, 8], 2, False),
    ],
)
def test_texts_are_the_same_up_to_a_near_tie(tokens, tie, same):
    mine = Answer(1.0, 3, [[0, 0, [5, 6, 7], tie], [1, 0, [3], None]])
    assert sweeping.same_texts(mine, [((0, 0), tokens)], eos=[2]) is same


def test_an_absent_library_says_how_to_get_it(tmp_path):
    with pytest.raises(MeasurementError, match="make bench"):
        sweeping.library("repeng", tmp_path, environments=tmp_path)


def test_every_comparison_of_the_plan_is_registered():
    import run

    assert {
        "sweep_vs_serial",
        "sweep_vs_best_peer",
        "sweep_bf16_vs_serial",
        "perplexity_grid_vs_serial",
        "extract_vs_per_layer",
        "roofline_prefill",
        "start_help",
        "start_validate",
        "start_model",
    } <= run.BENCHMARKS.keys()
