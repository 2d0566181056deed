"""What a token takes in memory while a model reads it.

Invariant: nothing is run to find out. Sizes come from the model's configuration, amply where it does not say all, so
that what is counted is not less than what is taken.
"""

from __future__ import annotations

from typing import Any

from steer_eval.model import LanguageModel

_EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_num_experts_per_tok",
    "top_k_experts",
    "moe_top_k",
    "moe_k",
)
"""What configurations call the number of experts that a token goes to."""


def activation_bytes(lm: LanguageModel, keys: int) -> int:
    """What one token of one row takes on its way through a block, in bytes.

    A dozen copies of the residual stream and a few of the widest layer; the rest of a block is gone by then. Where a
    token goes to several experts, their inputs, inner layers and outputs stand side by side. Eager attention keeps the
    scores of all keys, their softmax in float32, and its copy in the model's precision.

    Args:
        lm: The model.
        keys: How many tokens it attends to.
    """
    config = lm.module.config.get_text_config()
    hidden, heads = lm.hidden_size, _largest(config, "num_attention_heads")
    inner = _largest(config, "intermediate_size", "ffn_hidden_size") or 4 * hidden
    numbers = 12 * hidden + 4 * max(inner, hidden, heads * _head_size(lm))
    experts = _largest(config, *_EXPERTS_PER_TOKEN)
    if experts:
        inner = _largest(config, "moe_intermediate_size", "expert_ffn_hidden_size") or inner
        numbers += experts * (3 * hidden + 4 * inner)
    if config._attn_implementation == "eager":
        numbers += 3 * heads * keys
    return 4 * numbers


def residual_bytes(lm: LanguageModel) -> int:
    """What the residual stream takes for one token of one row, in bytes."""
    return int(lm.hidden_size * lm.module.dtype.itemsize)


def key_bytes(lm: LanguageModel) -> int:
    """What keys and values take for one token of one row, in bytes, as if every block had attention."""
    heads = _largest(lm.module.config.get_text_config(), "num_key_value_heads", "num_attention_heads")
    return int(2 * len(lm.blocks) * heads * _head_size(lm) * lm.module.dtype.itemsize)


def _head_size(lm: LanguageModel) -> int:
    config = lm.module.config.get_text_config()
    return _largest(config, "head_dim") or lm.hidden_size // max(1, _largest(config, "num_attention_heads"))


def _largest(config: Any, *names: str) -> int:
    """The first of some sizes that a configuration has, the largest where blocks differ in it; 0 if there is none."""
    for name in names:
        value = getattr(config, name, None)
        if value:
            return int(max(value) if isinstance(value, (list, tuple)) else value)
    return 0
