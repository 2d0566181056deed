"""What an SAE in training costs next-token prediction, measured often and cheaply.

Invariant: the figure is that of `quality.cross_entropy` on the same text; only what stays the same from one
measurement to the next is kept: the model's own cross-entropy, and the output of the SAE's block. A measurement then
runs the blocks above it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from steer_eval.formats.sae import TopKSae
from steer_eval.model import LanguageModel
from steer_eval.sae.activations import Passage
from steer_eval.sae.quality import reconstructed, text_nll
from steer_eval.sae.sinks import is_sink
from steer_eval.steering.hooks import captured, entered_at, residual, with_residual

PASSAGES, TOKENS = 4, 64
"""How many held-out passages are measured on while training runs, and how much of each: their residuals at one layer
stay in memory."""


@dataclass(frozen=True, eq=False)
class _Known:
    """Passages of one length: token ids `[rows, tokens]`, and the output of the SAE's block."""

    ids: Tensor
    output: Any


class LiveEntropy:
    """Excess cross-entropy on a few fixed passages.

    Args:
        lm: The model.
        passages: The text, of which the first `TOKENS` of each passage count.
        layer: Index of the block whose output the SAE stands for, from 0.
        threshold: Norm above which a residual is a sink, which is left alone.
    """

    def __init__(self, lm: LanguageModel, passages: Sequence[Passage], layer: int, *, threshold: float) -> None:
        self.lm, self.layer, self.threshold = lm, layer, threshold
        self.known: list[_Known] = []
        self.tokens, total = 0, 0.0
        texts = sorted((passage.ids[:TOKENS] for passage in passages if len(passage.ids) > 1), key=len)
        for _, group in groupby(texts, key=len):
            ids = torch.tensor(list(group))
            with captured(lm.blocks, [layer], stop=False) as outputs:
                final = lm.final_hidden(ids)
            self.known.append(_Known(ids, outputs[layer]))
            self.tokens += ids.numel() - len(ids)
            total += text_nll(lm, final, ids)
        self.clean = total / max(1, self.tokens)

    @torch.no_grad()
    def excess(self, sae: TopKSae) -> float | None:
        """Nats per token that prediction loses with the SAE in place; None where no passage has a next token."""
        if not self.tokens:
            return None
        total = 0.0
        for known in self.known:
            hidden = residual(known.output)
            x = hidden.float().flatten(0, 1)
            kept = torch.where(is_sink(x, self.threshold)[:, None], x, reconstructed(sae, x))
            given = with_residual(known.output, kept.view_as(hidden).to(hidden.dtype))
            with entered_at(self.lm.blocks, self.layer, given):
                total += text_nll(self.lm, self.lm.final_hidden(known.ids), known.ids)
        return total / self.tokens - self.clean
