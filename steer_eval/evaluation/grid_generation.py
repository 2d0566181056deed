"""Greedy text of many cells in shared batches.

Invariant: each row's text equals that of the serial path (`serial.py`) in the sense of `Generation.agrees_with`.
Prompts are read in batches of one length, so no architecture ever sees padding; then rows decode together, each with
its own edit, and leave the batch and the cache when they finish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from steer_eval.evaluation.generation import Generation, Request
from steer_eval.evaluation.row_cache import RowCache, can_join, new_cache
from steer_eval.model import LanguageModel
from steer_eval.steering.hooks import RowEdits
from steer_eval.steering.interventions import row_deltas


def generate_grid(
    lm: LanguageModel, requests: Sequence[Request], *, max_new_tokens: int, rows_per_batch: int = 64
) -> Iterator[tuple[int, Generation]]:
    """Generate for many rows, each with its own intervention.

    Args:
        lm: The model.
        requests: The rows.
        max_new_tokens: Longest continuation.
        rows_per_batch: Most rows in one batch.

    Yields:
        Index of the request and its generation, in the order in which rows finish.
    """
    by_length = sorted(range(len(requests)), key=lambda index: len(requests[index].ids))
    groups = [by_length] if can_join(lm) else _of_one_length(requests, by_length)
    for group in groups:
        for start in range(0, len(group), rows_per_batch):
            yield from _generate_batch(lm, requests, group[start : start + rows_per_batch], max_new_tokens)


def _of_one_length(requests: Sequence[Request], by_length: Sequence[int]) -> list[list[int]]:
    return [list(group) for _, group in groupby(by_length, key=lambda index: len(requests[index].ids))]


@torch.no_grad()
def _generate_batch(
    lm: LanguageModel, requests: Sequence[Request], rows: list[int], max_new_tokens: int
) -> Iterator[tuple[int, Generation]]:
    ids: dict[int, list[int]] = {row: [] for row in rows}
    gaps: dict[int, list[float]] = {row: [] for row in rows}
    edits = _edits(lm, requests, rows)
    cache, logits = _read_prompts(lm, requests, rows)
    while True:
        best = logits.float().topk(2, dim=1)
        staying = []
        for position, row in enumerate(rows):
            token = int(best.indices[position, 0])
            gaps[row].append(float(best.values[position, 0] - best.values[position, 1]))
            ended = token in lm.eos_ids
            if not ended:
                ids[row].append(token)
            if ended or len(ids[row]) == max_new_tokens:
                yield row, Generation(tuple(ids[row]), tuple(gaps[row]), "eos" if ended else "length")
            else:
                staying.append(position)
        if not staying:
            return
        if len(staying) < len(rows):
            rows = [rows[position] for position in staying]
            kept = torch.tensor(staying)
            edits.select(kept)
            cache.select(kept)
        with edits.applied(lm.blocks):
            output = lm.module(input_ids=best.indices[staying, :1], logits_to_keep=1, **cache.arguments())
        logits = output.logits[:, -1]


def _edits(lm: LanguageModel, requests: Sequence[Request], rows: Sequence[int]) -> RowEdits:
    return RowEdits(row_deltas([requests[row].intervention for row in rows], hidden_size=lm.hidden_size))


def _read_prompts(lm: LanguageModel, requests: Sequence[Request], rows: Sequence[int]) -> tuple[RowCache, Tensor]:
    """Run the prompts, those of one length together.

    Returns:
        Their cache, and the logits after each prompt, `[rows, vocabulary]`.
    """
    caches, logits = [], []
    for group in _of_one_length(requests, rows):
        cache = new_cache(lm)
        ids = torch.tensor([requests[row].ids for row in group], device=lm.device)
        with _edits(lm, requests, group).applied(lm.blocks):
            output = lm.module(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        caches.append(cache)
        logits.append(output.logits[:, -1])
    return RowCache(caches, [len(requests[row].ids) for row in rows], lm.device), torch.cat(logits)
