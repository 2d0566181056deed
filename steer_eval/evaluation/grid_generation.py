"""Greedy text of many cells in shared batches.

Invariant: each row's text equals that of the serial path (`serial.py`) in the sense of `Generation.agrees_with`. A
batch holds prompts of one length, so no architecture ever sees padding; rows leave it, and the cache, when they finish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from steer_eval.evaluation.generation import Generation, Request
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
    for _, group in groupby(by_length, key=lambda index: len(requests[index].ids)):
        rows = list(group)
        for start in range(0, len(rows), rows_per_batch):
            yield from _generate_batch(lm, requests, rows[start : start + rows_per_batch], max_new_tokens)


@torch.no_grad()
def _generate_batch(
    lm: LanguageModel, requests: Sequence[Request], rows: list[int], max_new_tokens: int
) -> Iterator[tuple[int, Generation]]:
    from transformers import DynamicCache

    edits = RowEdits(row_deltas([requests[row].intervention for row in rows], hidden_size=lm.hidden_size))
    cache: Any = DynamicCache(config=lm.module.config.get_text_config())
    ids: dict[int, list[int]] = {row: [] for row in rows}
    gaps: dict[int, list[float]] = {row: [] for row in rows}
    step = torch.tensor([requests[row].ids for row in rows], device=lm.device)
    while rows:
        with edits.applied(lm.blocks):
            logits: Tensor = lm.module(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[
                :, -1
            ]
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
        if len(staying) < len(rows):
            rows = [rows[position] for position in staying]
            kept = torch.tensor(staying, dtype=torch.long)
            edits.select(kept)
            if rows:
                cache.reorder_cache(kept.to(lm.device))
        step = best.indices[staying, :1]
