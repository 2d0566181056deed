"""Contrastive activation addition vectors.

Invariant: the vector of layer L is the mean over contrast pairs of (mean residual over the persona reply's tokens)
minus (mean residual over the reference reply's tokens), both after the same chat prompt, at the output of block L
(Rimsky et al., 2024, arXiv:2312.06681, with the mean over the reply in place of its last token). What is only rounding,
beside the residuals that it is a difference of or the differences that it is a mean of, is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.memory import Budget, out_of_memory, smaller
from steer_eval.evaluation.probe import check_served
from steer_eval.evaluation.row_cache import new_cache
from steer_eval.evaluation.token_bytes import key_bytes, residual_bytes
from steer_eval.model import LanguageModel
from steer_eval.rounding import ROUNDING
from steer_eval.steering.hooks import captured, residual

_NOTHING = -1


@dataclass(frozen=True)
class TokenisedPair:
    """A contrast pair in tokens.

    Args:
        prompt: The scenario, up to where the reply begins.
        replies: The persona's and the reference's.
    """

    prompt: tuple[int, ...]
    replies: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def width(self) -> int:
        """Tokens of the longer reply."""
        return max(len(reply) for reply in self.replies)


def extract_caa(
    lm: LanguageModel,
    pairs: Sequence[ContrastPair],
    layers: Sequence[int],
    *,
    memory: int | None = None,
    on_texts: Callable[[int], None] = lambda _done: None,
) -> dict[int, Tensor]:
    """Compute one steering vector per layer from contrast pairs: the means of `pair_differences`.

    Args:
        lm: The model.
        pairs: The contrast pairs.
        layers: Indices of decoder blocks, from 0.
        memory: Bytes that batches may take; None for half of what is free.
        on_texts: Called with the number of texts just processed.

    Returns:
        For each layer a float32 vector `[hidden_size]` on the CPU.

    Raises:
        SteerEvalError: There is no pair, a reply has no tokens, or one pair does not fit into the memory.
    """
    return steering_vectors(pair_differences(lm, pairs, layers, memory=memory, on_texts=on_texts))


def steering_vectors(differences: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The vectors that rest on what pairs make of layers.

    Args:
        differences: For each layer `[pairs, hidden_size]`.

    Returns:
        For each layer a float32 vector `[hidden_size]`; zero where the pairs cancel each other.
    """
    return {
        layer: _known(each.mean(dim=0), each.norm(dim=-1).mean()).to(torch.float32)
        for layer, each in differences.items()
    }


def pair_differences(
    lm: LanguageModel,
    pairs: Sequence[ContrastPair],
    layers: Sequence[int],
    *,
    memory: int | None = None,
    on_texts: Callable[[int], None] = lambda _done: None,
) -> dict[int, Tensor]:
    """What each contrast pair adds to the steering vectors; see `token_differences`.

    Args:
        lm: The model.
        pairs: The contrast pairs.
        layers: Indices of decoder blocks, from 0.
        memory: Bytes that batches may take; None for half of what is free.
        on_texts: Called with the number of texts just processed.

    Raises:
        SteerEvalError: There is no pair, a reply has no tokens, or one pair does not fit into the memory.
    """
    if not pairs:
        raise SteerEvalError("there are no contrast pairs", "a steering vector needs at least one, and better 100")
    tokens = [_tokens(lm, number, pair) for number, pair in enumerate(pairs, start=1)]
    return token_differences(lm, tokens, layers, memory=memory, on_texts=on_texts)


def token_differences(
    lm: LanguageModel,
    pairs: Sequence[TokenisedPair],
    layers: Sequence[int],
    *,
    memory: int | None = None,
    on_texts: Callable[[int], None] = lambda _done: None,
) -> dict[int, Tensor]:
    """The mean residual over each pair's persona reply minus that over its reference reply, all layers in one pass.

    The prompt of a pair is read once for both replies. Prompts of one length share a batch, so that nothing stands
    between a prompt and its replies; replies are padded on the right, where a causal model's earlier tokens can't see
    it. No block above the last wanted layer runs, nor the LM head.

    Args:
        lm: The model.
        pairs: The contrast pairs, at least one, without empty replies.
        layers: Indices of decoder blocks, from 0.
        memory: Bytes that batches may take; None for half of what is free.
        on_texts: Called with the number of texts just processed.

    Returns:
        For each layer float64 `[pairs, hidden_size]` on the CPU, in the order of the pairs.

    Raises:
        SteerEvalError: One pair does not fit into the memory.
    """
    check_served(lm)
    waiting = sorted(range(len(pairs)), key=lambda number: (len(pairs[number].prompt), pairs[number].width))
    budget = Budget.of(lm, memory)
    work = sum(len(pair.prompt) + sum(map(len, pair.replies)) for pair in pairs)
    kernels = budget.kernels(lm, work)
    found = {layer: torch.zeros(len(pairs), lm.hidden_size, dtype=torch.float64) for layer in layers}
    most = len(waiting)
    while waiting:
        batch = _batch(lm, budget, [pairs[number] for number in waiting[:most]], len(layers))
        try:
            with kernels():
                differences = _differences(lm, batch, layers)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            most = smaller(len(batch), error)
            continue
        done, waiting = waiting[: len(batch)], waiting[len(batch) :]
        for layer in layers:
            found[layer][done] = differences[layer]
        on_texts(2 * len(batch))
    return found


