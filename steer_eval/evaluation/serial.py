"""The plain path: one cell, one prompt, one forward hook, `model.generate`.

Invariant: nothing is shared, batched or skipped here. It is the oracle that the grid is held to, and it decides what
counts as the same text. It is what a study's own script does, but for one thing: `generate` also obeys the checkpoint's
generation configuration (a penalty on repetition, suppressed tokens), and here that is hidden, as text under steering
is to show the model and not what was put on top of it. Only its end-of-sequence tokens count. A run's metadata name
what was left out (`LanguageModel.habits`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steer_eval.evaluation.corpus import TokenisedCorpus
from steer_eval.evaluation.generation import Generation, Request, check_request
from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Intervention, check_prompt
from steer_eval.steering.row_edits import RowEdits


@torch.no_grad()
def perplexity_serial(lm: LanguageModel, corpus: TokenisedCorpus, intervention: Intervention) -> NDArray[np.float64]:
    """Negative log-likelihood in nats of every scored token of a corpus, float64 `[scored_tokens]`.

    The context of a window is its prompt; the tokens after it count as generated.
    """
    edits = RowEdits.of(lm, [intervention])
    scores = []
    for window in corpus.windows:
        check_prompt(intervention, len(window.context))
        ids = torch.tensor([[*window.context, *window.ids]], device=lm.device)
        with edits.applied(lm.blocks, prompt=len(window.context)):
            # Not all devices have float64.
            logits = lm.module(input_ids=ids, use_cache=False).logits.cpu().double()
        first = len(window.context)
        nll = torch.nn.functional.cross_entropy(logits[0, first:-1], ids[0, first + 1 :].cpu(), reduction="none")
        scores.append(nll.numpy())
    return np.concatenate(scores)


@torch.no_grad()
def generate_serial(lm: LanguageModel, request: Request, *, max_new_tokens: int) -> Generation:
    """One greedy continuation of one prompt.

    Raises:
        SteerEvalError: The prompt has no tokens, or none are asked for.
        ValueError: A patch reaches beyond the prompt, or an edit is made for another width.
    """
    from transformers import GenerationConfig

    check_request(request, max_new_tokens)
    eos = sorted(lm.eos_ids)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=eos or None,
        pad_token_id=eos[0] if eos else 0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = torch.tensor([request.ids], device=lm.device)
    edits = RowEdits.of(lm, [request.intervention])
    with edits.applied(lm.blocks, prompt=len(request.ids)), _no_habits(lm.module):
        output = lm.module.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    tokens = [int(token) for token in output.sequences[0, ids.shape[1] :]]
    best = torch.stack([logits[0].float().topk(2).values for logits in output.logits])
    gaps = tuple(float(first - second) for first, second in best)
    ended = bool(tokens) and tokens[-1] in lm.eos_ids
    return Generation(tuple(tokens[:-1] if ended else tokens), gaps, "eos" if ended else "length")


@contextmanager
def _no_habits(module: Any) -> Iterator[None]:
    """Hide the model's own generation configuration, whose penalties and limits `generate` adds to what it is given."""
    from transformers import GenerationConfig

    own = module.generation_config
    module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        module.generation_config = own
