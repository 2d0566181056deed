from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from studies import document, row, rows, vector, write_study

from steer_eval.cells import Cell
from steer_eval.consistency import row_conflicts, vector_conflicts
from steer_eval.evaluation.perplexity import Interval
from steer_eval.results import Sweep
from steer_eval.study import load_study

CELL = Cell("tiny", "steered", 3, 2.0)


@pytest.fixture
def study(tmp_path):
    return load_study(write_study(tmp_path, document()))


@pytest.fixture
def sweep(study):
    return Sweep("sweep_tiny.jsonl", tuple(rows(study, "tiny")))


def test_good_rows_have_no_conflict(study, sweep):
    assert [row_conflicts(each, sweep, study) for each in sweep.rows] == [[]] * len(sweep.rows)


CHANGES = {
    "ppl_ratio": (lambda each: replace(each, ppl_ratio=each.ppl_ratio * 1.0001), {"ppl_ratio"}),
    "ppl": (lambda each: replace(each, ppl=each.ppl * 1.0001), {"ppl_ratio", "ppl"}),
    "ppl and its ratio": (
        lambda each: replace(each, ppl=each.ppl * 1.0001, ppl_ratio=each.ppl_ratio * 1.0001),
        {"ppl"},
    ),
    "base_ppl": (lambda each: replace(each, base_ppl=each.base_ppl * 1.0001), {"ppl_ratio", "base_ppl"}),
    "base_ppl and its ratio": (
        lambda each: replace(each, base_ppl=each.base_ppl / 1.0001, ppl_ratio=each.ppl_ratio * 1.0001),
        {"base_ppl"},
    ),
    "collapsed": (lambda each: replace(each, collapsed=True), {"collapsed"}),
    "interval, low": (
        lambda each: replace(each, interval=Interval(each.interval.low * 0.999, each.interval.high)),
        {"ppl_ratio_interval[0]"},
    ),
    "interval, high": (
        lambda each: replace(each, interval=Interval(each.interval.low, each.interval.high * 1.001)),
        {"ppl_ratio_interval[1]"},
    ),
    "sentence_nll": (
        lambda each: replace(each, sentence_nll=each.sentence_nll + 0.1),
        {"ppl", "ppl_ratio_interval[0]", "ppl_ratio_interval[1]"},
    ),
    "sentence_nll, same sum": (
        lambda each: replace(each, sentence_nll=each.sentence_nll + np.array([0.1, -0.1, 0, 0, 0])),
        {"ppl_ratio_interval[0]", "ppl_ratio_interval[1]"},
    ),
    "sentence_tokens": (
        lambda each: replace(each, sentence_tokens=each.sentence_tokens + np.array([1, 0, 0, 0, 0])),
        {"ppl", "ppl_ratio_interval[0]", "ppl_ratio_interval[1]"},
    ),
    "more counts than sentences": (
        lambda each: replace(each, sentence_tokens=np.array([10, 8, 12, 6, 2, 2])),
        {"sentence_tokens"},
    ),
    "fewer counts than sentences": (
        lambda each: replace(each, sentence_tokens=np.array([10, 8, 12, 10])),
        {"sentence_tokens"},
    ),
}


@pytest.mark.parametrize(("change", "fields"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_found_and_named(study, sweep, change, fields):
    found = row_conflicts(change(sweep.find(CELL)), sweep, study)

    assert {conflict.field for conflict in found} == fields
    assert all(str(conflict).startswith(conflict.field) for conflict in found)


def test_a_message_says_what_is_recorded_and_what_follows(study, sweep):
    [conflict] = row_conflicts(replace(sweep.find(CELL), collapsed=True), sweep, study)

    assert str(conflict) == "collapsed is true, ppl_ratio > 3 gives false"


def test_rounding_to_published_decimals_is_no_conflict(study, sweep):
    good = sweep.find(CELL)
    rounded = replace(
        good, ppl=round(good.ppl, 5), ppl_ratio=round(good.ppl_ratio, 6), base_ppl=round(good.base_ppl, 5)
    )

    assert row_conflicts(rounded, sweep, study) == []


def test_a_ratio_of_exactly_the_bound_is_no_collapse(study, sweep):
    at_the_bound = row(study, CELL, 3.0)

    assert not at_the_bound.collapsed
    assert row_conflicts(at_the_bound, sweep, study) == []


def test_without_sums_or_a_zero_control_the_rest_is_still_checked(study, sweep):
    bare = replace(sweep.find(CELL), sentence_nll=None, sentence_tokens=None, interval=None, ppl_ratio=2.5)
    alone = Sweep("sweep_tiny.jsonl", (bare,))

    assert [conflict.field for conflict in row_conflicts(bare, alone, study)] == ["ppl_ratio"]


def test_sums_that_overflow_are_a_conflict_without_a_warning(study, sweep, recwarn):
    huge = replace(sweep.find(CELL), sentence_nll=np.full(5, 1e9))

    assert {conflict.field for conflict in row_conflicts(huge, sweep, study)} > {"ppl"}
    assert not list(recwarn)


def test_a_vector_and_its_recorded_norm():
    good = vector("tiny", 3)
    changed = replace(good, values=good.values * np.float32(1.001))
    unrecorded = replace(good, provenance={key: part for key, part in good.provenance.items() if key != "norm"})

    assert vector_conflicts(good) == []
    [conflict] = vector_conflicts(changed)
    assert conflict.field == "norm"
    assert conflict.expected == pytest.approx(1.001 * good.norm)
    assert conflict.observed == pytest.approx(good.norm)
    assert vector_conflicts(unrecorded) == []
