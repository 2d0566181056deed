from __future__ import annotations

import math

import pytest
import torch
from some_saes import between, identity_sae, random_sae
from tiny_models import ARCHITECTURES, HIDDEN, TEXT, tiny_language_model

from steer_eval.sae.activations import Passage, cut
from steer_eval.sae.live_entropy import LiveEntropy
from steer_eval.sae.quality import cross_entropy

LAYER = 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_the_excess_that_is_measured_at_the_end(architecture):
    lm = tiny_language_model(architecture)
    passages = cut(lm, [TEXT, TEXT[40:150]], context=20, tokens=10**6)
    with torch.no_grad():
        states = lm.module(input_ids=torch.tensor([passages[0].ids]), output_hidden_states=True, use_cache=False)
    # Some tokens count as sinks, which both must leave alone.
    threshold = between(states.hidden_states[LAYER + 1][0].norm(dim=1))
    live = LiveEntropy(lm, passages, LAYER, threshold=threshold)

    for seed in (0, 1):
        sae = random_sae(HIDDEN, 96, 8, layer=LAYER, seed=seed)
        whole = cross_entropy(lm, sae, passages, torch.zeros(HIDDEN), threshold=threshold)
        assert live.excess(sae) == pytest.approx(whole.excess, rel=1e-4, abs=1e-6)
        assert abs(whole.excess) > 1e-4
    assert live.clean == pytest.approx(whole.clean, rel=1e-6)
    assert live.tokens == whole.tokens


def test_the_identity_costs_nothing():
    lm = tiny_language_model()
    passages = cut(lm, [TEXT], context=20, tokens=10**6)

    live = LiveEntropy(lm, passages, LAYER, threshold=math.inf)

    assert live.excess(identity_sae(HIDDEN)) == pytest.approx(0, abs=1e-5)


def test_the_model_is_left_as_it_was():
    lm = tiny_language_model()
    ids = torch.tensor([[5, 6, 7, 8]])
    before = lm.final_hidden(ids)

    LiveEntropy(lm, [Passage((5, 6, 7, 8), 9)], LAYER, threshold=math.inf).excess(
        random_sae(HIDDEN, 96, 8, layer=LAYER)
    )

    assert torch.equal(lm.final_hidden(ids), before)


def test_passages_of_one_token_have_no_next_token():
    live = LiveEntropy(tiny_language_model(), [Passage((5,), 9)], LAYER, threshold=math.inf)

    assert live.excess(random_sae(HIDDEN, 96, 8, layer=LAYER)) is None
