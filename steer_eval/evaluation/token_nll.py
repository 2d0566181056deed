"""Negative log-likelihoods of tokens, precise enough for perplexity.

Invariant: in float32 the sum over tens of thousands of small terms has a bias of about 1e-5, which perplexity keeps. So
stretches are summed in float32 and their sums in float64; converting all terms takes longer than their exponentials.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STRETCH = 128
"""Terms that are summed in float32."""


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of tokens under the logits that predict them.

    Not all devices have float64, so the last sums are taken on the CPU.

    Args:
        logits: float32 `[tokens, vocabulary]`; they are overwritten.
        targets: int64 `[tokens]`, on the same device.

    Returns:
        In nats, float64 `[tokens]` on the CPU.
    """
    picked = logits.gather(1, targets[:, None])[:, 0].cpu().double()
    largest = logits.amax(dim=1, keepdim=True)
    terms = logits.sub_(largest).exp_()
    whole = terms.shape[1] // _STRETCH * _STRETCH
    stretches = terms[:, :whole].view(len(terms), whole // _STRETCH, _STRETCH)
    sums, rest = stretches.sum(dim=2).cpu(), terms[:, whole:].cpu()
    total = sums.sum(dim=1, dtype=torch.float64) + rest.sum(dim=1, dtype=torch.float64)
    return total.log() + largest[:, 0].cpu().double() - picked
