"""Small random models of every architecture that the engine is held to, built without a download."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5TextConfig,
)

from steer_eval.evaluation.probe import check_served
from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Add

ARCHITECTURES = ("llama", "gemma3", "gpt2", "granite", "qwen3_5")
BLOCKS = 4
HIDDEN = 48
VOCABULARY = 320
SLIDING_WINDOW = 8
FREQUENT_EOS = tuple(range(5, VOCABULARY, 12))
"""So many ids end a generation that rows of one batch finish at different times."""

SPECIAL_TOKENS = ("<pad>", "<s>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{{ turn['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = (
    "The river rose in the night. Nobody in the valley had slept, and the dogs were quiet! "
    "Was it the rain that woke her? She put on her coat, took the lamp, and went out to look at the bridge.\n"
    "The water had reached the second step. He said that the old men had seen worse. "
    "They counted the sheep twice; one was missing. In the morning the sun came out, and the road was gone."
)


@functools.cache
def _tokenizer_json(bos: bool) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if bos:
        template = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
        tokenizer.post_processor = processors.Sequence([tokenizer.post_processor, template])
    return str(tokenizer.to_str())


def tiny_tokenizer(*, bos: bool = False, chat: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer without an end-of-sequence token."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json(bos)),
        bos_token=SPECIAL_TOKENS[1],
        pad_token=SPECIAL_TOKENS[0],
        additional_special_tokens=list(SPECIAL_TOKENS[2:]),
        chat_template=CHAT_TEMPLATE if chat else None,
        clean_up_tokenization_spaces=False,
    )


def tiny_config(architecture: str, *, vocabulary: int = VOCABULARY) -> Any:
    shared: dict[str, Any] = {
        "vocab_size": vocabulary,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    if architecture == "gpt2":
        return GPT2Config(
            **shared, n_embd=HIDDEN, n_layer=BLOCKS, n_head=4, n_positions=256, resid_pdrop=0.0, initializer_range=0.3
        )
    shared |= {
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
    }
    match architecture:
        case "llama":
            return LlamaConfig(**shared)
        case "gemma3":
            return Gemma3TextConfig(
                **shared,
                head_dim=16,
                query_pre_attn_scalar=16,
                sliding_window=SLIDING_WINDOW,
                layer_types=["sliding_attention", "full_attention"] * (BLOCKS // 2),
                final_logit_softcapping=20.0,
            )
        case "granite":
            return GraniteConfig(
                **shared,
                embedding_multiplier=6.0,
                residual_multiplier=0.4,
                attention_multiplier=0.3,
                logits_scaling=2.0,
            )
        case "qwen3_5":
            return Qwen3_5TextConfig(
                **shared,
                head_dim=16,
                layer_types=["linear_attention", "full_attention"] * (BLOCKS // 2),
                linear_key_head_dim=8,
                linear_value_head_dim=8,
                linear_num_key_heads=2,
                linear_num_value_heads=4,
            )
    raise ValueError(architecture)


_CLASSES: dict[str, Any] = {
    "llama": LlamaForCausalLM,
    "gemma3": Gemma3ForCausalLM,
    "gpt2": GPT2LMHeadModel,
    "granite": GraniteForCausalLM,
    "qwen3_5": Qwen3_5ForCausalLM,
}


def tiny_language_model(
    architecture: str = "llama",
    *,
    eos_ids: Iterable[int] = (),
    seed: int = 0,
    vocabulary: int = VOCABULARY,
    bos: bool = False,
    chat: bool = True,
) -> LanguageModel:
    """A model of four blocks, in float32.

    Without `eos_ids` nothing ends a generation; with `FREQUENT_EOS` rows end at different times. A `vocabulary` larger
    than the tokenizer's is what real checkpoints have.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module: PreTrainedModel = _CLASSES[architecture](tiny_config(architecture, vocabulary=vocabulary))
    module.float().eval()
    module.generation_config.eos_token_id = list(eos_ids) or None
    with torch.no_grad():
        # The first such call leaves hooks of transformers' own behind for good, which `fingerprint` would blame on us.
        module(input_ids=torch.zeros(1, 1, dtype=torch.long), output_hidden_states=True, use_cache=False)
    lm = LanguageModel(module, tiny_tokenizer(bos=bos, chat=chat))
    # Here and not at its first use, so that tests which count passes see their own.
    check_served(lm)
    return lm


def save_tiny_model(folder: Path, architecture: str = "llama", *, seed: int = 0) -> LanguageModel:
    """Write a model folder that `load_model` reads, and return what was written."""
    lm = tiny_language_model(architecture, seed=seed)
    lm.module.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return lm


def random_vector(seed: int, *, norm: float = 4.0, size: int = HIDDEN) -> torch.Tensor:
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm() * norm


def add(layer: int, coefficient: float, *, seed: int = 0, norm: float = 4.0) -> Add:
    """An `Add` of a random vector that depends on the layer and the seed."""
    return Add(layer, random_vector(100 * seed + layer, norm=norm), coefficient)


def fingerprint(lm: LanguageModel) -> tuple[Any, ...]:
    """What must be the same before and after anything that touches a model."""
    module = lm.module
    return (
        [(name, id(child)) for name, child in module.named_modules()],
        [(name, id(parameter)) for name, parameter in module.named_parameters()],
        [id(block) for block in lm.blocks],
        [len(child._forward_hooks) + len(child._forward_pre_hooks) for child in module.modules()],
        module.generation_config.to_dict(),
        module.training,
    )


def tiny_conditional_generation(*, eos_ids: Iterable[int] = (), seed: int = 0) -> LanguageModel:
    """The wrapper that Qwen3.5 checkpoints are published as, vision tower and all, around a tiny text model."""
    config = Qwen3_5Config(
        text_config=tiny_config("qwen3_5").to_dict(),
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 16,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Qwen3_5ForConditionalGeneration(config).float().eval()
    module.generation_config.eos_token_id = list(eos_ids) or None
    return LanguageModel(module, tiny_tokenizer())
