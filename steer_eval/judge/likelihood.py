"""How likely replies are under a model.

Invariant: a reply's mean negative log-likelihood is per token of the reply, after the chat prompt that it answers, in
nats; padding stands on the right, where a causal model's earlier tokens can't see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from steer_eval.model import LanguageModel

TOKENS_PER_BATCH = 2048


@torch.no_grad()
def reply_nll(lm: LanguageModel, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, float]]:
    """Mean negative log-likelihood of replies.

    Args:
        lm: The model.
        pairs: `(what the user said, the reply)`.

    Yields:
        Index of a pair and its value, in no particular order; an empty reply has none and is left out.
    """
    rows = []
    for index, (prompt, reply) in enumerate(pairs):
        ids = lm.text_ids(reply, special_tokens=False)
        if ids:
            rows.append((index, lm.chat_ids(prompt), ids))
    rows.sort(key=lambda row: len(row[1]) + len(row[2]))
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and (end + 1 - start) * (len(rows[end][1]) + len(rows[end][2])) <= TOKENS_PER_BATCH:
            end += 1
        yield from _batch(lm, rows[start:end])
        start = end


def _batch(lm: LanguageModel, rows: Sequence[tuple[int, list[int], list[int]]]) -> Iterator[tuple[int, float]]:
    width = max(len(prompt) + len(reply) for _, prompt, reply in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    for row, (_, prompt, reply) in enumerate(rows):
        ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
    hidden = lm.final_hidden(ids)
    for row, (index, prompt, reply) in enumerate(rows):
        # One row at a time: logits of a whole batch over a large vocabulary would not fit.
        places = slice(len(prompt) - 1, len(prompt) + len(reply) - 1)
        logits = lm.logits(hidden[row : row + 1, places])[0].float()
        target = torch.tensor(reply, device=logits.device)
        yield index, float(torch.nn.functional.cross_entropy(logits, target))
