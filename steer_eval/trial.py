"""Trying vectors on prompts: each prompt's unsteered continuation, and one per layer and coefficient.

Invariant: a trial is a value, and its answers are a function of it and the model. All continuations, of all prompts
and variants, are rows of one grid, and each is the serial path's text in the sense of `Generation.agrees_with`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.generation import Generation, Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.formats.vector import SteeringVector
from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Add


@dataclass(frozen=True)
class Variant:
    """One way in which the model answers.

    Args:
        layer: Index of the steered block; None for the unsteered model.
        coef: Coefficient; 0 for the unsteered model.
    """

    layer: int | None
    coef: float

    def __str__(self) -> str:
        return "unsteered" if self.layer is None else f"layer {self.layer}, c = {self.coef:+g}"


UNSTEERED = Variant(None, 0.0)


@dataclass(frozen=True, eq=False)
class Trial:
    """What is tried.

    Args:
        prompts: User turns.
        vectors: What is added, by the layer at whose output it is added, in the order in which they are shown.
        coefs: Multiples of each vector, likewise.
        max_new_tokens: Longest continuation.
        system: System turn before each prompt; None leaves the chat template's own default.

    Raises:
        SteerEvalError: A prompt is empty or no text, or a coefficient is no finite number.
    """

    prompts: tuple[str, ...]
    vectors: Mapping[int, SteeringVector]
    coefs: tuple[float, ...]
    max_new_tokens: int
    system: str | None = None

    def __post_init__(self) -> None:
        for number, prompt in enumerate(self.prompts, start=1):
            if not prompt.strip():
                raise SteerEvalError(f"prompt {number} is empty", "give it a text")
            _check_text(prompt, f"prompt {number}")
        _check_text(self.system or "", "system prompt")
        for coef in self.coefs:
            if not math.isfinite(coef):
                raise SteerEvalError(f"coefficient {coef} is no finite number", "give a number, for example 2 or -1.5")

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The unsteered model, and then each layer with each coefficient."""
        return (UNSTEERED, *(Variant(layer, coef) for layer in self.vectors for coef in self.coefs))

    def intervention(self, variant: Variant) -> tuple[Add, ...]:
        """A variant's edits."""
        if variant.layer is None:
            return ()
        return (Add(variant.layer, torch.from_numpy(self.vectors[variant.layer].values), variant.coef),)


def _check_text(text: str, name: str) -> None:
    # Bytes of a command line that are not UTF-8 arrive as lone surrogates, which no tokenizer takes.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SteerEvalError(f"the {name} is not UTF-8 text", "give it in UTF-8")


@dataclass(frozen=True)
class Answer:
    """One continuation, its parts named as in a sweep's rows.

    Args:
        variant: How the model was steered.
        gen: The continuation.
        n_tokens: Its tokens.
        stop: Why it ended: an end-of-sequence token, or the limit.
        determined: Characters before the first near-tie of the two largest logits; None if there is no near-tie.
    """

    variant: Variant
    gen: str
    n_tokens: int
    stop: Literal["eos", "length"]
    determined: int | None

    def to_json(self) -> dict[str, Any]:
        """As `steer-eval generate --json` prints it."""
        variant = {"layer": self.variant.layer, "coef": self.variant.coef}
        return variant | {name: getattr(self, name) for name in ("gen", "n_tokens", "stop", "determined")}


def requests(trial: Trial, lm: LanguageModel, *, model: str) -> list[Request]:
    """The rows of a trial, prompt by prompt, each with one row per variant.

    Args:
        trial: What is tried.
        lm: The model.
        model: What to call it in messages.

    Raises:
        SteerEvalError: A vector does not fit the model, a prompt is too long for it, or its chat template refuses the
            turns.
    """
    _check_vectors(trial, lm, model)
    prompts = [_prompt_ids(trial, lm, prompt, model) for prompt in range(len(trial.prompts))]
    return [Request(ids, trial.intervention(variant)) for ids in prompts for variant in trial.variants]


def answer(
    trial: Trial,
    lm: LanguageModel,
    rows: Sequence[Request],
    *,
    model: str,
    on_rows: Callable[[int], None] = lambda _done: None,
) -> list[tuple[Answer, ...]]:
    """Generate all continuations of a trial, in shared batches.

    Args:
        trial: What is tried.
        lm: The model.
        rows: The trial's `requests` for this model.
        model: What to call it in messages.
        on_rows: Called with the number of continuations just finished.

    Returns:
        For each prompt one answer per variant, in the order of `trial.variants`.

    Raises:
        SteerEvalError: The logits stop being numbers.
    """
    variants = trial.variants
    answers: dict[int, Answer] = {}
    for index, generation in generate_grid(lm, rows, max_new_tokens=trial.max_new_tokens):
        answers[index] = _answer(lm, variants[index % len(variants)], generation, model)
        on_rows(1)
    return [
        tuple(answers[start + index] for index in range(len(variants))) for start in range(0, len(rows), len(variants))
    ]


def _check_vectors(trial: Trial, lm: LanguageModel, model: str) -> None:
    """Refuse vectors that can't be added to a model's residual stream."""
    count = len(lm.blocks)
    for layer, vector in trial.vectors.items():
        if layer >= count:
            raise SteerEvalError(
                f"there is no layer {layer}: {model} has {count} decoder blocks, 0 to {count - 1}",
                "give one of them; layers count from 0",
            )
        if vector.values.size != lm.hidden_size:
            origin = vector.provenance.get("model")
            raise SteerEvalError(
                f"the vector for layer {layer} has {vector.values.size} values, but the hidden size of {model} "
                f"is {lm.hidden_size}" + (f"; the vector says that it is of {origin}" if origin else ""),
                "a vector fits only the model that it was extracted from",
            )
    for variant in trial.variants:
        for edit in trial.intervention(variant):
            if not bool(edit.delta().isfinite().all()):
                raise SteerEvalError(
                    f"{variant}: this multiple of the vector is too large for float32", "take a smaller coefficient"
                )


def _prompt_ids(trial: Trial, lm: LanguageModel, prompt: int, model: str) -> tuple[int, ...]:
    ids = lm.chat_ids(trial.prompts[prompt], system=trial.system)
    limit = getattr(lm.module.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and len(ids) + trial.max_new_tokens > limit:
        raise SteerEvalError(
            f"prompt {prompt + 1} has {len(ids)} tokens and is to be continued by {trial.max_new_tokens}, "
            f"but {model} has {limit} positions",
            "shorten the prompt, or ask for fewer tokens",
        )
    return tuple(ids)


def _answer(lm: LanguageModel, variant: Variant, generation: Generation, model: str) -> Answer:
    if not all(math.isfinite(gap) for gap in generation.gaps):
        raise SteerEvalError(
            f"{variant}: the logits of {model} are not finite numbers",
            "check the model's weights" if variant.coef == 0 else "take a smaller coefficient",
        )
    tie = generation.tie_at
    return Answer(
        variant,
        lm.decode(generation.ids),
        len(generation.ids),
        generation.stop,
        None if tie is None else len(lm.decode(generation.ids[:tie])),
    )
