"""Contrastive activation addition vectors.

Invariant: the vector of layer L is the mean over contrast pairs of (mean residual over the persona reply's tokens)
minus (mean residual over the reference reply's tokens), both after the same chat prompt, at the output of block L
(Rimsky et al., 2024, arXiv:2312.06681, with the mean over the reply in place of its last token).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.model import LanguageModel
from steer_eval.steering.hooks import captured, residual

TOKENS_PER_BATCH = 4096

_SignedReply = tuple[list[int], list[int], float]
"""Prompt tokens, reply tokens, and the sign with which the reply enters the difference."""


def extract_caa(
    lm: LanguageModel,
    pairs: Sequence[ContrastPair],
    layers: Sequence[int],
    *,
    on_texts: Callable[[int], None] = lambda _done: None,
) -> dict[int, Tensor]:
    """Compute one steering vector per layer, all layers in one pass.

    Texts are batched with others of about their length and padded on the right, where a causal model's earlier tokens
    can't see it; no block above the last wanted layer runs, nor the LM head.

    Args:
        lm: The model.
        pairs: The contrast pairs.
        layers: Indices of decoder blocks, from 0.
        on_texts: Called with the number of texts just processed.

    Returns:
        For each layer a float32 vector `[hidden_size]` on the CPU.

    Raises:
        SteerEvalError: There is no pair, or a reply has no tokens.
    """
    if not pairs:
        raise SteerEvalError("there are no contrast pairs", "a steering vector needs at least one, and better 100")
    texts: list[_SignedReply] = []
    for number, pair in enumerate(pairs, start=1):
        prompt = lm.chat_ids(pair.scenario)
        for reply, sign in ((pair.positive, 1.0), (pair.negative, -1.0)):
            ids = lm.text_ids(reply, special_tokens=False)
            if not ids:
                raise SteerEvalError(f"contrast pair {number} has an empty reply", "both replies need a text")
            texts.append((prompt, ids, sign))
    sums = {layer: torch.zeros(lm.hidden_size, dtype=torch.float64) for layer in layers}
    for batch in _batches(texts):
        means = _completion_means(lm, [(prompt, reply) for prompt, reply, _ in batch], layers)
        signs = torch.tensor([sign for _, _, sign in batch], dtype=torch.float64)
        for layer in layers:
            sums[layer] += signs @ means[layer]
        on_texts(len(batch))
    return {layer: (total / len(pairs)).to(torch.float32) for layer, total in sums.items()}


def _batches(texts: list[_SignedReply]) -> list[list[_SignedReply]]:
    batches: list[list[_SignedReply]] = []
    for text in sorted(texts, key=lambda text: len(text[0]) + len(text[1])):
        length = len(text[0]) + len(text[1])
        if batches and (len(batches[-1]) + 1) * length <= TOKENS_PER_BATCH:
            batches[-1].append(text)
        else:
            batches.append([text])
    return batches


@torch.no_grad()
def _completion_means(
    lm: LanguageModel, texts: Sequence[tuple[list[int], list[int]]], layers: Sequence[int]
) -> dict[int, Tensor]:
    """Mean residual over each text's reply, float64 `[texts, hidden_size]`, by layer."""
    width = max(len(prompt) + len(reply) for prompt, reply in texts)
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    weights = torch.zeros(len(texts), width, dtype=torch.float64)
    for row, (prompt, reply) in enumerate(texts):
        ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        weights[row, len(prompt) : len(prompt) + len(reply)] = 1 / len(reply)
    with captured(lm.blocks, layers, stop=True) as outputs:
        lm.final_hidden(ids)
    return {
        layer: torch.einsum("rt,rth->rh", weights, residual(output).double().cpu()) for layer, output in outputs.items()
    }
