"""What a claim needs of a re-run, what counts as the same again, and what is lost with evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from studies import RATIOS
from studies import row as sweep_row

from steer_eval.cells import Cell
from steer_eval.claims.claim import Selector
from steer_eval.claims.measures import REGISTRY, Case, NotCheckable
from steer_eval.results import Results, Sweep, SweepRow


def edited(results: Results, cell: Cell, **changes: object) -> Results:
    sweep = results.sweeps[cell.model]
    rows = tuple(replace(row, **changes) if row.cell == cell else row for row in sweep.rows)
    return replace(results, sweeps={**results.sweeps, cell.model: Sweep(sweep.file, rows)})


def without(results: Results, cell: Cell) -> Results:
    sweep = results.sweeps[cell.model]
    rows = tuple(row for row in sweep.rows if row.cell != cell)
    return replace(results, sweeps={**results.sweeps, cell.model: Sweep(sweep.file, rows)})


def turned(results: Results, layer: int, angle: float) -> Results:
    """The published vector (3, 4, 0, L), turned in the plane of itself and (4, -3, 0, 0)."""
    vector = results.vectors["tiny", layer]
    other = np.array([4, -3, 0, 0]) * vector.norm / 5
    values = (math.cos(angle) * vector.values + math.sin(angle) * other).astype(np.float32)
    return replace(results, vectors={**results.vectors, ("tiny", layer): replace(vector, values=values)})


@pytest.mark.parametrize(
    ("name", "select"),
    [
        ("perplexity_ratio", Selector(layer=3, coef=2.0)),
        ("largest_coefficient_without_collapse", Selector(layer=3)),
        ("collapsed_cells", Selector()),
    ],
)
def test_a_missing_row_is_the_reason(study, results, name, select):
    gone = without(results, Cell("tiny", "steered", 3, 2.0))

    with pytest.raises(NotCheckable, match=r"sweep_tiny\.jsonl"):
        REGISTRY[name].observe(Case(study, select, gone))


@pytest.mark.parametrize("angle", [0.0, 0.1, 1.0, math.pi / 2, 3.0])
def test_the_cosine_is_that_of_the_angle(study, results, angle):
    case = Case(study, Selector(layer=3), turned(results, 3, angle), results)

    assert REGISTRY["vector_cosine"].observe(case).value == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_zero_vector_has_no_cosine(study, results):
    zero = replace(results.vectors["tiny", 3], values=np.zeros(4, dtype=np.float32))
    again = replace(results, vectors={**results.vectors, ("tiny", 3): zero})

    with pytest.raises(NotCheckable, match="norm 0"):
        REGISTRY["vector_cosine"].observe(Case(study, Selector(layer=3), again, results))


def _texts(row: SweepRow, change) -> dict[str, object]:
    return {"generations": tuple(change(text) for text in row.generations)}


def test_texts_count_as_the_same_up_to_the_first_near_tie(study, results):
    cell = Cell("tiny", "steered", 1, 2.0)
    published = results.sweeps["tiny"].find(cell)
    gens = [text.gen for text in published.generations]

    def observed(change):
        again = edited(results, cell, **_texts(published, change))
        return REGISTRY["identical_generations"].observe(Case(study, Selector(layer=1, coef=2.0), again, results))

    def differing(text, determined):
        return replace(text, gen=text.gen[:-1] + "#", determined=determined) if text.prompt_idx == 1 else text

    assert observed(lambda text: differing(text, None)).value == 2
    near_tie = observed(lambda text: differing(text, len(gens[1]) - 1))
    assert near_tie.value == 3
    assert "near-tie" in near_tie.note
    assert near_tie.note.endswith("prompts 1")
    assert observed(lambda text: differing(text, len(gens[1]))).value == 2
    # A shorter text is only the same if it ends at a near-tie.
    assert observed(lambda text: replace(text, gen=text.gen[:3])).value == 0
    assert observed(lambda text: replace(text, gen=text.gen[:3], determined=3)).value == 3
    assert observed(lambda text: replace(text, prompt="Another prompt.")).value == 0


def test_the_texts_that_differ_are_named(study, results):
    cell = Cell("tiny", "steered", 1, 2.0)
    texts = results.sweeps["tiny"].find(cell).generations

    def note(*again):
        measured = edited(results, cell, generations=again)
        return (
            REGISTRY["identical_generations"].observe(Case(study, Selector(layer=1, coef=2.0), measured, results)).note
        )

    other = [replace(text, gen="#" + text.gen) for text in texts]
    tied = replace(texts[1], gen=texts[1].gen[:-1] + "#", determined=len(texts[1].gen) - 1)
    assert note(*texts) == ""
    assert note(other[0], texts[1], other[2]) == "differing: prompts 0, 2"
    assert note(texts[0], tied, other[2]) == "same up to a near-tie of two tokens: prompts 1; differing: prompts 2"
    # A text that was not generated again differs too.
    assert note(texts[0], texts[2]) == "differing: prompts 1"


@pytest.mark.parametrize(
    ("name", "select", "cells", "texts", "vectors"),
    [
        ("perplexity", Selector(layer=3, coef=2.0), {Cell("tiny", "steered", 3, 2.0)}, set(), set()),
        ("identical_generations", Selector(label="anchor"), {Cell("tiny", "anchor", None, 0.0)}, True, set()),
        ("vector_cosine", Selector(layer=3), set(), set(), {("tiny", 3)}),
        ("contrast_pair_count", Selector(), set(), set(), set()),
        (
            "largest_coefficient_without_collapse",
            Selector(layer=3),
            {Cell("tiny", "steered", 3, coef) for coef in (1.0, 2.0, 4.0)},
            set(),
            set(),
        ),
        ("collapsed_cells", Selector(), {Cell("tiny", "steered", *place) for place in RATIOS}, set(), set()),
    ],
)
def test_a_re_run_measures_what_a_claim_needs(study, name, select, cells, texts, vectors):
    needs = REGISTRY[name].needs(study, select)

    assert needs.perplexity == cells
    assert needs.text == (cells if texts is True else texts)
    assert needs.vectors == vectors


def test_text_that_the_plan_does_not_generate_can_not_be_claimed(study):
    with pytest.raises(NotCheckable, match="generates no text"):
        REGISTRY["identical_generations"].needs(study, Selector(label="random", layer=1, coef=4.0))


@pytest.mark.parametrize(
    ("name", "select"),
    [
        ("collapsed", Selector(layer=3, coef=2.0)),
        ("collapsed_cells", Selector()),
        ("largest_coefficient_without_collapse", Selector(layer=3)),
    ],
)
@pytest.mark.parametrize(
    "deleted", [(), ("interval",), ("undecided",), ("interval", "undecided"), ("sentence_nll", "sentence_tokens")]
)
def test_deleting_evidence_does_not_decide_a_collapse(study, results, name, select, deleted):
    cell = Cell("tiny", "steered", 3, 2.0)
    wide = sweep_row(study, cell, 2.9, spread=2.0)
    changes = {field: getattr(wide, field) for field in wide.__dataclass_fields__ if field != "cell"}
    damaged = edited(results, cell, **{**changes, **dict.fromkeys(deleted)})

    assert f"of {cell} spans 3" in REGISTRY[name].observe(Case(study, select, damaged)).undecided
