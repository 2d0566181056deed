"""Architectures that the toolkit was not made on: decoders inside backbones, windows, convolutions, both at once.

And attention with a linear bias (ALiBi), which some make for each row by itself (BLOOM, Falcon), and others once (MPT).
"""

import numpy as np
import pytest
import torch
from edits_by_hand import every_kind
from tiny_models import BLOCKS, FREQUENT_EOS, HIDDEN, TEXT, VOCABULARY, add, fingerprint, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.serial import generate_serial, perplexity_serial
from steer_eval.model import LanguageModel
from steer_eval.study import PerplexityProtocol

CELLS = [(), (add(0, 1.0),), (add(1, -1.0), add(3, 1.0)), (add(BLOCKS - 1, 1.0),)]
KINDS = [every_kind()[name] for name in ("rotate", "clamp", "patch", "all kinds")]
OWN = {
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": HIDDEN},
    "mistral": {"sliding_window": 8},
    "gemma2": {"head_dim": 12, "sliding_window": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"] * (BLOCKS // 2)},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "bloom": {},
    "falcon": {"alibi": True},
    "mpt": {"expansion_ratio": 2, "max_seq_len": 256},
}


@pytest.fixture(scope="module", params=[*OWN, "falcon, eager"])
def lm(request):
    name, _, attention = request.param.partition(", ")
    config = AutoConfig.for_model(
        name,
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=96,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **OWN[name],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config, attn_implementation=attention or None).float().eval()
    module.generation_config.eos_token_id = list(FREQUENT_EOS)
    return LanguageModel(module, tiny_tokenizer())


def test_texts_are_those_of_the_serial_path(lm):
    before = fingerprint(lm)
    requests = [Request(tuple(range(7, 7 + length)), cell) for length in (3, 5, 11) for cell in [*CELLS, *KINDS]]
    for index, text in generate_grid(lm, requests, max_new_tokens=6, rows_per_batch=7):
        assert generate_serial(lm, requests[index], max_new_tokens=6).agrees_with(text.ids)
    assert fingerprint(lm) == before


def test_perplexities_are_those_of_the_serial_path(lm):
    corpus = tokenise(TEXT, lm, PerplexityProtocol("", window=30)).with_context([7, 8, 9])
    cells = [*CELLS, *KINDS]
    for index, nll in perplexity_grid(lm, corpus, cells):
        np.testing.assert_allclose(nll, perplexity_serial(lm, corpus, cells[index]), rtol=1e-4, atol=1e-4)


def test_logits_are_the_models_own(lm):
    ids = torch.tensor([list(range(9, 20))])
    with torch.no_grad():
        expected = lm.module(ids).logits
    torch.testing.assert_close(lm.logits(lm.final_hidden(ids)), expected, atol=1e-5, rtol=1e-5)
