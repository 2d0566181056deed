"""lm-eval's model type `steer-eval`: its Hugging Face model, steered by one of our interventions.

Invariant: weights are loaded once. A view (`steered`) shares everything with the model that it was made from but the
intervention; hooks are set for one forward pass or one generation, and removed after it. Without an intervention every
answer is that of lm-eval's own `hf`. All positions are steered, as in a sweep: of the context, of the continuation, and
padding, which nothing attends to.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from tqdm import tqdm

from steer_eval.capability.tokens import Tokens
from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.token_nll import token_nll
from steer_eval.model import LanguageModel, decoder_blocks, written_chat
from steer_eval.steering.hooks import hooked, residual, with_residual
from steer_eval.steering.interventions import Add
from steer_eval.steering.row_edits import RowEdits

MODEL_TYPE = "steer-eval"
_LOGIT_ROWS = 64
"""Positions whose logits are made at once."""


class SteeredLM(HFLM):  # type: ignore[misc]
    """A model of lm-eval with an intervention.

    lm-eval makes it from `--model_args target=...,layer=...,coef=...`; in Python give `lm` and `intervention` instead.

    Args:
        target: A study's model repo or a vector file, as for `steer-eval generate`.
        layer: Layer to steer; by default a vector file's own.
        coef: Multiple of the vector that is added; 0 for the unsteered model.
        model: Which model of the study, if it has several.
        base: For a vector file: the model to steer.
        study: Study file, or the name of a shipped one, for a repo without `study.yaml`.
        data: Dataset repo of the study.
        lm: A loaded model instead of a target.
        intervention: What `lm` is steered by.
        device: Where to compute.
        batch_size: Rows of one batch. With 1, the default, nothing is padded.
        others: What lm-eval's `hf` takes besides.

    Raises:
        SteerEvalError: The target can't be opened, or has no such vector.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        layer: int | None = None,
        coef: float = 1.0,
        model: str | None = None,
        base: str | None = None,
        study: str | None = None,
        data: str | None = None,
        lm: LanguageModel | None = None,
        intervention: tuple[Add, ...] = (),
        device: str | None = None,
        batch_size: int | str = 1,
        **others: Any,
    ) -> None:
        if (target is None) == (lm is None):
            raise SteerEvalError(
                "the model type steer-eval needs a target", "give --model_args target=REPO,layer=L,coef=C"
            )
        if lm is None:
            from steer_eval.capability.source import one_condition, open_source

            source = open_source(str(target), model=model, base=base, data=data, study_file=study)
            condition = one_condition(source, layer, float(coef))
            lm = source.load(device=device).lm
            intervention = condition.intervention
        super().__init__(
            pretrained=lm.module,
            tokenizer=_own_tokenizer(lm),
            batch_size=batch_size,
            enable_thinking=False,
            **others,
        )
        self.intervention = _checked(lm, intervention)
        self._lm = lm

    def steered(self, intervention: tuple[Add, ...]) -> SteeredLM:
        """The same model under another intervention; the weights are shared.

        Args:
            intervention: What it is steered by; empty for the unsteered model.

        Raises:
            SteerEvalError: The intervention does not fit the model.
        """
        view = copy.copy(self)
        view.intervention = _checked(self._lm, intervention)
        view.set_cache_hook(CacheHook(None))
        return view

    @contextmanager
    def _applied(self) -> Iterator[None]:
        edits = RowEdits.of(self._lm, [self.intervention])

        def hook(layer: int) -> Any:
            def edit(_module: Any, _inputs: Any, output: Any) -> Any:
                hidden = residual(output)
                # All tokens of all rows are steered alike, so they may as well be those of one row.
                steered = edits.edited(layer, hidden.flatten(0, 1)[None], start=0, prompt=0)
                return with_residual(output, steered.view(hidden.shape))

            return edit

        with hooked(decoder_blocks(self.model), {layer: hook(layer) for layer in edits.layers}):
            yield

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model reads it; a template that fails or overflows is an error with a fix."""
        write = partial(super().apply_chat_template, chat_history, add_generation_prompt)
        return written_chat(write, chat_history, self.tokenizer.name_or_path)

    def _model_call(self, *args: Any, **kwargs: Any) -> Any:
        with self._applied():
            return super()._model_call(*args, **kwargs)

    def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad(), self._applied():
            return super()._model_generate(*args, **kwargs)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations; requests made of `Tokens` are scored on exactly these tokens."""
        given = [index for index, request in enumerate(requests) if _is_given(request)]
        others = [index for index, request in enumerate(requests) if not _is_given(request)]
        answers: dict[int, tuple[float, bool]] = {}
        if others:
            found = super().loglikelihood([requests[index] for index in others], disable_tqdm=disable_tqdm)
            answers.update(zip(others, found, strict=True))
        if given:
            found = self._score_tokens([requests[index].args for index in given], disable_tqdm)
            answers.update(zip(given, found, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _score_tokens(self, pairs: Sequence[tuple[Tokens, Tokens]], silent: bool) -> list[tuple[float, bool]]:
        """Score continuations in as few passes as there are requests that no other one begins with."""
        wholes = [(*context.ids, *continuation.ids) for context, continuation in pairs]
        groups: list[list[int]] = []
        # In this order a request follows directly on the longer ones that begin with it.
        for index in sorted(range(len(pairs)), key=lambda index: wholes[index], reverse=True):
            longest = wholes[groups[-1][0]] if groups else ()
            if groups and longest[: len(wholes[index])] == wholes[index]:
                groups[-1].append(index)
            else:
                groups.append([index])
        answers: dict[int, tuple[float, bool]] = {}
        for group in tqdm(groups, desc="Scoring windows of tokens", disable=silent):
            scores, greedy = self._score_window(wholes[group[0]])
            for index in group:
                context, continuation = pairs[index]
                scored = slice(len(context.ids) - 1, len(context.ids) + len(continuation.ids) - 1)
                answers[index] = (float(scores[scored].sum()), bool(greedy[scored].all()))
                self.cache_hook.add_partial("loglikelihood", pairs[index], answers[index])
        return [answers[index] for index in range(len(pairs))]

    def _score_window(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Log-probability of each token but the first, float64, and whether it was the most likely one."""
        if len(ids) - 1 > self.max_length:
            raise SteerEvalError(
                f"a window has {len(ids)} tokens, and the model takes {self.max_length}",
                "take a smaller perplexity window",
            )
        whole = torch.tensor([ids], device=self.device)
        scores = []
        greedy = []
        precision = self.mixed_precision_dtype
        with torch.autocast(self.device.type, dtype=precision, enabled=precision is not None):
            with self._applied():
                hidden = self._lm.final_hidden(whole[:, :-1])
            # The logits of a whole window would take gigabytes.
            parts, targets = torch.split(hidden, _LOGIT_ROWS, dim=1), torch.split(whole[0, 1:], _LOGIT_ROWS)
            for part, wanted in zip(parts, targets, strict=True):
                chunk = self._lm.logits(part)[0]
                greedy.append((chunk.argmax(-1) == wanted).cpu())
                scores.append(-token_nll(chunk.float(), wanted))
        return torch.cat(scores), torch.cat(greedy)


def register() -> None:
    """Make the model type known to lm-eval in this process, under the name `steer-eval`."""
    import lm_eval.models  # noqa: F401 - registers lm-eval's own first
    from lm_eval.api.registry import model_registry

    if MODEL_TYPE not in model_registry:
        model_registry.register(MODEL_TYPE, target=SteeredLM)


def _own_tokenizer(lm: LanguageModel) -> Any:
    """A copy of the model's tokenizer, to which lm-eval adds the special tokens that it can't do without."""
    tokenizer = copy.deepcopy(lm.tokenizer)
    if tokenizer.eos_token_id is None:
        ends = sorted(lm.eos_ids)
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0]) if ends else tokenizer.pad_token
    return tokenizer


def _is_given(request: Any) -> bool:
    return all(isinstance(part, Tokens) for part in request.args)


def _checked(lm: LanguageModel, intervention: tuple[Add, ...]) -> tuple[Add, ...]:
    """An intervention that can be added to this model's residual stream."""
    count = len(lm.blocks)
    for edit in intervention:
        if edit.layer >= count:
            raise SteerEvalError(
                f"there is no layer {edit.layer}: the model has {count} decoder blocks, 0 to {count - 1}",
                "give one of them; layers count from 0",
            )
    for edit in intervention:
        if edit.positions != "all":
            raise SteerEvalError(
                f"the edit at layer {edit.layer} is for {edit.positions} positions only; lm-eval does not say which "
                "tokens are of the prompt",
                "steer all positions",
            )
        if not bool(edit.delta().isfinite().all()):
            raise SteerEvalError(
                f"what would be added at layer {edit.layer} is too large for float32", "take a smaller coefficient"
            )
    return intervention
