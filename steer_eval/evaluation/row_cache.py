"""Caches of rows with prompts of different lengths, joined into one.

Invariant: a joined row attends to exactly the keys and values that it had before. Shorter rows are filled up on the
left with zeros, which `attention_mask` hides; positions count from each row's own first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steer_eval.model import LanguageModel


def new_cache(lm: LanguageModel) -> Any:
    """An empty cache of the kinds of layer that a model has."""
    from transformers import DynamicCache

    return DynamicCache(config=lm.module.config.get_text_config())


def can_join(lm: LanguageModel) -> bool:
    """Whether rows of different lengths can share a cache: only where every layer keeps keys and values of all tokens.

    A sliding window would slide over the filling, and a recurrent layer may see it; such models decode rows of one
    length together.
    """
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in new_cache(lm).layers)


class RowCache:
    """The cache of a batch while it decodes.

    Args:
        caches: One cache per group of rows with prompts of one length, in the order of the rows.
        lengths: Prompt length of each row.
        device: Where the model computes.
    """

    def __init__(self, caches: Sequence[Any], lengths: Sequence[int], device: torch.device) -> None:
        self.cache = caches[0]
        self.device = device
        self.lengths = torch.tensor(lengths)
        self.width = max(lengths)
        self.generated = 0
        if len(caches) > 1:
            _join(self.cache, caches, self.width)

    def arguments(self) -> dict[str, Any]:
        """What the model must be given to decode the next token of each row."""
        inputs: dict[str, Any] = {"past_key_values": self.cache, "use_cache": True}
        filling = self.width - self.lengths
        if bool(filling.any()):
            tokens = torch.arange(self.width + self.generated + 1)
            inputs["attention_mask"] = (tokens >= filling[:, None]).long().to(self.device)
            inputs["position_ids"] = (self.lengths + self.generated)[:, None].to(self.device)
        self.generated += 1
        return inputs

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        # The width stays although the longest row may have left: cutting off filling would copy the whole cache.
        self.lengths = self.lengths[rows]
        self.cache.reorder_cache(rows.to(self.device))


def _join(target: Any, caches: Sequence[Any], width: int) -> None:
    for index, layer in enumerate(target.layers):
        parts = [cache.layers[index] for cache in caches]
        layer.keys = torch.cat([_filled(part.keys, width) for part in parts])
        layer.values = torch.cat([_filled(part.values, width) for part in parts])


def _filled(states: Tensor, width: int) -> Tensor:
    """Keys or values `[rows, heads, tokens, head_size]` with zeros before them, up to `width` tokens."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[-2], 0))
