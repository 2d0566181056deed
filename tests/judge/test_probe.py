"""The offline judge tells its classes apart on texts that it has not seen, and shows nothing where there is nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge.cases import RUBRIC

from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.formats.strict_json import read_jsonl
from steer_eval.judge.probe import ProbeJudge, above_chance, expanded
from steer_eval.judge.rubric import Axis, probe_texts
from steer_eval.judge.subjects import Ask, Sample

ANGER = ("mature_anger", "juvenile_rage")
WORDS_ONLY = replace(RUBRIC, axes=tuple(axis for axis in RUBRIC.axes if axis.name in ANGER))


@pytest.fixture(scope="module")
def pairs(packaged_data: Path) -> list[ContrastPair]:
    rows = read_jsonl(packaged_data / "contrast_pairs.jsonl", schema="contrast_pair")
    return [ContrastPair(row.value["scenario"], row.value["mature_mad"], row.value["neutral"]) for row in rows]


@pytest.fixture(scope="module")
def probe(pairs: list[ContrastPair]) -> ProbeJudge:
    return ProbeJudge(pairs, WORDS_ONLY, None)


def score(probe: ProbeJudge, text: str) -> dict[str, float]:
    asks = [Ask(None, (Sample(0, "p", text),), (axis,)) for axis in ANGER]
    judgements = probe.judge(asks, WORDS_ONLY, "sample", lambda _: None)
    return {axis: judgement.scores[axis] for axis, judgement in zip(ANGER, judgements, strict=True)}


def test_its_accuracy_is_that_on_texts_it_was_not_fitted_on(probe: ProbeJudge, pairs: list[ContrastPair]) -> None:
    found = probe.validation

    assert found.texts == {"positive": 80, "mature-anger.juvenile-rage.jsonl": 40, "negative": 80}
    assert found.accuracy == pytest.approx(
        sum(found.by_class[name] * count for name, count in found.texts.items()) / sum(found.texts.values())
    )
    assert found.accuracy > 0.9


def test_accuracy_on_shuffled_classes_is_chance(pairs: list[ContrastPair]) -> None:
    """Validation that had seen its texts would say otherwise."""
    generator = np.random.default_rng(0)
    shuffled = [
        pair if swap else ContrastPair(pair.scenario, pair.negative, pair.positive)
        for pair, swap in zip(pairs, generator.random(len(pairs)) < 0.5, strict=True)
    ]
    found = ProbeJudge(shuffled, WORDS_ONLY, None).validation

    assert abs(found.by_class["positive"] + found.by_class["negative"] - 1) < 0.3
    assert found.by_class["mature-anger.juvenile-rage.jsonl"] > 0.8


def test_texts_of_each_kind_score_highest_on_their_axis(probe: ProbeJudge, pairs: list[ContrastPair]) -> None:
    angry = score(probe, pairs[0].positive)
    calm = score(probe, pairs[0].negative)
    file = RUBRIC.axis("juvenile_rage").probe
    assert file is not None
    raging = score(probe, probe_texts(RUBRIC, file)[0])

    assert angry["mature_anger"] > 3 > angry["juvenile_rage"]
    assert raging["juvenile_rage"] > 3 > raging["mature_anger"]
    assert max(calm.values()) < 2


@pytest.mark.parametrize("text", ["", "zxqv", "日本語"])
def test_a_text_that_shows_nothing_is_at_the_bottom_of_every_axis(probe: ProbeJudge, text: str) -> None:
    assert max(score(probe, text).values()) == pytest.approx(1.0, abs=1e-6)


def test_contractions_are_no_sign_of_anger(probe: ProbeJudge) -> None:
    assert expanded("I’m sure you're right, it's late; don't, can't, won't, we'll, I'd, they've, the dog's") == (
        "I am sure you are right, it is late; do not, can not, will not, we will, I would, they have, the dog's"
    )
    assert score(probe, "I'm here to help. You're right.") == score(probe, "I am here to help. You are right.")


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=6))
def test_a_share_above_chance_is_a_share(weights: list[float]) -> None:
    probabilities = np.array(weights) / np.sum(weights)
    shares = [above_chance(probabilities, index) for index in range(len(weights))]

    assert all(0 <= share <= 1 + 1e-12 for share in shares)
    assert above_chance(np.full(len(weights), 1 / len(weights)), 0) == pytest.approx(0, abs=1e-12)
    assert above_chance(np.eye(len(weights))[0], 0) == pytest.approx(1)
    assert all(math.isclose(share, 0) for share, p in zip(shares, probabilities, strict=True) if p < 1 / len(weights))


def test_coherence_without_a_model_is_unscored(pairs: list[ContrastPair]) -> None:
    judge = ProbeJudge(pairs, RUBRIC, None)
    [judgement] = judge.judge([Ask(None, (Sample(0, "p", "t"),), ("coherence",))], RUBRIC, "sample", lambda _: None)

    assert (judgement.reason, judgement.scores) == ("no-model", {})


def test_an_axis_that_can_not_be_learnt_is_refused(pairs: list[ContrastPair]) -> None:
    own = replace(RUBRIC, axes=(*RUBRIC.axes, Axis("irony", "How ironic?", ((1.0, "Not."), (5.0, "Very.")))))

    with pytest.raises(SteerEvalError, match="irony"):
        ProbeJudge(pairs, own, None)
    with pytest.raises(SteerEvalError, match="no contrast pairs"):
        ProbeJudge([], RUBRIC, None)
