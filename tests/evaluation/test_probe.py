"""Every architecture is either exactly right or refused: the probe against single passes and the serial path."""

import copy
import functools

import numpy as np
import pytest
import torch
from more_models import MORE, another_language_model
from tiny_models import (
    ARCHITECTURES,
    BLOCKS,
    FREQUENT_EOS,
    HIDDEN,
    SLIDING_WINDOW,
    TEXT,
    VOCABULARY,
    add,
    fingerprint,
    tiny_conditional_generation,
    tiny_language_model,
)

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.corpus import tokenise
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.probe import ONE_TOKEN, TOLERANCE, check_served, differences
from steer_eval.evaluation.serial import generate_serial, perplexity_serial
from steer_eval.extract import TokenisedPair, token_differences
from steer_eval.model import LanguageModel
from steer_eval.steering.hooks import captured, residual
from steer_eval.study import PerplexityProtocol

HALF = BLOCKS // 2
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 24, "mamba_n_groups": 1, "mamba_d_state": 8}
DELTA_NET = {
    **EXPERTS,
    "shared_expert_intermediate_size": 32,
    "head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"] * HALF,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"] * HALF, "sliding_window": SLIDING_WINDOW}
RIGHT = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": EXPERTS,
    "qwen3_5_moe_text": DELTA_NET,
    "qwen3_next": DELTA_NET,
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "first_k_dense_replace": 1,
    },
    "gpt_oss": {**WINDOWS, "head_dim": 12, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoehybrid": {
        **MAMBA2,
        "layer_types": ["mamba", "attention"] * HALF,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 32,
    },
    "nemotron_h": {
        "hybrid_override_pattern": "M*" * HALF,
        "mamba_num_heads": 4,
        "mamba_head_dim": 24,
        "n_groups": 1,
        "ssm_state_size": 8,
        "head_dim": 12,
    },
}
"""Beside those of `test_architectures.py`, whose texts and perplexities are compared there."""

PER_LAYER = {"head_dim": 12, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, **WINDOWS}
WRONG = {
    "bart": {"d_model": HIDDEN, "decoder_layers": BLOCKS, "encoder_layers": 1, "decoder_attention_heads": 4},
    "bamba": {**MAMBA2, "attn_layer_indices": [1, 3]},
    "bert": {},
    "gemma3n_text": {
        **PER_LAYER,
        "num_kv_shared_layers": 2,
        "altup_num_inputs": 2,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.0] * BLOCKS,
    },
    "gemma4_text": {**PER_LAYER, "global_head_dim": 12, "num_kv_shared_layers": 2},
    "gpt_bigcode": {},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "num_experts": 2,
        "use_mamba_kernels": False,
    },
    "llama4_text": {"head_dim": 12, "num_local_experts": 2, "intermediate_size_mlp": 64, "num_experts_per_tok": 1},
    "mamba": {},
    "mamba2": {"num_heads": 4, "head_dim": 24, "state_size": 8, "n_groups": 1},
    "minimax": {"num_local_experts": 2, "block_size": 4, "layer_types": ["linear_attention", "full_attention"] * HALF},
    "recurrent_gemma": {"lru_width": HIDDEN, "attention_window_size": SLIDING_WINDOW},
    "rwkv": {"attention_hidden_size": HIDDEN},
    "xglm": {"d_model": HIDDEN, "num_layers": BLOCKS, "attention_heads": 4, "ffn_dim": 96},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"] * HALF,
        "mamba_headdim": 24,
        "mamba_ngroups": 1,
        "n_mamba_heads": 4,
        "mamba_d_state": 8,
        "num_mem_blocks": 1,
    },
}
CELLS = [(), (add(0, 1.0),), (add(1, -1.0), add(3, 1.0)), (add(2, 1.0),), (add(3, 1.0),)]
PAIRS = [
    TokenisedPair(tuple(range(9, 9 + prompt)), (tuple(range(30, 30 + one)), tuple(range(60, 60 + other))))
    for prompt, one, other in ((5, 7, 2), (5, 1, 9), (12, 4, 6), (1, 3, 3))
]
LAYERS = [0, 1, 2]


def model_of(name: str, own: dict) -> LanguageModel:
    """With weights as large as real ones: in smaller ones a forgotten state hardly shows."""
    return another_language_model(name, eos_ids=FREQUENT_EOS, initializer_range=0.3, **own)


@functools.cache
def passing(name: str) -> LanguageModel:
    return tiny_language_model(name) if name in ARCHITECTURES else model_of(name, RIGHT.get(name, {}))


@pytest.fixture(params=RIGHT)
def right(request):
    return passing(request.param)


@pytest.fixture(scope="module", params=WRONG)
def wrong(request):
    return model_of(request.param, WRONG[request.param])


@torch.no_grad()
def by_single_passes(lm: LanguageModel, pair: TokenisedPair, layer: int) -> torch.Tensor:
    total = torch.zeros(lm.hidden_size, dtype=torch.float64)
    for reply, sign in zip(pair.replies, (1, -1), strict=True):
        with captured(lm.blocks, [layer], stop=False) as outputs:
            lm.module(torch.tensor([pair.prompt + reply]), use_cache=False)
        total += sign * residual(outputs[layer])[0, len(pair.prompt) :].double().mean(dim=0)
    return total


