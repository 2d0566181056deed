"""A causal language model with its residual stream in reach.

Invariant: nothing here depends on one architecture. Decoder blocks are found by their place in the module tree, chat
text comes from the tokenizer's template, and logits come from the model's own forward, so that scaling and soft-capping
are the model's. No remote code is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steer_eval.errors import SteerEvalError, first_line
from steer_eval.rotary import refuse_longer_texts
from steer_eval.steering.hooks import replaced

_LONGEST_CHAT = 2**20

_HABITS: dict[str, float | None] = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "guidance_scale", "num_beams"), 1),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id")),
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "exponential_decay_length_penalty", "watermarking_config")),
    **dict.fromkeys(("stop_strings", "max_time", "penalty_alpha", "dola_layers")),
}
"""Settings of `generate` that change what greedy decoding writes, and the value, if any, at which they don't."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded model and its tokenizer.

    Args:
        module: The `...ForCausalLM` module, in evaluation mode.
        tokenizer: Its tokenizer.
    """

    module: Any
    tokenizer: Any

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, in order."""
        return decoder_blocks(self.module)

    def block_path(self, layer: int) -> str:
        """Where a decoder block is among the model's modules, for example `model.layers.3`."""
        blocks = self.blocks
        path = next(name for name, child in self.module.named_modules() if child is blocks)
        return f"{path}.{layer}"

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self.module.config.get_text_config().hidden_size)

    @property
    def vocabulary(self) -> int:
        """How many logits a token has."""
        return int(self.module.config.get_text_config().vocab_size)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = self.module.device
        return device

    @property
    def dtype(self) -> str:
        """Precision of the weights, for example `float32`."""
        return str(self.module.dtype).removeprefix("torch.")

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a generation."""
        ids = self.module.generation_config.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id
        return frozenset([] if ids is None else [ids] if isinstance(ids, int) else ids)

    @property
    def habits(self) -> dict[str, Any]:
        """Settings of the checkpoint that would change greedy text, in JSON; nothing here applies them."""
        said = json.loads(self.module.generation_config.to_json_string(use_diff=False))
        return {name: said[name] for name, idle in _HABITS.items() if said.get(name) not in (None, idle, [])}

    def chat_ids(self, user: str, *, system: str | None = None) -> list[int]:
        """Tokens of a conversation up to the point where the assistant's reply begins.

        Args:
            user: The user's turn.
            system: A system turn before it; None leaves the template's own default.

        Raises:
            SteerEvalError: There is no chat template, it refuses the conversation or fails, or writes over a megabyte.
        """
        turns = [{"role": "user", "content": user}]
        if system is not None:
            turns.insert(0, {"role": "system", "content": system})
        return self._templated(turns, add_generation_prompt=True)

    def system_ids(self, system: str) -> list[int]:
        """Tokens of a conversation that consists of a system turn only."""
        return self._templated([{"role": "system", "content": system}], add_generation_prompt=False)

    def _templated(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> list[int]:
        if not self.tokenizer.chat_template:
            raise SteerEvalError(
                f"{self.tokenizer.name_or_path} has no chat template",
                "steer an instruction-tuned model, or write its `chat_template` under `models` in study.yaml",
            )
        # Templates that know no `enable_thinking` ignore it.
        write = partial(
            self.tokenizer.apply_chat_template,
            turns,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
        )
        text = written_chat(write, turns, self.tokenizer.name_or_path)
        return self.text_ids(text, special_tokens=False)

    def text_ids(self, text: str, *, special_tokens: bool) -> list[int]:
        """Tokens of a plain text, with or without the tokenizer's default special tokens."""
        return list(self.tokenizer(text, add_special_tokens=special_tokens).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some tokens, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @torch.no_grad()
    def final_hidden(self, ids: Tensor, *, cache: Any = None, **inputs: Any) -> Tensor:
        """What the LM head sees for some tokens.

        Args:
            ids: Token ids, int64 `[rows, tokens]`, no padding.
            cache: What is known of the tokens before them; these are added to it. None for nothing, and nothing kept.
            inputs: What else the model must be given (positions, a mask).

        Returns:
            Hidden states after the final norm, `[rows, tokens, hidden_size]`.
        """
        if cache is not None:
            inputs["past_key_values"] = cache
        hidden: Tensor = self._backbone(
            input_ids=ids.to(self.device), use_cache=cache is not None, **inputs
        ).last_hidden_state
        return hidden

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """The model's own logits for what `final_hidden` returned.

        Args:
            hidden: `[rows, tokens, hidden_size]`.

        Returns:
            Logits `[rows, tokens, vocabulary]`.

        Raises:
            SteerEvalError: The head reads something else than what `final_hidden` returns.
        """
        unused = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        # OPT's head reaches through its backbone to the decoder in it.
        for parent, name in ((self.module, self.module.base_model_prefix), (self._backbone, "decoder")):
            if hasattr(parent, name):
                with replaced(parent, name, _BackboneOutput(hidden)) as backbone:
                    logits: Tensor = self.module(input_ids=unused, use_cache=False).logits
                if backbone.asked:
                    return logits
        raise SteerEvalError(
            f"{type(self.module).__name__} does not get its logits from its {self.module.base_model_prefix}",
            "report the architecture",
        )

    @property
    def _backbone(self) -> Any:
        return getattr(self.module, self.module.base_model_prefix)


def written_chat(write: Callable[[], Any], turns: Sequence[Mapping[str, str]], model: str) -> str:
    """What a chat template makes of a conversation.

    Templates refuse by raising: some know no system turn. They are programs, and fail in all ways of one.

    Args:
        write: Applies the template.
        turns: The conversation.
        model: Whose template it is, for messages.

    Raises:
        SteerEvalError: The template refuses the conversation or fails, or writes over a megabyte.
    """
    try:
        text = str(write())
    except Exception as error:
        roles = [turn["role"] for turn in turns]
        without = "leave out the system prompt, or " if "system" in roles else ""
        raise SteerEvalError(
            f"the chat template of {model} can't write turns of {' and '.join(roles)}: {first_line(error)}",
            f"{without}write another `chat_template` under `models` in study.yaml",
        ) from error
    if len(text) > _LONGEST_CHAT:
        raise SteerEvalError(
            f"the chat template of {model} makes {len(text):,} characters of "
            f"{sum(len(turn['content']) for turn in turns):,}, and {_LONGEST_CHAT:,} is the most that is read",
            "write another `chat_template` under `models` in study.yaml",
        )
    return text


class _BackboneOutput:
    """What any architecture's backbone returns, of which the head reads the hidden states; all else is None."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def load_model(
    folder: Path, *, dtype: str = "float32", device: str | None = None, chat_template: str | None = None
) -> LanguageModel:
    """Load a model folder.

    Args:
        folder: Folder with `config.json`, the tokenizer and safetensors weights.
        dtype: Precision of the weights in memory.
        device: Where to compute; `STEER_EVAL_DEVICE`, else the CPU.
        chat_template: How a conversation is written, as a Jinja template; None for the tokenizer's own.

    Raises:
        SteerEvalError: The folder holds no model that transformers can load, or there is no such device.
    """
    device = _existing_device(device)
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    # A second progress bar would fight with ours for the line.
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        module, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True
        )
        if loading["missing_keys"]:
            # transformers would go on with random numbers in their place.
            raise ValueError(f"the weights lack {', '.join(sorted(loading['missing_keys']))}")
        refuse_longer_texts(module)
        return LanguageModel(module.to(device).eval(), tokenizer)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SteerEvalError(
            f"{folder}: transformers can't load a causal language model: {first_line(error)}",
            "check that the folder has config.json, a tokenizer and .safetensors weights",
        ) from error


def _existing_device(asked: str | None) -> str:
    """The device asked for, else that of the environment, else the CPU, if torch can put something there."""
    device = asked or os.environ.get("STEER_EVAL_DEVICE") or "cpu"
    try:
        torch.empty(1, device=torch.device(device))
    except (RuntimeError, AssertionError, ImportError):
        # torch has a different exception for each way in which a device can be absent.
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        there = ["cpu"]
        if accelerator is not None:
            there += [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
        name = "device" if asked else "STEER_EVAL_DEVICE"
        raise SteerEvalError(
            f"{name} is {device!r}, which torch does not have here; the devices that there are: {', '.join(there)}",
            f"set {name} to one of them",
        ) from None
    return device


def decoder_blocks(module: nn.Module) -> nn.ModuleList:
    """Find the list of decoder blocks of a causal language model.

    It is the one `ModuleList` with as many children as the text configuration has layers, and if there are several
    (vision towers, per-layer projections), the one with the most parameters.

    Raises:
        SteerEvalError: There is none.
    """
    config: Any = module.config
    count = config.get_text_config().num_hidden_layers
    candidates = [child for child in module.modules() if isinstance(child, nn.ModuleList) and len(child) == count]
    if not candidates:
        raise SteerEvalError(
            f"{type(module).__name__} has no list of {count} decoder blocks", "report the architecture"
        )
    return max(candidates, key=lambda blocks: sum(parameter.numel() for parameter in blocks.parameters()))
