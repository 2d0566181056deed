"""What the steps of SAE training are measured on, the same in every environment: sizes, residuals and first weights."""

from __future__ import annotations

import torch

D_IN, D_SAE, K, BATCH = 576, 2304, 32, 2048
"""Those of an SAE of SmolLM2-135M, with batches of which there are many in an epoch of any real corpus."""
LEARNING_RATE = 3e-4
_BATCHES = 8
_ACTIVE = 24


def residuals() -> torch.Tensor:
    """Sparse sums of directions off the origin, with some noise, `[tokens, D_IN]`."""
    random = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(2 * D_IN, D_IN, generator=random), dim=1)
    tokens = BATCH * _BATCHES
    which = torch.randint(len(directions), (tokens, _ACTIVE), generator=random)
    strengths = 1 + torch.rand(tokens, _ACTIVE, generator=random)
    sums = torch.nn.functional.embedding_bag(which, directions, per_sample_weights=strengths, mode="sum")
    return sums + 0.1 * torch.randn(tokens, D_IN, generator=random)


def first_weights() -> torch.Tensor:
    """Rows of the decoder, of norm 1, which are also the columns of the encoder, `[D_SAE, D_IN]`."""
    return torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(1)), dim=1)
