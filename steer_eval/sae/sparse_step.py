"""Loss and gradients of a Top-K SAE without a dense activation matrix.

Invariant: the numbers are those of the dense computation in `topk.py` and of its derivative by autograd, up to float32
rounding; only the order of summation differs. Of the `[tokens, d_sae]` pre-activations nothing but the k places that
fire is used, so everything after the encoder's product costs k / d_sae of the dense step:

    x^ = b_dec + sum over fired features of value * w_dec[feature]     (an embedding bag over features)
    dL/dvalue = <dL/dx^, w_dec[feature]>                               (gathered inner products)
    dL/dw_dec[feature] = sum over tokens of value * dL/dx^             (an embedding bag over tokens)
    dL/dw_enc[feature] = sum over tokens of dL/dvalue * (x - b_dec)    (the same bag, other weights)

The decoder bag and the transposed bags are those of Gao et al. 2024 (arXiv:2406.04093, appendix D) in PyTorch's own
operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

GROUPS = 8
"""Features per group of the two-stage top-k; measured fastest of 4, 8, 16 and 32 at 2,304 features and k 32."""
_GATHERED_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Parameters:
    """What is trained, float32, one row per feature so that bags can gather rows.

    Args:
        w_enc: `[d_sae, d_in]`.
        b_enc: `[d_sae]`.
        w_dec: `[d_sae, d_in]`.
        b_dec: `[d_in]`.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tensors, in the order of the fields."""
        return self.w_enc, self.b_enc, self.w_dec, self.b_dec


@dataclass(frozen=True, eq=False)
class Fired:
    """Which features fire for which token.

    Args:
        features: int64 `[tokens, k]`, each feature at most once per row.
        values: Activations after the ReLU, `[tokens, k]`; 0 where the pre-activation is not positive.
    """

    features: Tensor
    values: Tensor


def pre_activations(parameters: Parameters, centred: Tensor) -> Tensor:
    """`(x - b_dec) @ w_enc + b_enc`, `[tokens, d_sae]`, for `x - b_dec` `[tokens, d_in]`."""
    return torch.addmm(parameters.b_enc, centred, parameters.w_enc.T)


def top_k(pre: Tensor, k: int) -> Fired:
    """The k largest pre-activations of each row, exactly, in two stages.

    The maximum of a group of features bounds all of them, so the k largest lie in the k groups with the largest maxima.

    Args:
        pre: `[tokens, d_sae]`.
        k: How many.
    """
    tokens, width = pre.shape
    stride = width // GROUPS
    if width % GROUPS or k * GROUPS >= width:
        values, features = pre.topk(k, dim=1, sorted=False)
        return Fired(features, values.relu_())
    groups = pre.view(tokens, GROUPS, stride).amax(dim=1).topk(k, dim=1, sorted=False).indices
    candidates = (groups[:, None, :] + stride * torch.arange(GROUPS, device=pre.device)[:, None]).flatten(1)
    values, places = pre.gather(1, candidates).topk(k, dim=1, sorted=False)
    return Fired(candidates.gather(1, places), values.relu_())


def decoded(fired: Fired, w_dec: Tensor) -> Tensor:
    """Sum of the fired features' decoder rows, `[tokens, d_in]`; the bias is the caller's."""
    return embedding_bag(fired.features, w_dec, per_sample_weights=fired.values, mode="sum")


def gradients(parameters: Parameters, centred: Tensor, fired: Fired, upstream: Tensor) -> tuple[Tensor, ...]:
    """Derivative of a loss through `decoded`.

    Args:
        parameters: The parameters.
        centred: `x - b_dec`, `[tokens, d_in]`.
        fired: What fired for it.
        upstream: Derivative with respect to what `decoded` returned, `[tokens, d_in]`.

    Returns:
        Derivatives in the order of `Parameters`; that of `b_dec` is the part that goes through the encoder's input.
    """
    k = fired.features.shape[1]
    by_value = _inner_products(fired, parameters.w_dec, upstream)
    by_value *= fired.values > 0  # the ReLU passes nothing at or below 0
    flat = fired.features.flatten()
    order = flat.argsort()
    rows = order // k
    counts = torch.bincount(flat, minlength=len(parameters.w_enc))
    starts = counts.cumsum(0) - counts

    def bag(weights: Tensor, table: Tensor) -> Tensor:
        return embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights.flatten()[order])

    b_enc = torch.zeros_like(parameters.b_enc).index_add_(0, flat, by_value.flatten())
    return (
        bag(by_value, centred),
        b_enc,
        bag(fired.values, upstream),
        -(b_enc @ parameters.w_enc),
    )


def _inner_products(fired: Fired, w_dec: Tensor, upstream: Tensor) -> Tensor:
    """`<upstream[token], w_dec[feature]>` for each fired feature, `[tokens, k]`."""
    if hasattr(torch.ops.aten, "_embedding_bag_per_sample_weights_backward"):
        return _inner_products_of_bags(fired, w_dec, upstream)
    return _inner_products_gathered(fired, w_dec, upstream)


def _inner_products_of_bags(fired: Fired, w_dec: Tensor, upstream: Tensor) -> Tensor:
    """By the operator that autograd uses for bags: it gathers no copy of the rows."""
    tokens, k = fired.features.shape
    starts = torch.arange(0, tokens * k, k, device=w_dec.device)
    bag_of = torch.arange(tokens, device=w_dec.device).repeat_interleave(k)
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        upstream, w_dec, fired.features.flatten(), starts, bag_of, 0
    )
    return products.view(tokens, k)


def _inner_products_gathered(fired: Fired, w_dec: Tensor, upstream: Tensor) -> Tensor:
    """By public operators only, a bounded number of gathered rows at a time."""
    k, width = fired.features.shape[1], w_dec.shape[1]
    step = max(1, _GATHERED_BYTES // (4 * k * width))
    parts = [
        torch.bmm(w_dec[features], rows[:, :, None])[:, :, 0]
        for features, rows in zip(torch.split(fired.features, step), torch.split(upstream, step), strict=True)
    ]
    return torch.cat(parts)
