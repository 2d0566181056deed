"""Likelihoods of tokens are those of float64, whatever the vocabulary's size and the range of the logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.evaluation.token_nll import token_nll


@given(st.integers(1, 9), st.integers(1, 1000), st.floats(0.01, 60), st.integers(0, 2**32 - 1))
def test_it_is_the_log_softmax_of_float64(tokens, vocabulary, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, vocabulary, generator=generator) * scale
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    exact = -logits.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]

    found = token_nll(logits.clone(), targets)

    assert found.dtype == torch.float64
    assert torch.allclose(found, exact, rtol=1e-6, atol=2e-7)


def test_a_large_vocabulary_leaves_no_bias():
    """Taken in float32 alone, the same likelihoods are off by 1e-7 on average."""
    logits = torch.randn(64, 248_320, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(64)
    exact = -logits.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]

    assert float((token_nll(logits.clone(), targets) - exact).mean()) == pytest.approx(0, abs=1e-8)
