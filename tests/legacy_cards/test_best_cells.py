"""The best cells by published scores, and how far judges agree on them."""

from __future__ import annotations

import numpy as np
import pytest
from legacy_cards.opened import table

from steer_eval.legacy.agreement import agreements, spearman
from steer_eval.legacy.best import Judgement, Score
from steer_eval.legacy.limits import limits


def score(layer: int, coef: float, margin: float, *, imputed: bool = False) -> Score:
    values = {"mature_anger": 1 + margin, "juvenile_rage": 1.0, "coherence": 4.0, "margin": margin}
    return Score(layer, coef, values, 1.1, imputed)


def test_of_tied_cells_the_weakest_then_the_lowest_then_the_positive_comes_first():
    tied = (score(9, 1.0, 2.0), score(5, -1.0, 2.0), score(5, 1.0, 2.0), score(2, 2.5, 2.0), score(2, 1.0, 1.5))

    best = Judgement("fox", "owl", tied).best
    assert [each.cell for each in best] == [(5, 1.0), (5, -1.0), (9, 1.0), (2, 2.5)]
    assert Judgement("fox", "owl", tuple(reversed(tied))).best == best


def test_scores_of_cells_without_text_are_never_the_best():
    judgement = Judgement("fox", "owl", (score(2, 1.0, 1.0), score(5, 6.0, 3.0, imputed=True)))

    assert [each.cell for each in judgement.best] == [(2, 1.0)]
    assert Judgement("fox", "owl", judgement.scores[1:]).best == ()


def test_the_published_best_cells_of_both_judges(published):
    rows = {(row[0], row[1]): row[2:] for row in table(published.model_card, "model", "judge", "best cell")}

    assert rows == {
        ("Qwen/Qwen3.5-0.8B", "deepseek"): ["L=6 c=+1", "1.0", "1.0", "4.0", "0.0", "1.05x"],
        ("Qwen/Qwen3.5-0.8B", "qwen"): ["L=18 c=+2", "2.5", "1.5", "4.0", "+1.0", "1.35x"],
        ("Qwen/Qwen3.5-2B", "deepseek"): ["L=14 c=+1", "3.5", "1.0", "5.0", "+2.5", "1.13x"],
        ("Qwen/Qwen3.5-2B", "qwen"): ["L=14 c=+2", "3.5", "1.5", "3.5", "+2.0", "1.55x"],
        ("Qwen/Qwen3.5-4B", "deepseek"): ["L=13 c=+1", "4.5", "1.0", "5.0", "+3.5", "1.11x"],
    }
    ties = {judgement.model: len(judgement.best) for judgement in limits(published.study).ties}
    assert ties == {"qwen_small": 17, "qwen_xlarge": 4}
    assert "L=13 c=+1, L=18 c=+1, L=13 c=+2, L=23 c=+2" in published.model_card


def test_the_published_judges_agree_as_far_as_they_do(published):
    found = {each.model: each for each in agreements(published.study.judgements)}

    assert set(found) == {"qwen_large", "qwen_small"}
    means = {axis.axis: (round(axis.mean, 3), axis.largest) for axis in found["qwen_large"].axes}
    assert means["mature_anger"] == (-0.474, 1.5)
    assert means["juvenile_rage"] == (-0.158, 1.5)
    assert means["coherence"] == (-0.132, 1.5)
    means = {axis.axis: (round(axis.mean, 3), axis.largest) for axis in found["qwen_small"].axes}
    assert (means["juvenile_rage"], means["coherence"]) == ((-0.316, 3.0), (0.026, 2.5))
    assert found["qwen_large"].cells == 19
    assert found["qwen_large"].common == ()
    assert found["qwen_small"].common == ((18, 2.0),)


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    for _ in range(20):
        first, second = rng.integers(2, 9, 17) / 2, rng.integers(2, 9, 17) / 2
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert spearman(np.ones(5), np.arange(5.0)) is None


def test_agreement_is_taken_on_cells_that_both_judged_with_text():
    first = Judgement("fox", "hare", (score(2, 1.0, 1.0), score(5, 1.0, 3.0), score(9, 1.0, 4.0, imputed=True)))
    second = Judgement("fox", "owl", (score(2, 1.0, 2.0), score(5, 1.0, 3.0), score(9, 1.0, 1.0)))

    (agreement,) = agreements([first, second])
    margin = next(axis for axis in agreement.axes if axis.axis == "margin")
    assert (agreement.cells, margin.mean, margin.largest, margin.equal) == (2, -0.5, 1.0, 1)
    assert margin.spearman == pytest.approx(1.0)
    assert agreement.common == ((5, 1.0),)