def _tokens(lm: LanguageModel, number: int, pair: ContrastPair) -> TokenisedPair:
    positive, negative = (tuple(lm.text_ids(reply, special_tokens=False)) for reply in (pair.positive, pair.negative))
    if not positive or not negative:
        raise SteerEvalError(f"contrast pair {number} has an empty reply", "both replies need a text")
    return TokenisedPair(tuple(lm.chat_ids(pair.scenario)), (positive, negative))


def _batch(lm: LanguageModel, budget: Budget, waiting: Sequence[TokenisedPair], layers: int) -> list[TokenisedPair]:
    """The first pairs that have prompts of one length and fit into a pass, at least one."""
    prompt, widest = len(waiting[0].prompt), waiting[0].width
    batch = [waiting[0]]
    most = _rows(lm, budget, prompt, widest, layers)
    for pair in waiting[1:]:
        if len(pair.prompt) != prompt:
            break
        if pair.width > widest:
            widest = pair.width
            most = _rows(lm, budget, prompt, widest, layers)
        if len(batch) >= most:
            break
        batch.append(pair)
    return batch


def _rows(lm: LanguageModel, budget: Budget, prompt: int, width: int, layers: int) -> int:
    """How many pairs fit into a pass, by the tokens of their prompts and of their longest reply.

    Of each pair stand there: the keys and values of the prompt, of both rows that continue it, and of their replies;
    what each layer returned for these; and one layer's as float64, before and after they are weighted.
    """
    keys = (3 * prompt + 2 * width) * key_bytes(lm)
    outputs = 2 * width * (layers * residual_bytes(lm) + 2 * 8 * lm.hidden_size)
    return budget.pass_rows(lm, prompt + 2 * width, kept=keys + outputs)


@torch.no_grad()
def _differences(lm: LanguageModel, pairs: Sequence[TokenisedPair], layers: Sequence[int]) -> dict[int, Tensor]:
    """Mean residual over the persona's reply minus that over the reference's, by layer.

    Args:
        lm: The model.
        pairs: Pairs with prompts of one length.
        layers: Which layers.

    Returns:
        Float64 `[pairs, hidden_size]` each, on the CPU.
    """
    cache = new_cache(lm)
    prompts = torch.tensor([pair.prompt for pair in pairs])
    with captured(lm.blocks, [max(layers, default=_NOTHING)], stop=True):
        lm.final_hidden(prompts, cache=cache)
    cache.reorder_cache(torch.arange(len(pairs), device=lm.device).repeat_interleave(2))
    width = max(pair.width for pair in pairs)
    ids = torch.zeros(2 * len(pairs), width, dtype=torch.long)
    weights = torch.zeros(2 * len(pairs), width, dtype=torch.float64)
    for number, pair in enumerate(pairs):
        for row, reply, sign in zip((2 * number, 2 * number + 1), pair.replies, (1.0, -1.0), strict=True):
            ids[row, : len(reply)] = torch.tensor(reply)
            weights[row, : len(reply)] = sign / len(reply)
    with captured(lm.blocks, layers, stop=True) as outputs:
        lm.final_hidden(ids, cache=cache)
    by_pair = weights.view(len(pairs), 2, width)
    found = {}
    for layer, output in outputs.items():
        hidden = residual(output).cpu().double().view(len(pairs), 2, width, -1)
        means = torch.einsum("prt,prth->prh", by_pair, hidden)
        found[layer] = _known(means.sum(dim=1), means.norm(dim=-1).sum(dim=1))
    return found


def _known(vectors: Tensor, size: Tensor) -> Tensor:
    """Vectors `[..., hidden_size]`, zero where they are only rounding beside the size `[...]` of what made them."""
    return torch.where((vectors.norm(dim=-1) > ROUNDING * size)[..., None], vectors, 0.0)
