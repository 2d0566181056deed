"""Perplexity of many cells at the cost of the blocks above the steered one.

Invariant: each row's log-likelihoods equal those of the serial path (`serial.py`) up to float rounding. All cells of a
window share what the unsteered model does with it (`shared_pass.py`), each up to its lowest edit; all rows of a pass
have one length, so nothing is padded. What the unsteered model made of a window is kept for all cells, of as many
windows at one time as the memory allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray

from steer_eval.evaluation.corpus import TokenisedCorpus, Window
from steer_eval.evaluation.memory import Budget, logit_rows, one_row, out_of_memory, smaller
from steer_eval.evaluation.probe import check_served
from steer_eval.evaluation.shared_pass import SharedPass, entry_layer
from steer_eval.evaluation.token_bytes import residual_bytes
from steer_eval.evaluation.token_nll import token_nll
from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Intervention


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
    check_served(lm)
    budget = Budget.of(lm, memory)
    kernels = budget.kernels(lm, corpus.scored_tokens * len(interventions))
    order = sorted(range(len(interventions)), key=lambda index: entry_layer(interventions[index]))
    layers = {entry_layer(intervention) for intervention in interventions}
    token = (len(layers) + 1) * residual_bytes(lm)
    groups = _groups(corpus.windows, budget.kept_bytes(lm) // token)
    longest = max(map(_length, corpus.windows))
    held = token * max(sum(map(_length, group)) for group in groups)
    rows = rows_per_batch or budget.pass_rows(lm, longest, held=held)
    # Scores of one group are handed out as they come; those of several wait for the last of them.
    cells_at_once = rows if len(groups) == 1 else budget.kept_scores(lm, corpus.scored_tokens)
    below: list[_Scored] = []
    while order:
        cells = order[:cells_at_once]
        scores = []
        for group in groups:
            if len(groups) > 1 or not below:
                below.clear()
                with kernels(), one_row():
                    below += [_Scored(lm, window, layers) for window in group]
            found, rows = _scores(below, [interventions[cell] for cell in cells], rows, kernels)
            scores.append(found)
        order = order[len(cells) :]
        yield from zip(cells, np.concatenate(scores, axis=1), strict=True)


def _length(window: Window) -> int:
    return len(window.context) + len(window.ids)


def _groups(windows: Sequence[Window], most: int) -> list[list[Window]]:
    """Windows in their order, together up to so many tokens; one alone may have more."""
    groups: list[list[Window]] = []
    taken = math.inf
    for window in windows:
        if taken + _length(window) > most:
            groups.append([])
            taken = 0
        groups[-1].append(window)
        taken += _length(window)
    return groups


def _scores(
    below: Sequence[_Scored],
    interventions: Sequence[Intervention],
    rows: int,
    kernels: Callable[[], AbstractContextManager[None]],
) -> tuple[NDArray[np.float64], int]:
    """Score some windows under interventions, in the order of `entry_layer`, so many rows at a time.

    Returns:
        Log-likelihoods `[interventions, scored]`, and how many rows fitted into the memory.
    """
    scores: list[NDArray[np.float64]] = []
    waiting = list(interventions)
    while waiting:
        batch = waiting[:rows]
        try:
            with kernels():
                scores.append(np.concatenate([window.nll(batch) for window in below], axis=1))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            rows = smaller(len(batch), error)
            continue
        waiting = waiting[len(batch) :]
    return np.concatenate(scores), rows


class _Scored:
    """One window, and what the unsteered model makes of it."""

    def __init__(self, lm: LanguageModel, window: Window, layers: set[float]) -> None:
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
        step = logit_rows(self._lm)
        targets = self._targets.expand(len(hidden), -1).flatten()
        chunks = zip(torch.split(hidden.flatten(0, 1), step), torch.split(targets, step), strict=True)
        scores = torch.cat([token_nll(self._lm.logits(chunk[None])[0].float(), wanted) for chunk, wanted in chunks])
        per_row: NDArray[np.float64] = scores.view(len(hidden), -1).numpy()
        return per_row
