"""What controls draw has nothing to do with the method, does as much, and is the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.comparison.controls import NEIGHBOURS, matched_features, random_changes, shuffled_words
from steer_eval.errors import SteerEvalError

SEEDS = st.integers(0, 2**63 - 1)
WORDS = st.lists(st.text("abc.,", min_size=1, max_size=4), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(WORDS, SEEDS)
def test_words_are_the_same_in_another_order(words, seed):
    shuffled = shuffled_words(" ".join(words), seed=seed)

    assert sorted(shuffled.split()) == sorted(words)
    assert (shuffled.split() == words) is (len(set(words)) == 1)
    assert shuffled_words(" ".join(words), seed=seed) == shuffled


def test_a_seed_has_an_order_of_its_own():
    text = " ".join(str(number) for number in range(30))

    assert len({shuffled_words(text, seed=seed) for seed in range(20)}) == 20


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), SEEDS, st.integers(1, 12))
def test_matched_features_fire_nearly_as_often_and_are_barred_nowhere(world, seed, count):
    random = np.random.default_rng(world)
    frequency = np.exp(random.uniform(-9, 0, 200)) * (random.random(200) > 0.2)
    firing = np.flatnonzero(frequency > 0)
    chosen = [int(feature) for feature in random.choice(firing, count, replace=False)]
    barred = {int(feature) for feature in random.choice(200, 30)}
    drawn = matched_features(frequency, chosen, barred=barred, seed=seed)

    assert len(set(drawn)) == len(drawn) == count
    assert not set(drawn) & (barred | set(chosen))
    assert all(frequency[feature] > 0 for feature in drawn)
    assert matched_features(frequency, chosen, barred=barred, seed=seed) == drawn
    free = [feature for feature in firing if feature not in barred and feature not in chosen]
    for feature, other in zip(chosen, drawn, strict=True):
        distance = abs(np.log(frequency[other] / frequency[feature]))
        nearer = sum(abs(np.log(frequency[each] / frequency[feature])) < distance for each in free)
        # At most so many are nearer as it is drawn among, and as were drawn before it.
        assert nearer < NEIGHBOURS + count


def test_where_too_few_features_fire_that_is_said():
    with pytest.raises(SteerEvalError, match="fire at all"):
        matched_features(np.array([0.5, 0.1, 0.2, 0.0]), [0, 1], barred=[], seed=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=6), st.integers(2, 40), SEEDS, st.text(max_size=8))
def test_random_changes_have_the_norms_asked_for(norms, size, seed, prompt):
    changes = random_changes(np.array(norms), size, seed=seed, prompt=prompt)

    assert changes.shape == (len(norms), size)
    assert np.allclose(np.linalg.norm(changes.astype(np.float64), axis=1), norms, rtol=1e-5)
    assert np.array_equal(changes, random_changes(np.array(norms), size, seed=seed, prompt=prompt))


def test_changes_of_tokens_prompts_and_seeds_are_unrelated():
    drawn = [random_changes(np.ones(2), 4096, seed=seed, prompt=prompt) for seed in (0, 1) for prompt in "ab"]
    unit = np.concatenate(drawn)

    # Independent directions in 4096 dimensions: the cosine has a standard deviation of 1/64.
    assert np.abs(unit @ unit.T - np.eye(len(unit))).max() < 5 / 64
