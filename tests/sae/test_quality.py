from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from some_saes import between, constant_sae, identity_sae, random_sae
from tiny_models import ARCHITECTURES, HIDDEN, TEXT, tiny_language_model

from steer_eval.errors import SteerEvalError
from steer_eval.sae import topk
from steer_eval.sae.activations import Passage, cut
from steer_eval.sae.quality import cross_entropy, fired_features, mean_residual, reconstructed, reconstruction

LAYER = 2


class InMemory:
    """Residuals as a tensor, in batches."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def batches(self, size: int) -> list[torch.Tensor]:
        return list(self.values.split(size))


def residuals(tokens: int = 500, d_in: int = 12) -> torch.Tensor:
    random = torch.Generator().manual_seed(3)
    values = torch.randn(tokens, d_in, generator=random) * torch.linspace(0.1, 3, d_in) + 20
    values[::50] *= 100
    return values


def test_the_unexplained_share_is_that_of_a_direct_computation():
    sae, x = random_sae(12, 64, 4), residuals()
    threshold = 500.0
    kept = x[x.norm(dim=1) <= threshold]

    found = reconstruction(sae, x.split(70), threshold=threshold)

    acts = topk.encode(sae, kept)
    restored = topk.decode(sae, acts).double()
    centred = kept.double() - kept.double().mean(dim=0)
    expected = float((kept.double() - restored).square().sum() / centred.square().sum())
    assert found.fvu == pytest.approx(expected, rel=1e-5)
    assert found.l0 == pytest.approx(float((acts > 0).sum(dim=1).double().mean()))
    assert found.silent == pytest.approx(float((acts.amax(dim=0) == 0).double().mean()))
    assert (found.tokens, found.sinks) == (490, 10)
    assert np.allclose(found.activity.maximum, acts.amax(dim=0).numpy(), rtol=1e-5, atol=1e-6)
    assert np.allclose(found.activity.frequency, (acts > 0).float().mean(dim=0).numpy())


def test_predicting_the_mean_scores_one():
    x = residuals()

    mean = mean_residual(InMemory(x), threshold=500.0)
    found = reconstruction(constant_sae(12, mean), x.split(128), threshold=500.0)

    assert torch.allclose(mean, x[x.norm(dim=1) <= 500].mean(dim=0), rtol=1e-5)
    # The variance between dimensions is no part of it: one variance over all values would be much larger.
    assert found.fvu == pytest.approx(1, rel=1e-4)
    assert (found.l0, found.silent) == (0, 1)


def test_the_identity_leaves_nothing_unexplained():
    found = reconstruction(identity_sae(12), residuals().split(128), threshold=math.inf)

    assert found.fvu < 1e-10
    assert found.sinks == 0


def test_the_sparse_reconstruction_is_the_dense_one():
    sae, x = random_sae(12, 64, 4), residuals()

    fired = fired_features(sae, x)

    dense = topk.encode(sae, x)
    assert torch.allclose(torch.zeros_like(dense).scatter(1, fired.features, fired.values), dense, atol=1e-2)
    assert torch.allclose(reconstructed(sae, x), topk.decode(sae, dense), rtol=1e-4, atol=1e-1)


def hooked_cross_entropy(lm, passages, replace) -> float:
    """By a hook on the block, one passage at a time."""
    total, count = 0.0, 0

    def hook(_module, _arguments, output):
        hidden = output[0] if isinstance(output, tuple) else output
        flat = hidden.flatten(0, 1)
        replaced = replace(flat).view_as(hidden)
        return (replaced, *output[1:]) if isinstance(output, tuple) else replaced

    handle = lm.blocks[LAYER].register_forward_hook(hook)
    try:
        for passage in passages:
            if len(passage.ids) > 1:
                ids = torch.tensor([passage.ids])
                with torch.no_grad():
                    logits = lm.module(input_ids=ids, use_cache=False).logits[0, :-1].double()
                total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
                count += ids.shape[1] - 1
    finally:
        handle.remove()
    return total / count


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cross_entropy_is_that_of_a_hook(architecture):
    lm = tiny_language_model(architecture)
    passages = cut(lm, [TEXT, TEXT[40:150], TEXT[7:100]], context=20, tokens=10**6)
    sae = random_sae(HIDDEN, 96, 8, layer=LAYER)
    with torch.no_grad():
        states = lm.module(input_ids=torch.tensor([passages[0].ids]), output_hidden_states=True, use_cache=False)
    norms = states.hidden_states[LAYER + 1][0].norm(dim=1)
    # Some tokens count as sinks, which both must leave alone.
    threshold = between(norms)
    mean = torch.linspace(-1, 1, HIDDEN)

    found = cross_entropy(lm, sae, passages, mean, threshold=threshold)

    def spared(x: torch.Tensor, replacement: torch.Tensor) -> torch.Tensor:
        return torch.where((x.norm(dim=-1) > threshold)[:, None], x, replacement)

    assert found.clean == pytest.approx(hooked_cross_entropy(lm, passages, lambda x: x), rel=1e-5)
    expected = hooked_cross_entropy(lm, passages, lambda x: spared(x, topk.decode(sae, topk.encode(sae, x))))
    assert found.sae == pytest.approx(expected, rel=1e-4)
    assert found.mean == pytest.approx(
        hooked_cross_entropy(lm, passages, lambda x: spared(x, mean.expand_as(x))), rel=1e-5
    )
    assert found.excess == pytest.approx(found.sae - found.clean)
    assert abs(found.excess) > 1e-4
    assert found.tokens == sum(len(passage.ids) - 1 for passage in passages)


@pytest.mark.parametrize("architecture", ["llama", "qwen3_5"])
def test_the_identity_costs_nothing(architecture):
    lm = tiny_language_model(architecture)
    passages = cut(lm, [TEXT], context=20, tokens=10**6)

    found = cross_entropy(lm, identity_sae(HIDDEN), passages, torch.zeros(HIDDEN), threshold=math.inf)

    assert found.excess == pytest.approx(0, abs=1e-5)
    assert found.recovered == pytest.approx(1, abs=1e-3)


def test_where_all_tokens_are_sinks_there_is_nothing_to_measure():
    sae, x = random_sae(12, 64, 4), residuals()

    for measure in (
        lambda: reconstruction(sae, x.split(70), threshold=0.1),
        lambda: mean_residual(InMemory(x), threshold=0.1),
    ):
        with pytest.raises(SteerEvalError, match=r"all 500 tokens lie above 0\.1") as caught:
            measure()
        assert "sink_norm" in caught.value.fix


def test_residuals_that_are_all_the_same_leave_nothing_to_explain():
    with pytest.raises(SteerEvalError, match="no variance"):
        reconstruction(random_sae(12, 64, 4), [torch.ones(30, 12)], threshold=500.0)


def test_passages_of_one_token_have_no_next_one():
    lm = tiny_language_model()
    passages = [Passage((5,), 9)]

    with pytest.raises(SteerEvalError, match="no next token"):
        cross_entropy(lm, random_sae(HIDDEN, 64, 4), passages, torch.zeros(HIDDEN), threshold=math.inf)
