from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.formats.sae import TopKSae
from steer_eval.sae import sparse_step, topk
from steer_eval.sae.sparse_step import Fired, Parameters, decoded, gradients, pre_activations, top_k


def some_parameters(d_in: int, d_sae: int, *, seed: int, dtype: torch.dtype = torch.float32) -> Parameters:
    random = torch.Generator().manual_seed(seed)
    shapes = ((d_sae, d_in), (d_sae,), (d_sae, d_in), (d_in,))
    return Parameters(*(torch.randn(shape, generator=random).to(dtype) for shape in shapes))


def some_residuals(tokens: int, d_in: int, *, seed: int) -> torch.Tensor:
    return 3 * torch.randn(tokens, d_in, generator=torch.Generator().manual_seed(seed))


def as_sae(parameters: Parameters, k: int) -> TopKSae:
    return TopKSae(
        parameters.w_enc.T,
        parameters.b_enc,
        parameters.w_dec,
        parameters.b_dec,
        k,
        layer=0,
        model="lab/m",
        provenance={},
    )


@given(
    tokens=st.integers(1, 9),
    # Multiples of the group size and others, k on both sides of what two stages can serve.
    d_sae=st.integers(1, 130),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_two_stages_find_the_largest(tokens, d_sae, share, seed):
    k = max(1, round(share * d_sae))
    pre = torch.randn(tokens, d_sae, generator=torch.Generator().manual_seed(seed))

    fired = top_k(pre, k)

    expected = pre.topk(k, dim=1).values.relu()
    assert torch.equal(fired.values.sort(dim=1, descending=True).values, expected)
    assert torch.equal(pre.gather(1, fired.features).relu(), fired.values)
    assert all(len(set(row)) == k for row in fired.features.tolist())


@pytest.mark.parametrize(("d_in", "d_sae", "k"), [(16, 64, 4), (12, 30, 30), (8, 256, 1)])
def test_fired_features_decode_as_the_dense_sae_does(d_in, d_sae, k):
    parameters, x = some_parameters(d_in, d_sae, seed=0), some_residuals(50, d_in, seed=1)
    sae = as_sae(parameters, k)

    fired = top_k(pre_activations(parameters, x - parameters.b_dec), k)

    dense = topk.encode(sae, x)
    assert torch.allclose(torch.zeros(50, d_sae).scatter(1, fired.features, fired.values), dense, atol=1e-5)
    assert torch.allclose(decoded(fired, parameters.w_dec) + parameters.b_dec, topk.decode(sae, dense), atol=1e-4)


@pytest.mark.parametrize("inner_products", ["_inner_products_of_bags", "_inner_products_gathered"])
@pytest.mark.parametrize(("d_in", "d_sae", "k"), [(16, 64, 4), (12, 30, 30), (8, 256, 1)])
def test_gradients_are_those_of_autograd(monkeypatch, inner_products, d_in, d_sae, k):
    monkeypatch.setattr(sparse_step, "_inner_products", getattr(sparse_step, inner_products))
    # A bound on what is gathered at once that these sizes exceed.
    monkeypatch.setattr(sparse_step, "_GATHERED_BYTES", 4 * k * d_in * 7)
    parameters = some_parameters(d_in, d_sae, seed=2)
    x, weights = some_residuals(60, d_in, seed=3), some_residuals(60, d_in, seed=4)

    leaves = [tensor.clone().requires_grad_() for tensor in parameters.tensors()]
    w_enc, b_enc, w_dec, b_dec = leaves
    values, features = ((x - b_dec) @ w_enc.T + b_enc).topk(k, dim=1)
    acts = torch.zeros(60, d_sae).scatter(1, features, values.relu())
    ((acts @ w_dec) * weights).sum().backward()

    centred = x - parameters.b_dec
    ours = gradients(parameters, centred, top_k(pre_activations(parameters, centred), k), weights)

    for mine, leaf in zip(ours, leaves, strict=True):
        assert leaf.grad is not None
        assert (mine - leaf.grad).abs().max() <= 2e-5 * leaf.grad.abs().max()


def test_a_feature_that_never_fires_has_no_gradient():
    parameters = some_parameters(6, 40, seed=5)
    fired = Fired(torch.tensor([[3, 4]]), torch.tensor([[1.0, 0.0]]))

    w_enc, b_enc, w_dec, _ = gradients(parameters, torch.ones(1, 6), fired, torch.ones(1, 6))

    assert w_dec.abs().sum(dim=1).nonzero().flatten().tolist() == [3]
    assert w_enc.abs().sum(dim=1).nonzero().flatten().tolist() == [3]
    assert b_enc.nonzero().flatten().tolist() == [3]
