"""Small random models of architectures that the toolkit was not made on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tiny_models import BLOCKS, HIDDEN, SLIDING_WINDOW, VOCABULARY, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from steer_eval.model import LanguageModel

MORE: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": HIDDEN},
    "mistral": {"sliding_window": SLIDING_WINDOW},
    "gemma2": {"head_dim": 12, "sliding_window": SLIDING_WINDOW},
    "lfm2": {"layer_types": ["conv", "full_attention"] * (BLOCKS // 2)},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "bloom": {},
    "falcon": {"alibi": True},
    "mpt": {"expansion_ratio": 2, "max_seq_len": 256},
    "gpt_neo": {"attention_types": [[["global", "local"], BLOCKS // 2]], "window_size": SLIDING_WINDOW},
}
"""What each needs beside the sizes of all."""


def another_language_model(
    architecture: str, *, attention: str | None = None, eos_ids: Iterable[int] = (), **own: Any
) -> LanguageModel:
    """A model of four blocks, in float32.

    Args:
        architecture: One of `MORE`, or another whose configuration `own` completes.
        attention: The implementation of its attention; None for what transformers takes.
        eos_ids: What ends a generation.
        own: More of its configuration.
    """
    config = AutoConfig.for_model(
        architecture,
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": 96,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            **MORE.get(architecture, {}),
            **own,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config, attn_implementation=attention).float().eval()
    module.generation_config.eos_token_id = list(eos_ids) or None
    return LanguageModel(module, tiny_tokenizer())
