"""SAEs for tests, by what they do."""

from __future__ import annotations

import torch

from steer_eval.formats.sae import TopKSae


def random_sae(d_in: int, d_sae: int, k: int, *, layer: int = 2, seed: int = 0, spread: float = 1.0) -> TopKSae:
    """One with random tensors, whose decoder rows have norms of all sizes."""
    random = torch.Generator().manual_seed(seed)
    w_enc, b_enc, w_dec, b_dec = (
        torch.randn(shape, generator=random) for shape in ((d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,))
    )
    return TopKSae(w_enc, spread * b_enc, w_dec, b_dec, k, layer, "lab/tiny-base", {})


def identity_sae(d_in: int, *, layer: int = 2) -> TopKSae:
    """One that gives every residual back: each dimension has a feature for either sign."""
    eye = torch.eye(d_in)
    both = torch.cat([eye, -eye])
    return TopKSae(both.T.contiguous(), torch.zeros(2 * d_in), both, torch.zeros(d_in), d_in, layer, "lab/tiny", {})


def constant_sae(d_in: int, value: torch.Tensor, *, layer: int = 2) -> TopKSae:
    """One that predicts the same whatever it is given."""
    never = torch.full((4,), -1e9)
    return TopKSae(torch.zeros(d_in, 4), never, torch.ones(4, d_in), value, 2, layer, "lab/tiny", {})


def between(norms: torch.Tensor) -> float:
    """A threshold in the widest gap of the middle third, which no rounding crosses."""
    middle = norms.sort().values[len(norms) // 3 : 2 * len(norms) // 3 + 2]
    widest = int(middle.diff().argmax())
    return float(middle[widest : widest + 2].mean())
