"""Claims about a comparison are judged on its rows, and on no cell of the sweep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compared import COEFFICIENT, LAYER, study_of

from steer_eval.cells import Cell
from steer_eval.claims.claim import Selector
from steer_eval.claims.measures import REGISTRY, Case, NotCheckable
from steer_eval.comparison.cells import comparison_cells
from steer_eval.evaluation.perplexity import Interval
from steer_eval.results import Results, Sweep, SweepRow, Text

TOKENS = np.array([10, 8, 12])
BASE = 20.0
COLLAPSE = 50.0


def measured(cell: Cell) -> SweepRow:
    """A row whose ratio is 60 for the stack and its control, 1 for the identities and 2 for all others."""
    ratio = {"stack": 60.0, "unsteered": 1.0, "patch-identity": 1.0}.get(str(cell.variant), 2.0)
    patched = str(cell.variant).startswith("patch")
    base = TOKENS * np.log(BASE)
    same = cell.variant in {"unsteered", "patch-identity"}
    texts = tuple(Text(index, f"p{index}", f"text {index if same or index == 1 else cell}") for index in range(3))
    return SweepRow(
        cell=cell,
        base_ppl=BASE,
        ppl=BASE * ratio,
        ppl_ratio=ratio,
        collapsed=ratio > COLLAPSE,
        generations=() if ratio > COLLAPSE else texts,
        interval=Interval(ratio, ratio),
        undecided=False,
        sentence_nll=TOKENS * np.log(BASE * ratio),
        sentence_tokens=TOKENS,
        edits=(),
        corpus_after=0 if patched else None,
        base_sentence_nll=base if patched else None,
    )


@pytest.fixture
def case(tmp_path):
    study = study_of(tmp_path)
    rows = tuple(measured(cell) for cell in comparison_cells(study, "tiny"))
    results = Results({}, {}, comparisons={"tiny": Sweep("comparison_tiny.jsonl", rows)})
    return lambda **select: Case(study, Selector(**select), results)


def observe(measure, case):
    return REGISTRY[measure].observe(case)


def test_a_method_is_found_by_its_name_and_its_control_by_its_label(case):
    assert observe("perplexity_ratio", case(variant="rotation")).value == 2.0
    assert observe("perplexity_ratio", case(variant="unsteered")).value == 1.0
    assert observe("perplexity", case(variant="stack", label="random")).value == 60 * BASE
    assert observe("collapsed", case(variant="stack")).value is True
    found = observe("perplexity_ratio", case(variant="patch"))
    assert (found.file, found.conflict) == ("comparison_tiny.jsonl", "")


@pytest.mark.parametrize(
    ("select", "why"),
    [
        ({"variant": "hypnosis"}, "fits 0 cells of the comparison"),
        ({"variant": "carried-*"}, "fits 2 cells of the comparison"),
        ({"variant": "patch-identity", "label": "random"}, "fits 0 cells"),
        ({"variant": "rotation", "layer": 2}, "fits 0 cells"),
    ],
)
def test_a_selector_that_fits_no_method_or_several_is_not_checkable(case, select, why):
    with pytest.raises(NotCheckable, match=why):
        observe("perplexity_ratio", case(**select))


def test_methods_that_collapse_are_counted_and_named(case):
    found = observe("collapsed_cells", case(variant="*"))
    assert (found.value, found.note) == (1, "stack")
    assert observe("collapsed_cells", case(variant="carried-*", label="random")).value == 0


def test_texts_that_equal_the_unsteered_ones_are_counted(case):
    assert observe("texts_equal_to_unsteered", case(variant="patch-identity")).value == 3
    found = observe("texts_equal_to_unsteered", case(variant="addition"))
    assert (found.value, found.note) == (1, "of 3 texts; differing: prompts 0, 2")
    with pytest.raises(NotCheckable, match="has no text"):
        observe("texts_equal_to_unsteered", case(variant="stack"))


def test_what_a_re_run_must_measure(case):
    study = case().study
    unsteered = Cell("tiny", "zero", None, 0.0, "unsteered")
    control = Cell("tiny", "random", LAYER, COEFFICIENT, "addition")
    needs = REGISTRY["texts_equal_to_unsteered"].needs(study, Selector(variant="addition", label="random"))

    assert needs.text == needs.perplexity == {unsteered, control}
    assert REGISTRY["perplexity_ratio"].needs(study, Selector(variant="addition", label="random")).text == set()
    every = REGISTRY["collapsed_cells"].needs(study, Selector(variant="*")).perplexity
    assert every == {cell for cell in comparison_cells(study, "tiny") if cell.label == "steered"}


def test_a_ratio_that_its_own_base_does_not_bear_out_is_a_conflict(case):
    good = case(variant="patch")
    rows = good.results.comparisons["tiny"].rows

    def with_base(factor, **changes):
        changed = tuple(
            replace(row, base_sentence_nll=factor * row.base_sentence_nll, **changes)
            if row.cell.variant == "patch" else row
            for row in rows
        )  # fmt: skip
        results = replace(good.results, comparisons={"tiny": Sweep("comparison_tiny.jsonl", changed)})
        return observe("perplexity_ratio", replace(good, results=results)).conflict

    assert with_base(1.0) == ""
    assert "base_ppl" in with_base(1.1)


def test_without_the_file_or_the_plan_it_is_not_checkable(case):
    with pytest.raises(NotCheckable, match=r"comparison_tiny\.jsonl: not measured"):
        observe("perplexity_ratio", replace(case(variant="patch"), results=Results({}, {})))
    bare = replace(case().study, comparisons=())
    with pytest.raises(NotCheckable, match="compares no methods"):
        observe("perplexity_ratio", replace(case(variant="patch"), study=bare))
