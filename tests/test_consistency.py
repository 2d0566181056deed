from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from studies import document, row, rows, vector, write_study

from steer_eval import consistency
from steer_eval.cells import Cell
from steer_eval.consistency import ratio_interval_of, row_conflicts, shown_apart, vector_conflicts
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
    "undecided": (lambda each: replace(each, undecided=True), {"collapse_undecided"}),
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


def test_a_mark_that_was_not_published_is_no_conflict(study, sweep):
    unmarked, unmeasured = (replace(sweep.find(CELL), **change) for change in ({"undecided": None}, {"interval": None}))

    assert row_conflicts(unmarked, sweep, study) == row_conflicts(unmeasured, sweep, study) == []


def test_an_open_collapse_must_be_marked(study, sweep):
    wide = row(study, CELL, 2.9, spread=2.0)

    assert wide.undecided
    assert row_conflicts(wide, sweep, study) == []
    [conflict] = row_conflicts(replace(wide, undecided=False), sweep, study)
    assert str(conflict) == "collapse_undecided is false, whether ppl_ratio_interval spans 3 gives true"


@pytest.mark.parametrize("with_sums", [True, False])
def test_the_zero_control_must_be_the_unsteered_model(study, sweep, with_sums):
    """`base_ppl` follows from the zero control's sums, or from its `ppl` where it has none."""
    zero = next(sweep.labelled("zero"))
    if not with_sums:
        zero = replace(zero, sentence_nll=None, sentence_tokens=None)
    wrong = replace(zero, base_ppl=zero.base_ppl * 1.0001, ppl_ratio=zero.ppl / (zero.base_ppl * 1.0001))
    close = replace(zero, base_ppl=zero.base_ppl * 1.000001)

    for changed, expected in ((zero, []), (close, []), (wrong, ["base_ppl"])):
        again = Sweep(sweep.file, (changed, *sweep.rows[1:]))
        assert [conflict.field for conflict in row_conflicts(changed, again, study)] == expected
    # The other rows agree with the zero control's measurement, not with what it records beside it.
    assert row_conflicts(sweep.find(CELL), Sweep(sweep.file, (wrong, *sweep.rows[1:])), study) == []


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


class TestIntervalOfARatio:
    RECORDED = Interval(1.0, 9.0)

    def test_the_sums_give_it_whatever_is_recorded(self, study, sweep):
        good = sweep.find(CELL)

        for interval in (good.interval, self.RECORDED, None):
            assert ratio_interval_of(replace(good, interval=interval), sweep, study) == good.interval

    @pytest.mark.parametrize(
        "change", [{"sentence_nll": None}, {"sentence_tokens": None}, {"sentence_nll": np.ones(3)}]
    )
    def test_without_sums_that_fit_it_is_the_recorded_one(self, study, sweep, change):
        bare = replace(sweep.find(CELL), interval=self.RECORDED, **change)

        assert ratio_interval_of(bare, sweep, study) == self.RECORDED
        assert ratio_interval_of(replace(bare, interval=None), sweep, study) is None

    def test_without_the_zero_controls_sums_it_is_the_recorded_one(self, study, sweep):
        wrong = replace(sweep.find(CELL), interval=self.RECORDED)
        zero = replace(next(sweep.labelled("zero")), sentence_nll=None)

        for others in ((), (zero,)):
            assert ratio_interval_of(wrong, Sweep(sweep.file, (*others, wrong)), study) == self.RECORDED

    def test_it_follows_the_sums_and_the_protocol(self, study, sweep):
        good = sweep.find(CELL)
        wider = replace(good, sentence_nll=good.sentence_nll + np.array([0.5, -0.5, 0, 0, 0]))
        other = replace(study, perplexity=replace(study.perplexity, confidence=0.5))

        before = ratio_interval_of(good, sweep, study)
        assert ratio_interval_of(wider, sweep, study) != before
        assert ratio_interval_of(good, sweep, other).high < before.high
        assert ratio_interval_of(good, sweep, study) == before

    def test_a_rows_bootstrap_is_drawn_once(self, study, sweep):
        fresh = replace(study, perplexity=replace(study.perplexity, seed=987))
        before = consistency._interval_of_bytes.cache_info().misses
        for _ in range(3):
            row_conflicts(sweep.find(CELL), sweep, fresh)
            ratio_interval_of(sweep.find(CELL), sweep, fresh)

        assert consistency._interval_of_bytes.cache_info().misses == before + 1


def test_a_mark_is_held_to_the_sums_where_the_interval_is_left_out(study, sweep):
    wide = replace(row(study, CELL, 2.9, spread=2.0), interval=None)

    assert row_conflicts(wide, sweep, study) == []
    [conflict] = row_conflicts(replace(wide, undecided=False), sweep, study)
    assert conflict.field == "collapse_undecided"


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


def test_a_stored_dtype_excuses_no_more_than_its_rounding():
    """In a safetensors file that was not converted the dtype is the model's, and the values are float32."""
    good = vector("tiny", 3)

    def conflicts(norm: float, dtype: str, **more: str) -> int:
        bare = {"norm": repr(good.norm * norm), "dtype": dtype, **more}
        return len(vector_conflicts(replace(good, provenance=bare)))

    assert [conflicts(1.0005, dtype) for dtype in ("float32", "float16", "bfloat16")] == [1, 0, 0]
    assert [conflicts(1.005, dtype) for dtype in ("float32", "float16", "bfloat16")] == [1, 1, 0]
    assert conflicts(1.005, "bfloat16", format="steer-eval/vector/1") == 1
    assert conflicts(1.005, "bfloat16", format="steer-eval/vector/1", source_format="caa-pt") == 0


def test_a_conflict_shows_two_numbers_that_differ():
    good = vector("tiny", 3)
    near = replace(good, provenance={**good.provenance, "norm": repr(good.norm * (1 + 2e-6))})
    [conflict] = vector_conflicts(near)
    observed, _, expected = str(conflict).removeprefix("norm is ").partition(", the vector gives ")

    assert float(observed) > float(expected)


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0 + 2**-52), (True, False), (3, 4), (2.5, 2.5000001)])
def test_two_values_that_differ_are_shown_apart(first, second):
    assert len(set(shown_apart(first, second))) == 2
