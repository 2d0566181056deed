"""Attention of one new token per row to everything before it, for many rows.

Invariant: it computes what the model's own scaled dot-product attention computes, up to float rounding; whatever it was
not made for it hands back to that. Outside `decode_attention` the model is as it was.

A mask of places is taken as it is: where fewer places are looked at than rows have tokens, these are the ring of a
sliding window (`row_cache.py`), whose first `length` places are the row's.

PyTorch's fused kernel on a CPU is made for long queries. With one token per row, two batched matrix products over the
keys and values where they lie are faster: a little in float32, several times in bfloat16 (docs/speed.md). Heads that
share keys and values stay together as the rows of one product, so nothing is repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from steer_eval.model import decoder_blocks

_NAME = "steer_eval_decode"
_PLAIN = {"is_causal", "position_ids", "use_cache", "cache_position", "sliding_window", "output_attentions"}
"""Arguments that say nothing to a single token: what it may see is in the mask."""


@contextmanager
def decode_attention(module: Any) -> Iterator[None]:
    """Use this attention inside the `with` block, if it serves the model."""
    if not serves(module):
        yield
        return
    config = module.config.get_text_config()
    _register()
    before = config._attn_implementation_internal
    config._attn_implementation_internal = _NAME
    try:
        yield
    finally:
        config._attn_implementation_internal = before


def serves(module: Any) -> bool:
    """Whether a model uses PyTorch's attention on a CPU, in whose place this one can be used.

    Some (Falcon) don't ask transformers' registry for it, and take any name but "sdpa" for their plainest one.
    """
    registry = hasattr(sys.modules[type(decoder_blocks(module)[0]).__module__], "ALL_ATTENTION_FUNCTIONS")
    used = module.config.get_text_config()._attn_implementation
    return bool(registry and module.device.type == "cpu" and used == "sdpa")


def is_used(module: Any) -> bool:
    """Whether a model is inside `decode_attention`, and it serves the model."""
    return bool(module.config.get_text_config()._attn_implementation == _NAME)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, _mask)


def _mask(*, kv_length: int, attention_mask: Tensor | None = None, **others: Any) -> Tensor | None:
    """Where new tokens may look, in the form that transformers asks for.

    Args:
        kv_length: Places that the layer's cache shows.
        attention_mask: True for the places that a row may look at, `[rows, width]`; None for all.
        others: Whatever else describes a mask: from which position to which a row may look, for example.

    Returns:
        `[rows, 1, 1, kv_length]`, or None for everywhere.
    """
    if attention_mask is not None and attention_mask.shape[1] > kv_length:
        # Positions are not places in a ring, so rules on positions say nothing of it.
        return attention_mask[:, None, None, :kv_length]
    from transformers.masking_utils import sdpa_mask

    mask: Tensor | None = sdpa_mask(kv_length=kv_length, attention_mask=attention_mask, **others)
    return mask


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that transformers asks for.

    Args:
        module: The layer.
        query: `[rows, heads, tokens, head_size]`.
        key: `[rows, key_heads, width, head_size]`; `heads` is a multiple of `key_heads`.
        value: Like `key`, its last size may differ.
        attention_mask: True where a token may look, `[rows, 1, tokens, width]`; None for everywhere.
        dropout: Must be 0.
        scaling: Factor of the scores; None for `head_size ** -0.5`.
        others: Whatever else the architecture passes.

    Returns:
        `[rows, tokens, heads, head_size]`, and no weights.
    """
    rows, heads, tokens, size = query.shape
    special = any(given is not None and name not in _PLAIN for name, given in others.items())
    simple_mask = attention_mask is None or (attention_mask.dtype == torch.bool and attention_mask.shape[1] == 1)
    if tokens != 1 or dropout or special or not simple_mask:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        answer: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return answer
    shared, width = key.shape[1], key.shape[2]
    scores = torch.bmm(query.reshape(rows * shared, heads // shared, size), key.flatten(0, 1).transpose(1, 2))
    # In float32, as the fused kernel keeps them.
    scores = scores.float().mul_(size**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores.view(rows, heads, width).masked_fill_(~attention_mask[:, 0], -torch.inf)
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    mixed = torch.bmm(weights, value.flatten(0, 1))
    return mixed.view(rows, 1, heads, -1), None
