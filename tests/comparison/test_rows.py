"""Rows of a comparison are read as they were written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import schema_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.cells import Cell
from steer_eval.errors import FormatError
from steer_eval.evaluation.perplexity import Interval
from steer_eval.results import SweepRow, Text
from steer_eval.results_files import comparison_file, read_comparison, row_to_json, write_comparison

EXAMPLES = st.lists(st.sampled_from(schema_examples.COMPARISON_ROW["edits"]), max_size=3).map(tuple)
SUMS = st.integers(0, 10**9).map(lambda n: n / 10**6)


@st.composite
def rows(draw):
    base = draw(st.none() | st.lists(SUMS, min_size=2, max_size=2))
    return SweepRow(
        cell=Cell(
            "tiny",
            draw(st.sampled_from(["steered", "random", "zero"])),
            draw(st.none() | st.integers(0, 9)),
            draw(st.floats(-9, 9)),
            draw(st.sampled_from(["addition", "anchor+addition", "patch-identity"])),
        ),
        base_ppl=20.0,
        ppl=draw(st.floats(1e-3, 1e9)),
        ppl_ratio=1.5,
        collapsed=draw(st.booleans()),
        generations=tuple(
            Text(index, "p", gen) for index, gen in enumerate(draw(st.lists(st.text("ab "), max_size=2)))
        ),
        interval=Interval(1.0, 2.0),
        undecided=False,
        sentence_nll=np.array(draw(st.lists(SUMS, min_size=2, max_size=2))),
        sentence_tokens=np.array([3, 4]),
        system_prompt=draw(st.none() | st.just("Be firm.")),
        edits=draw(EXAMPLES),
        corpus_after=None if base is None else draw(st.integers(0, 3)),
        base_sentence_nll=None if base is None else np.array(base),
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(rows(), min_size=1, max_size=3))
def test_a_comparison_is_read_as_it_was_written(written):
    with TemporaryDirectory() as folder:
        write_comparison(Path(folder), "tiny", written)
        back = read_comparison(Path(folder), "tiny")

    assert back.file == comparison_file("tiny")
    assert [row.line for row in back.rows] == list(range(1, len(written) + 1))
    for before, after in zip(written, back.rows, strict=True):
        assert after.cell == before.cell
        assert row_to_json(after) == row_to_json(before)
        assert (after.edits, after.corpus_after) == (before.edits, before.corpus_after)
        assert (after.base_sentence_nll is None) is (before.base_sentence_nll is None)


def test_a_bad_row_is_refused_with_its_line(tmp_path):
    good = schema_examples.COMPARISON_ROW
    (tmp_path / comparison_file("tiny")).write_text(
        "".join(json.dumps(row) + "\n" for row in (good, {**good, "variant": None}))
    )
    with pytest.raises(FormatError) as caught:
        read_comparison(tmp_path, "tiny")

    assert caught.value.where.startswith("line 2")
    assert "variant" in caught.value.message


def test_a_row_of_a_sweep_says_nothing_of_methods():
    row = SweepRow(Cell("tiny", "steered", 1, 1.0), 20.0, 20.0, 1.0, False, ())

    assert not {"variant", "edits", "corpus_after", "base_sentence_nll"} & row_to_json(row).keys()
    compared = replace(row, cell=replace(row.cell, variant="addition"), edits=())
    assert row_to_json(compared)["edits"] == []
