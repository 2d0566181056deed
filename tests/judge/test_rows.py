"""Scores of cells rest on their own judgements."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge.cases import RUBRIC, subjects

from steer_eval.cells import Cell
from steer_eval.formats import schema
from steer_eval.judge.protocol import plan
from steer_eval.judge.rows import cell_scores, score_row
from steer_eval.judge.selection import best_cells
from steer_eval.judge.subjects import Ask, Judgement, ProtocolName, Role, Sample

CELL = Cell("m", "steered", 3, 2.0)
LEVELS = st.sampled_from(RUBRIC.levels)
SAMPLES = tuple(Sample(index, "p", f"t{index}") for index in range(3))


def call(level: float | None, repeat: int, role: Role = "cell", cell: Cell = CELL) -> Judgement:
    ask = Ask(cell, SAMPLES, RUBRIC.names, repeat, role)
    return Judgement(ask, reason="empty") if level is None else Judgement(ask, dict.fromkeys(RUBRIC.names, level))


def single(level: float | None, index: int, axis: str, cell: Cell = CELL) -> Judgement:
    ask = Ask(cell, (Sample(index, "p", "t"),), (axis,))
    return Judgement(ask, reason="empty") if level is None else Judgement(ask, {axis: level})


@settings(deadline=None)
@given(st.lists(LEVELS, min_size=1, max_size=7))
def test_the_score_of_calls_is_their_median(levels: list[float]) -> None:
    [score] = cell_scores([call(level, repeat) for repeat, level in enumerate(levels)], RUBRIC, "paper-cell")

    median = statistics.median(levels)
    assert all(abs(each - median) <= 0.25 and RUBRIC.on_scale(each) for each in score.scores.values())
    assert score.means["coherence"] == pytest.approx(statistics.fmean(levels))
    assert score.spread == ({} if len(levels) == 1 else dict.fromkeys(RUBRIC.names, max(levels) - min(levels)))


def test_fewer_than_half_scored_is_unscored() -> None:
    [score] = cell_scores([call(4.0, 0), call(None, 1), call(None, 2)], RUBRIC, "paper-cell")
    [enough] = cell_scores([call(4.0, 0), call(None, 1)], RUBRIC, "paper-cell")

    assert (score.is_scored, score.asked, score.scored, score.reasons) == (False, 3, 1, {"empty": 2})
    assert enough.is_scored


def test_an_axis_without_answers_leaves_the_cell_unscored() -> None:
    said = [single(3.0, i, axis) for i in range(4) for axis in RUBRIC.names[:2]]
    said += [single(None, i, RUBRIC.names[2]) for i in range(4)]
    [score] = cell_scores(said, RUBRIC, "sample")

    assert not score.is_scored
    assert score.reasons == {"empty": 4}


def test_checks_on_the_judge_count_towards_no_cell() -> None:
    said = [call(2.0, 0), call(5.0, 0, "duplicate")]
    said.append(Judgement(Ask(None, SAMPLES, RUBRIC.names, 0, "canary"), dict.fromkeys(RUBRIC.names, 5.0)))
    [score] = cell_scores(said, RUBRIC, "paper-cell")

    assert set(score.scores.values()) == {2.0}


@settings(deadline=None)
@given(st.lists(st.tuples(LEVELS, LEVELS, LEVELS), min_size=2, max_size=12))
def test_the_score_of_samples_is_their_mean_with_an_interval(levels: list[tuple[float, ...]]) -> None:
    said = [
        single(level, i, axis) for i, row in enumerate(levels) for axis, level in zip(RUBRIC.names, row, strict=True)
    ]
    [score] = cell_scores(said, RUBRIC, "sample")

    for index, axis in enumerate(RUBRIC.names):
        mean = statistics.fmean(row[index] for row in levels)
        assert score.means[axis] == pytest.approx(mean)
        assert abs(score.scores[axis] - mean) <= 0.25 + 1e-9
        assert score.intervals[axis].low - 1e-9 <= mean <= score.intervals[axis].high + 1e-9
    assert score.means["margin"] == pytest.approx(score.means["mature_anger"] - score.means["juvenile_rage"])


@settings(deadline=None)
@given(st.lists(LEVELS, min_size=1, max_size=5))
def test_rows_are_rows_of_judges_as_published(levels: list[float]) -> None:
    [score] = cell_scores([call(level, repeat) for repeat, level in enumerate(levels)], RUBRIC, "paper-cell")
    row = score_row(score, RUBRIC, {"judge": "x", "protocol": "paper-cell"})

    schema.check(row, "judge_row", file="row")
    assert row["margin"] == row["mature_anger"] - row["juvenile_rage"]
    assert list(row)[:7] == ["layer", "coef", *RUBRIC.names, "margin", "collapsed"]


@pytest.mark.parametrize(("protocol", "calls"), [("paper-cell", 4 * 2), ("sample", 4 * 3 * 3 * 2)])
def test_every_text_of_every_cell_is_asked_about(protocol: ProtocolName, calls: int) -> None:
    what = subjects()
    asks = plan(protocol, what, RUBRIC, repeats=2)
    counted = [ask for ask in asks if ask.role == "cell"]
    roles = [ask.role for ask in asks]

    assert len(counted) == calls
    for subject in what:
        for axis in RUBRIC.names:
            for repeat in range(2):
                shown = [
                    s
                    for a in counted
                    if a.cell == subject.cell and axis in a.axes and a.repeat == repeat
                    for s in a.samples
                ]
                assert sorted(shown, key=lambda s: s.prompt_idx) == list(subject.samples)
    assert roles.count("duplicate") == max(1, round(0.1 * calls / 2))
    assert roles.count("canary") == roles.count("canary-bait") == (1 if protocol == "paper-cell" else 3)
    assert asks == plan(protocol, list(reversed(what)), RUBRIC, repeats=2)


def test_the_first_repetition_keeps_the_order_of_the_prompts_and_others_do_not() -> None:
    asks = plan("paper-cell", subjects(1, 8), RUBRIC, repeats=3, checks=False)
    orders = {ask.repeat: [sample.prompt_idx for sample in ask.samples] for ask in asks}

    assert orders[0] == list(range(8))
    assert len({tuple(order) for order in orders.values()}) == 3
    assert all(sorted(order) == list(range(8)) for order in orders.values())


def margins(values: dict[float, list[float]], label: str = "steered") -> list[Judgement]:
    said = []
    for coef, row in values.items():
        cell = Cell("m", label, 3, coef)  # type: ignore[arg-type]
        for index, value in enumerate(row):
            said += [single(value, index, "mature_anger", cell), single(1.0, index, "juvenile_rage", cell)]
            said.append(single(3.0, index, "coherence", cell))
    return said


def test_all_cells_of_the_highest_margin_are_best() -> None:
    scores = cell_scores(margins({1.0: [4, 4, 4, 4], 2.0: [4, 4, 4, 4], 4.0: [1, 1, 1, 1]}), RUBRIC, "sample")
    best = best_cells(scores, RUBRIC)

    assert best is not None
    assert [cell.coef for cell in best.cells] == [1.0, 2.0]
    assert best.margin == 3.0


def test_luck_on_one_half_is_not_there_on_the_other() -> None:
    scores = cell_scores(margins({1.0: [5, 1, 5, 1], 2.0: [3, 3, 3, 3]}), RUBRIC, "sample")
    best = best_cells(scores, RUBRIC)

    assert best is not None
    even, odd = best.halves
    assert ([c.coef for c in even.chosen], even.there, even.elsewhere) == ([1.0], 4.0, 0.0)
    assert ([c.coef for c in odd.chosen], odd.there, odd.elsewhere) == ([2.0], 2.0, 2.0)


def test_controls_are_never_the_best_cell() -> None:
    said = margins({1.0: [2, 2]}) + margins({9.0: [5, 5]}, "random")
    best = best_cells(cell_scores(said, RUBRIC, "sample"), RUBRIC)

    assert best is not None
    assert [cell.coef for cell in best.cells] == [1.0]
    assert best_cells(cell_scores(margins({9.0: [5, 5]}, "random"), RUBRIC, "sample"), RUBRIC) is None
