"""What an SAE's features do while a model reads replies, with and without an edit.

Invariant: only tokens of the reply count, and no attention sink among them. The residual that is encoded is the one
that the blocks above see: after the edit, where there is one at the SAE's layer. Texts are read in their tokens, never
generated, so two conditions can have the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steer_eval.evaluation.memory import Budget
from steer_eval.formats.sae import TopKSae
from steer_eval.model import LanguageModel
from steer_eval.sae.feature_statistics import Activity
from steer_eval.sae.quality import fired_features
from steer_eval.sae.sinks import is_sink
from steer_eval.steering.hooks import captured, residual
from steer_eval.steering.interventions import Add
from steer_eval.steering.row_edits import RowEdits

ROWS = 8


@dataclass(frozen=True)
class Reply:
    """A reply to a prompt, in tokens.

    Args:
        prompt: Tokens up to the reply.
        ids: Tokens of the reply.
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...]


@torch.no_grad()
def activity(
    lm: LanguageModel,
    sae: TopKSae,
    replies: Sequence[Reply],
    intervention: tuple[Add, ...],
    *,
    threshold: float,
    on_replies: Callable[[int], None] = lambda _count: None,
) -> Activity:
    """Read replies and see which features fire on them.

    Args:
        lm: The model.
        sae: The SAE.
        replies: One per prompt.
        intervention: The edits of all positions under which they are read; empty for none.
        threshold: Norm above which a residual is a sink.
        on_replies: Called with the number of replies just read.
    """
    means = np.zeros((len(replies), sae.d_sae))
    firing = np.zeros((len(replies), sae.d_sae), dtype=np.int64)
    tokens = np.zeros(len(replies), dtype=np.int64)
    by_length = sorted(range(len(replies)), key=lambda index: len(replies[index].prompt) + len(replies[index].ids))
    kernels = Budget.of(lm, None).kernels(lm, sum(len(reply.prompt) + len(reply.ids) for reply in replies))
    for start in range(0, len(by_length), ROWS):
        batch = by_length[start : start + ROWS]
        with kernels():
            residuals = _residuals(lm, sae.layer, [replies[index] for index in batch], intervention)
        for index, x in zip(batch, residuals, strict=True):
            kept = x[~is_sink(x, threshold)]
            fired = fired_features(sae, kept)
            sums = torch.zeros(sae.d_sae, dtype=torch.float64)
            sums.index_add_(0, fired.features.flatten(), fired.values.double().flatten())
            tokens[index] = len(kept)
            means[index] = sums.numpy() / max(1, len(kept))
            firing[index] = np.bincount(fired.features[fired.values > 0].numpy(), minlength=sae.d_sae)
        on_replies(len(batch))
    return Activity(means, firing, tokens)


def _residuals(lm: LanguageModel, layer: int, replies: Sequence[Reply], intervention: tuple[Add, ...]) -> list[Tensor]:
    """Residuals over each reply's tokens, float32 `[tokens, hidden_size]`."""
    texts = [(*reply.prompt, *reply.ids) for reply in replies]
    # Filled up on the right, where a causal model's earlier tokens can't see it.
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    edits = RowEdits.of(lm, [intervention] * len(texts))
    with edits.applied(lm.blocks, prompt=0), captured(lm.blocks, [layer], stop=True) as outputs:
        lm.final_hidden(ids)
    hidden = residual(outputs[layer]).float().cpu()
    return [hidden[row, len(reply.prompt) : len(reply.prompt) + len(reply.ids)] for row, reply in enumerate(replies)]