class TestWhatPasses:
    def test_its_texts_are_those_of_the_serial_path(self, right):
        requests = [Request(tuple(range(7, 7 + length)), cell) for length in (3, 11) for cell in CELLS]
        for index, text in generate_grid(right, requests, max_new_tokens=5, rows_per_batch=7):
            serial = generate_serial(right, requests[index], max_new_tokens=5)
            assert serial.agrees_with(text.ids)
            if serial.tie_at is None:
                assert text.gaps == pytest.approx(serial.gaps, abs=2e-3)

    def test_its_perplexities_are_those_of_the_serial_path(self, right):
        corpus = tokenise(TEXT[:150], right, PerplexityProtocol("", window=30))
        for index, nll in perplexity_grid(right, corpus, CELLS):
            np.testing.assert_allclose(nll, perplexity_serial(right, corpus, CELLS[index]), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", [*MORE, *RIGHT])
    def test_its_extraction_is_that_of_single_passes(self, name):
        lm = passing(name)
        found = token_differences(lm, PAIRS, LAYERS)
        for layer in LAYERS:
            for pair, difference in zip(PAIRS, found[layer], strict=True):
                expected = by_single_passes(lm, pair, layer)
                assert float((difference - expected).norm()) <= 1e-4 * float(expected.norm())

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("name", [*ARCHITECTURES, *MORE, *RIGHT])
    def test_it_passes_by_a_wide_margin(self, name, dtype):
        """Rounding alone, and experts that it chooses otherwise, must never refuse a model."""
        lm = passing(name)
        if dtype != lm.dtype:
            lm = LanguageModel(copy.deepcopy(lm.module).to(getattr(torch, dtype)), lm.tokenizer)
        shares = [found.share for found in differences(lm)]
        assert len(shares) == 4
        assert max(shares[:-1]) < TOLERANCE[dtype] / (100 if dtype == "float32" else 2)
        assert shares[-1] < max(TOLERANCE[dtype], ONE_TOKEN) / 2

    def test_a_wrapper_with_a_vision_tower(self):
        check_served(tiny_conditional_generation())

    @pytest.mark.parametrize("blocks", [1, 2, 3])
    def test_few_blocks(self, blocks):
        check_served(another_language_model("mistral", num_hidden_layers=blocks, initializer_range=0.3))

    def test_it_is_asked_once_and_stays_as_it_was(self):
        lm = model_of("mixtral", RIGHT["mixtral"])
        before = fingerprint(lm)
        passes = []
        handle = lm.blocks[0].register_forward_pre_hook(lambda *_: passes.append(0))
        for _ in range(3):
            check_served(lm)
        handle.remove()
        # The prompt, the plain pass, the continuation, the single tokens; rows that join do so above.
        assert len(passes) == 4
        assert fingerprint(lm) == before
        assert torch.is_grad_enabled()


class TestWhatIsRefused:
    def test_before_anything_is_measured(self, wrong):
        before = fingerprint(wrong)
        name = type(wrong.module).__name__
        corpus = tokenise(TEXT, wrong, PerplexityProtocol("", window=30))
        for measure in (
            lambda: list(generate_grid(wrong, [Request((7, 8, 9), CELLS[1])], max_new_tokens=2)),
            lambda: list(perplexity_grid(wrong, corpus, CELLS)),
            lambda: token_differences(wrong, PAIRS, LAYERS),
        ):
            with pytest.raises(SteerEvalError, match=f"^{name} can't be measured exactly: ") as refused:
                measure()
            assert "\n" not in refused.value.message
            assert refused.value.fix
        assert fingerprint(wrong) == before

    def test_a_model_that_looks_ahead_is_told_so(self):
        with pytest.raises(SteerEvalError, match="if others follow them") as refused:
            check_served(model_of("bert", WRONG["bert"]))
        assert "left to right" in refused.value.fix

    def test_another_librarys_exception_is_kept(self):
        with pytest.raises(SteerEvalError, match="ValueError: MiniMax") as refused:
            check_served(model_of("minimax", WRONG["minimax"]))
        assert isinstance(refused.value.__cause__, ValueError)

    def test_numbers_that_are_not_finite(self):
        lm = another_language_model("llama")
        with torch.no_grad():
            lm.module.lm_head.weight[3] = torch.inf
        with pytest.raises(SteerEvalError, match="not finite in float32"):
            check_served(lm)

    def test_a_cache_that_turns_to_nan(self, monkeypatch):
        """NaN is no difference that is small."""
        from transformers.cache_utils import DynamicLayer

        whole = DynamicLayer.update

        def continued(layer, *given):
            factor = torch.nan if layer.get_seq_length() else 1.0
            return [factor * each for each in whole(layer, *given)]

        monkeypatch.setattr(DynamicLayer, "update", continued)
        with pytest.raises(SteerEvalError, match=r"continue a prompt.*nan"):
            check_served(another_language_model("opt"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_smollm2_passes_by_a_wide_margin(smollm2_weights, dtype):
    from steer_eval.model import load_model

    shares = [found.share for found in differences(load_model(smollm2_weights.folder, dtype=dtype))]
    assert max(shares) < TOLERANCE[dtype] / 2
