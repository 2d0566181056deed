from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from studies import CORPUS, PROMPTS, document, write_study
from tiny_models import HIDDEN, random_vector, tiny_language_model

from steer_eval.cells import Cell, Conditions, perplexity_key, random_direction, text_key
from steer_eval.digest import sha256_text, sha256_vector
from steer_eval.errors import SteerEvalError
from steer_eval.formats.vector import SteeringVector
from steer_eval.measure import Bench, measure_perplexity
from steer_eval.run import Journal
from steer_eval.study import load_study

GOOD = Cell("tiny", "steered", 1, 1.0)
HUGE = Cell("tiny", "steered", 1, 1e38)


@pytest.fixture
def bench(tmp_path):
    vectors = {layer: SteeringVector(random_vector(layer, norm=1e4).numpy(), layer, {}) for layer in (1, 3)}
    lm = tiny_language_model()
    journal = Journal(tmp_path / "journal.jsonl")
    yield Bench(
        study=load_study(write_study(tmp_path, document())),
        model="tiny",
        lm=lm,
        conditions=Conditions("weights", "machine"),
        vectors=vectors,
        prompts=PROMPTS,
        corpus=CORPUS,
        journal=journal,
    )
    journal.close()


def test_sums_that_are_not_finite_name_the_cell_and_a_remedy(bench):
    with pytest.raises(SteerEvalError, match="not finite") as caught:
        measure_perplexity(bench, [GOOD, HUGE])

    assert str(HUGE) in caught.value.message
    assert caught.value.fix == "take a smaller coefficient"
    assert bench.perplexity_key(HUGE) not in bench.journal
    # What was measured before it is kept, and the others can still be measured.
    measure_perplexity(bench, [GOOD])
    assert bench.perplexity_key(GOOD) in bench.journal


def test_in_another_precision_float32_is_a_remedy_too(bench):
    bench.lm.module.bfloat16()
    with pytest.raises(SteerEvalError) as caught:
        measure_perplexity(bench, [HUGE])

    assert caught.value.fix == "take a smaller coefficient, or set dtype: float32 in study.yaml"


def test_an_unsteered_model_without_finite_sums_is_named_so(bench):
    bench.lm.module.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(SteerEvalError, match="tiny unsteered") as caught:
        measure_perplexity(bench, [])

    assert caught.value.fix == "check the model's weights"


def test_a_huge_vector_is_the_same_trouble(bench):
    values = np.full(HIDDEN, 1e38, dtype=np.float32)
    huge = replace(bench, vectors={1: SteeringVector(values, 1, {})})
    with pytest.raises(SteerEvalError, match="not finite"):
        measure_perplexity(huge, [Cell("tiny", "steered", 1, 10.0)])


def test_cells_of_a_sweep_are_keyed_as_journals_have_them(bench):
    corpus = {"sha256": sha256_text(CORPUS), "window": 512, "beyond": "windows"}
    for cell, values in (
        (GOOD, bench.vectors[1].values),
        (Cell("tiny", "zero", 1, 0.0), bench.vectors[1].values),
        (Cell("tiny", "random", 3, 2.0), random_direction(bench.vectors[3].values, seed=7, layer=3)),
    ):
        edits = [(cell.layer, cell.coef, sha256_vector(values))]
        assert bench.perplexity_key(cell) == perplexity_key(bench.conditions, edits, None, corpus)
        assert bench.text_key(cell, "p") == text_key(bench.conditions, edits, None, "p", 80)
    anchor = Cell("tiny", "anchor", None, 0.0)
    assert bench.perplexity_key(anchor) == perplexity_key(bench.conditions, [], "Be firm.", corpus)
    assert bench.text_key(anchor, "p") == text_key(bench.conditions, [], "Be firm.", "p", 80)
    assert bench.perplexity_key(None) == perplexity_key(bench.conditions, [], None, corpus)


def test_a_cell_of_a_comparison_that_is_not_planned_says_where_to_plan_it(bench):
    with pytest.raises(SteerEvalError, match="compares no methods") as caught:
        bench.treatment(Cell("tiny", "steered", 1, 1.0, "addition"))

    assert "comparisons" in caught.value.fix
