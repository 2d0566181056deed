"""Models and tokenizers that transfers are held to: a residual stream that is another's, rotated, and other tokens."""

from __future__ import annotations

import numpy as np
import torch
from tiny_models import HIDDEN, SPECIAL_TOKENS, TEXT, tiny_language_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from steer_eval.model import LanguageModel
from steer_eval.transfer import neutral
from steer_eval.transfer.maps import random_rotation

WRITES = ("o_proj", "down_proj", "out_proj")
"""Projections that write to the residual stream; all others of a block read from it."""

UNKNOWN = "<unk>"
ROTATION = random_rotation(np.random.default_rng(17), HIDDEN, HIDDEN)


def rotated_language_model(architecture: str, *, seed: int = 0) -> LanguageModel:
    """A tiny model that computes the same tokens as the unrotated one.

    Root-mean-square norms with equal weights do not see a rotation, so turning what is read and what is written turns
    the whole stream.
    """
    lm = tiny_language_model(architecture, seed=seed)
    rotation = torch.from_numpy(ROTATION)

    def turned(linear: torch.nn.Linear, *, writes: bool) -> None:
        weight = linear.weight.data.double()
        linear.weight.data = (rotation.T @ weight if writes else weight @ rotation).float()

    embedding = lm.module.get_input_embeddings()
    embedding.weight.data = (embedding.weight.data.double() @ rotation).float()
    turned(lm.module.get_output_embeddings(), writes=False)
    for block in lm.blocks:
        for name, child in block.named_modules():
            if isinstance(child, torch.nn.Linear):
                turned(child, writes=name.endswith(WRITES))
    return lm


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the other family: it writes spaces as a letter, and has bytes for what it does not know."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    special = [UNKNOWN, SPECIAL_TOKENS[1], *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([TEXT, *neutral.sentences()], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIAL_TOKENS[1])
