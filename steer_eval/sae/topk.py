"""What a Top-K sparse autoencoder computes.

Invariant: all arithmetic is float32, whatever the dtype of the tensors on disk, in this order:

    pre  = (x - b_dec) @ w_enc + b_enc
    acts = pre at its k largest places, and 0 elsewhere; then 0 where that is negative
    x^   = acts @ w_dec + b_dec

(Gao et al. 2024, arXiv:2406.04093). The k places are chosen before the ReLU, so fewer than k features fire where fewer
are positive. Where features tie for the last place, `torch.topk` takes some of them, and which ones is undefined; ties
at or below zero do not matter, as none of these fire. SAELens computes the same operations, so its float32 numbers are
these, bit by bit; faster implementations are held to these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from steer_eval.formats.sae import TopKSae


def encode(sae: TopKSae, residuals: Tensor) -> Tensor:
    """Feature activations of residuals.

    Args:
        sae: The SAE.
        residuals: Finite values of any float dtype, `[..., d_in]`.

    Returns:
        Activations, float32 `[..., d_sae]`: none is negative, and at most k per row are not zero.

    Raises:
        ValueError: The residuals have another width.
    """
    _check_width(residuals, sae.d_in, "residuals", "d_in")
    pre = (residuals.float() - sae.b_dec.float()) @ sae.w_enc.float() + sae.b_enc.float()
    values, features = pre.topk(sae.k, dim=-1, sorted=False)
    return torch.zeros_like(pre).scatter_(-1, features, values.relu())


def decode(sae: TopKSae, activations: Tensor) -> Tensor:
    """Residuals reconstructed from feature activations.

    Args:
        sae: The SAE.
        activations: Any float dtype, `[..., d_sae]`; they need not come from `encode`.

    Returns:
        Residuals, float32 `[..., d_in]`.

    Raises:
        ValueError: The activations are of another number of features.
    """
    _check_width(activations, sae.d_sae, "activations", "d_sae")
    return activations.float() @ sae.w_dec.float() + sae.b_dec.float()


def _check_width(values: Tensor, width: int, what: str, size: str) -> None:
    if values.shape[-1:] != (width,):
        raise ValueError(f"{what} of shape {list(values.shape)} do not end in the SAE's {size} {width}")
