"""Perplexity of many cells at the cost of the blocks above the steered one.

Invariant: each row's log-likelihoods equal those of the serial path (`serial.py`) up to float rounding. All cells of a
window share what the unsteered model does with it (`shared_pass.py`), each up to its lowest edit; all rows of a pass
have one length, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steer_eval.evaluation.corpus import TokenisedCorpus, Window
from steer_eval.evaluation.memory import LOGIT_BYTES, LOGIT_ROWS, Budget, one_row, out_of_memory, smaller
from steer_eval.evaluation.shared_pass import SharedPass, entry_layer
from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Intervention

_STRETCH = 128
"""Terms that are summed in float32."""


def perplexity_grid(
    lm: LanguageModel,
    corpus: TokenisedCorpus,
    interventions: Sequence[Intervention],
    *,
    rows_per_batch: int | None = None,
    memory: int | None = None,
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Score a corpus under many interventions.

    Args:
        lm: The model.
        corpus: The corpus in its tokens.
        interventions: One per cell; the empty one is the unsteered model.
        rows_per_batch: Most cells in one batch; None for what fits into the memory.
        memory: Bytes that batches may take; None for half of what is free.

    Yields:
        Index of the cell and the negative log-likelihood in nats of every scored token, float64 `[scored_tokens]`; in
        the order in which cells finish.

    Raises:
        SteerEvalError: One row alone does not fit into the memory.
    """
    if not interventions:
        return
    budget = Budget.of(lm, memory)
    longest = max(len(window.context) + len(window.ids) for window in corpus.windows)
    rows = rows_per_batch or budget.pass_rows(lm, longest)
    kernels = budget.kernels(lm, corpus.scored_tokens * len(interventions))
    order = sorted(range(len(interventions)), key=lambda index: entry_layer(interventions[index]))
    layers = {entry_layer(intervention) for intervention in interventions}
    with kernels(), one_row():
        below = [_Scored(lm, window, layers) for window in corpus.windows]
    while order:
        cells = order[:rows]
        try:
            with kernels():
                scores = [window.nll([interventions[cell] for cell in cells]) for window in below]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            rows = smaller(len(cells), error)
            continue
        order = order[len(cells) :]
        yield from zip(cells, np.concatenate(scores, axis=1), strict=True)


class _Scored:
    """One window, and what the unsteered model makes of it."""

    def __init__(self, lm: LanguageModel, window: Window, layers: set[int]) -> None:
        self._lm = lm
        self._context = len(window.context)
        ids = [*window.context, *window.ids]
        self._targets = torch.tensor(ids[self._context + 1 :], device=lm.device)
        self._pass = SharedPass(lm, ids, layers, prompt=self._context, cached=False)

    def nll(self, interventions: Sequence[Intervention]) -> NDArray[np.float64]:
        """Negative log-likelihoods of the scored tokens, float64 `[rows, scored]`.

        Args:
            interventions: One per row, in the order of `entry_layer`.
        """
        # The last position predicts what is not there.
        hidden = self._pass.rows(interventions).hidden[:, self._context : -1]
        step = max(1, min(LOGIT_ROWS, LOGIT_BYTES // (4 * self._lm.vocabulary)))
        targets = self._targets.expand(len(hidden), -1).flatten()
        chunks = zip(torch.split(hidden.flatten(0, 1), step), torch.split(targets, step), strict=True)
        scores = torch.cat([_nll(self._lm.logits(chunk[None])[0].float(), wanted) for chunk, wanted in chunks])
        per_row: NDArray[np.float64] = scores.view(len(hidden), -1).cpu().numpy()
        return per_row


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of targets `[tokens]` under logits `[tokens, vocabulary]`, which are overwritten.

    In float32 the sum over tens of thousands of small terms has a bias of about 1e-5, which perplexity keeps. So
    stretches are summed in float32 and their sums in float64; converting them all takes longer than their exponentials.
    """
    picked = logits.gather(1, targets[:, None])[:, 0].double()
    largest = logits.amax(dim=1, keepdim=True)
    terms = logits.sub_(largest).exp_()
    whole = terms.shape[1] // _STRETCH * _STRETCH
    stretches = terms[:, :whole].view(len(terms), whole // _STRETCH, _STRETCH)
    total = stretches.sum(dim=2).sum(dim=1, dtype=torch.float64) + terms[:, whole:].sum(dim=1, dtype=torch.float64)
    return total.log() + largest[:, 0].double() - picked
