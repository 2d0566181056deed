"""What a study may plan, which cells follow from it, and what it is told otherwise."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import tiny_study
from compared import COEFFICIENT, LAYER, METHODS, WITHOUT_CONTROL, comparison, planned, study_of

from steer_eval.cells import plan, prompts_of, wants_text
from steer_eval.comparison.cells import comparison_cells
from steer_eval.comparison.plan import ComparisonPlan
from steer_eval.errors import FormatError
from steer_eval.study import load_study


def refused(folder, change):
    document = planned(tiny_study.document())
    change(document)
    (folder / "study.yaml").write_text(json.dumps(document))
    with pytest.raises(FormatError) as caught:
        load_study(folder / "study.yaml", name="study.yaml")
    return caught.value


def test_a_plan_is_read_with_its_defaults(tmp_path):
    study = study_of(tmp_path, stack=None, features=None, clamp=None, transfer=None, prompts=None, seed=None)

    assert study.comparisons == (ComparisonPlan("tiny", LAYER, COEFFICIENT),)
    assert study.comparison("tiny") is study.comparisons[0]
    assert study.comparison("other") is None


def test_the_cells_are_all_methods_each_before_its_control(tmp_path):
    cells = comparison_cells(study_of(tmp_path), "tiny")

    assert list(dict.fromkeys(cell.variant for cell in cells)) == list(METHODS)
    assert len(set(cells)) == len(cells) == 2 * len(METHODS) - len(WITHOUT_CONTROL)
    for method, control in pairwise(cells):
        if control.label == "random":
            assert (method.variant, method.label) == (control.variant, "steered")
            assert (method.layer, method.coef) == (control.layer, control.coef)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"stack": None}, {"stack"}),
        ({"features": None}, {"features"}),
        ({"transfer": None}, {"carried-ridge", "carried-procrustes"}),
    ],
)
def test_a_method_whose_ingredients_are_not_planned_is_left_out(tmp_path, changes, missing):
    cells = comparison_cells(study_of(tmp_path, **changes), "tiny")

    assert set(METHODS) - {cell.variant for cell in cells} == missing


def test_without_an_anchor_nothing_is_anchored_or_patched(tmp_path):
    document = planned(tiny_study.document())
    del document["sweep"]["controls"]["anchor"]
    (tmp_path / "study.yaml").write_text(json.dumps(document))
    cells = comparison_cells(load_study(tmp_path / "study.yaml"), "tiny")

    gone = {"anchor", "anchor+addition", "patch", "patch-identity"}
    assert set(METHODS) - {cell.variant for cell in cells} == gone


def test_a_comparison_has_text_on_its_own_number_of_prompts(tmp_path):
    study = study_of(tmp_path, prompts=2)
    prompts = ("a", "b", "c")

    for cell in comparison_cells(study, "tiny"):
        assert wants_text(study, cell)
        assert prompts_of(study, cell, prompts) == ("a", "b")
    assert all(prompts_of(study, cell, prompts) == prompts for cell in plan(study, "tiny"))


def test_a_study_without_a_comparison_has_no_such_cells(tmp_path):
    (tmp_path / "study.yaml").write_text(json.dumps(tiny_study.document()))

    assert comparison_cells(load_study(tmp_path / "study.yaml"), "tiny") == []


def entry(**changes):
    return lambda document: document["comparisons"][0].update(changes)


def anchored(words):
    return lambda document: document["sweep"]["controls"]["anchor"].update(system_prompt=words)


def test_a_study_that_compares_nothing_may_have_an_anchor_of_one_word(tmp_path):
    document = tiny_study.document()
    anchored("Firm")(document)
    (tmp_path / "study.yaml").write_text(json.dumps(document))

    assert load_study(tmp_path / "study.yaml").sweep.anchor == "Firm"


@pytest.mark.parametrize(
    ("change", "where", "message", "observed"),
    [
        (entry(model="large"), "comparisons.0.model", "no such model", "large"),
        (entry(layer=3), "comparisons.0.layer", "no vector", 3),
        (entry(stack=[1, 3]), "comparisons.0.stack", "no vector at a stacked layer", [3]),
        (entry(coefficient=3), "comparisons.0.coefficient", "no such coefficient", 3.0),
        (entry(features=7), "comparisons.0.features", "more features than the table has", 7),
        (entry(transfer="tiny_L1_to_tiny_L2"), "comparisons.0.transfer", "no such transfer", "tiny_L1_to_tiny_L2"),
        (lambda document: document["saes"][0].update(layer=2), "comparisons.0.features", "no feature table", LAYER),
        (lambda document: document["saes"][0].pop("table"), "comparisons.0.features", "no feature table", LAYER),
        (lambda document: document["sweep"].update(n_prompts=2), "comparisons.0.prompts", "more prompts", 3),
        (lambda document: document["comparisons"].append(comparison()), "comparisons", "two comparisons", "two"),
        (anchored("Firm"), "sweep.controls.anchor.system_prompt", "in another order", "Firm"),
        (anchored("firm  firm"), "sweep.controls.anchor.system_prompt", "in another order", "firm  firm"),
    ],
)
def test_what_the_study_does_not_plan_can_not_be_compared(tmp_path, change, where, message, observed):
    error = refused(tmp_path, change)

    assert error.where == where
    assert message in error.message
    assert error.observed == observed
    assert error.fix
