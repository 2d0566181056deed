"""Perplexity of many cells at the cost of the blocks above the steered one.

Invariant: each row's log-likelihoods equal those of the serial path (`serial.py`) up to float rounding. Below the
steered block all cells of a window are the same computation, which is done once; from there on the cells are rows of
one batch. All rows of a batch have one length, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steer_eval.evaluation.corpus import TokenisedCorpus, Window
from steer_eval.model import LanguageModel
from steer_eval.steering.hooks import RowEdits, captured, entered_at, residual, with_residual
from steer_eval.steering.interventions import Intervention, row_deltas

LOGIT_BYTES = 64 * 2**20
"""Most memory that one chunk of logits may take; a vocabulary of 248k at all positions would not fit otherwise."""


def perplexity_grid(
    lm: LanguageModel,
    corpus: TokenisedCorpus,
    interventions: Sequence[Intervention],
    *,
    rows_per_batch: int = 8,
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Score a corpus under many interventions.

    Args:
        lm: The model.
        corpus: The corpus in its tokens.
        interventions: One per cell; the empty one is the unsteered model.
        rows_per_batch: Most cells in one batch.

    Yields:
        Index of the cell and the negative log-likelihood in nats of every scored token, float64 `[scored_tokens]`; in
        the order in which cells finish.
    """
    unsteered = [index for index, intervention in enumerate(interventions) if not intervention]
    steered = [(index, intervention) for index, intervention in enumerate(interventions) if intervention]
    layers = {_entry(row) for row in steered}
    below = [_WindowBelow(lm, window, layers) for window in corpus.windows]
    if unsteered:
        nll = np.concatenate([window.unsteered_nll() for window in below])
        yield from ((index, nll.copy()) for index in unsteered)
    for layer, group in groupby(sorted(steered, key=_entry), key=_entry):
        cells = list(group)
        for start in range(0, len(cells), rows_per_batch):
            rows = cells[start : start + rows_per_batch]
            scores = [window.steered_nll(layer, [intervention for _, intervention in rows]) for window in below]
            per_row = np.concatenate(scores, axis=1)
            yield from ((index, per_row[row]) for row, (index, _) in enumerate(rows))


def _entry(row: tuple[int, Intervention]) -> int:
    return min(edit.layer for edit in row[1])


class _WindowBelow:
    """One window and what the unsteered model makes of it at the layers where cells enter."""

    def __init__(self, lm: LanguageModel, window: Window, layers: set[int]) -> None:
        self.lm = lm
        self.context = len(window.context)
        self.ids = torch.tensor([[*window.context, *window.ids]], device=lm.device)
        with captured(lm.blocks, layers, stop=False) as outputs:
            self.final = lm.final_hidden(self.ids)
        self.outputs: dict[int, Any] = outputs

    def unsteered_nll(self) -> NDArray[np.float64]:
        unsteered: NDArray[np.float64] = self._nll(self.final)[0]
        return unsteered

    def steered_nll(self, layer: int, interventions: Sequence[Intervention]) -> NDArray[np.float64]:
        """Negative log-likelihoods `[rows, scored]` for interventions that all enter at `layer`."""
        deltas = row_deltas(interventions, hidden_size=self.lm.hidden_size)
        below = residual(self.outputs[layer])
        hidden = below + deltas.pop(layer).to(below.device, below.dtype)[:, None, :]
        blocks = self.lm.blocks
        with entered_at(blocks, layer, with_residual(self.outputs[layer], hidden)), RowEdits(deltas).applied(blocks):
            final = self.lm.final_hidden(self.ids.expand(len(interventions), -1))
        return self._nll(final)

    def _nll(self, final: Tensor) -> NDArray[np.float64]:
        """Negative log-likelihood of the window's scored tokens, float64 `[rows, scored]`."""
        first = self.context
        targets = self.ids[0, first + 1 :]
        vocabulary = self.lm.module.config.get_text_config().vocab_size
        step = max(1, LOGIT_BYTES // (4 * vocabulary * final.shape[0]))
        chunks = []
        for start in range(0, len(targets), step):
            chunk = targets[start : start + step]
            logits = self.lm.logits(final[:, first + start : first + start + len(chunk)]).float()
            picked = logits.gather(2, chunk.expand(final.shape[0], -1)[:, :, None])[:, :, 0]
            chunks.append(_log_sum_exp(logits) - picked.double())
        scores: NDArray[np.float64] = torch.cat(chunks, dim=1).cpu().numpy()
        return scores


def _log_sum_exp(logits: Tensor) -> Tensor:
    """Log-sum-exp over the vocabulary, accumulated in float64.

    In float32 the sum over tens of thousands of small terms has a bias of about 1e-5, which perplexity keeps.
    """
    largest = logits.amax(dim=2, keepdim=True)
    return (logits - largest).exp().sum(dim=2, dtype=torch.float64).log() + largest[:, :, 0].double()
