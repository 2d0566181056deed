"""Rotary embeddings that depend on the longest text of a batch.

Invariant: a text gets the positions that it would have by itself. `dynamic` and `longrope` (Phi-3) choose the
frequencies of a whole batch by its largest position, so that beyond the length that a model was first trained on a text
changes with whoever is read beside it, and what was cached before with what is written after it; `dynamic` even
remembers longer texts that were read before. Up to that length none of this happens, and what is longer is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from steer_eval.errors import SteerEvalError


def refuse_longer_texts(module: nn.Module) -> None:
    """Let a model refuse texts whose positions would depend on other texts.

    Args:
        module: A causal language model; one whose rotary embeddings are fixed stays as it is.
    """
    for child in module.modules():
        limits = list(_limits(child))
        if limits:
            kind, longest = min(limits, key=lambda limit: limit[1])
            child.register_forward_pre_hook(partial(_check, kind, longest), with_kwargs=True)


def _limits(module: Any) -> Iterator[tuple[str, int]]:
    """Kinds of changing frequencies that a rotary embedding has, and the longest texts for which they don't change."""
    kinds = getattr(module, "rope_type", None)
    by_layer = kinds if isinstance(kinds, Mapping) else {None: kinds}
    for layer_type, kind in by_layer.items():
        if kind == "longrope":
            settings = module.config.rope_parameters
            settings = settings if layer_type is None else settings[layer_type]
            yield kind, int(settings["original_max_position_embeddings"])
        elif isinstance(kind, str) and "dynamic" in kind:
            yield kind, int(module.original_max_seq_len)


def _check(kind: str, longest: int, _module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    positions: Tensor = named["position_ids"] if "position_ids" in named else arguments[1]
    tokens = int(positions.max()) + 1
    if tokens > longest:
        raise SteerEvalError(
            f"{tokens} tokens are to be read, and beyond {longest} the rotary embedding of this model ({kind}) makes a "
            "text's positions depend on the texts beside it",
            f"keep prompts with their texts, and perplexity windows, within {longest} tokens",
        )
