"""Greedy text of many cells in shared batches.

Invariant: each row's text equals that of the serial path (`serial.py`) in the sense of `Generation.agrees_with`,
whoever shares its batch. All cells of a prompt read it together (`shared_pass.py`), so that nothing is padded; then
rows decode together, each with its own edits. A row that finishes leaves the batch and the cache, and a waiting one
takes its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby

import torch
from torch import Tensor

from steer_eval.evaluation.decode_attention import decode_attention
from steer_eval.evaluation.generation import Generation, Request, check_request
from steer_eval.evaluation.memory import LOGIT_BYTES, LOGIT_ROWS, Budget, Decoding, one_row, out_of_memory, smaller
from steer_eval.evaluation.probe import check_served
from steer_eval.evaluation.row_cache import RowCache, can_join
from steer_eval.evaluation.shared_pass import SharedPass, entry_layer
from steer_eval.model import LanguageModel
from steer_eval.steering.row_edits import RowEdits

_REFILL_SHARE = 4
"""Waiting rows come in once a quarter of the places is free: reading a prompt for one row at a time shares nothing."""


def generate_grid(
    lm: LanguageModel,
    requests: Sequence[Request],
    *,
    max_new_tokens: int,
    rows_per_batch: int | None = None,
    memory: int | None = None,
) -> Iterator[tuple[int, Generation]]:
    """Generate for many rows, each with its own intervention.

    Args:
        lm: The model.
        requests: The rows.
        max_new_tokens: Longest continuation.
        rows_per_batch: Most rows in one batch; None for what fits into the memory.
        memory: Bytes that batches may take; None for half of what is free.

    Yields:
        Index of the request and its generation, in the order in which rows finish.

    Raises:
        SteerEvalError: A prompt has no tokens, none are asked for, or one row alone does not fit into the memory.
    """
    for request in requests:
        check_request(request, max_new_tokens)
    if not requests:
        return
    check_served(lm)
    budget = Budget.of(lm, memory)
    longest = max(len(request.ids) for request in requests) + max_new_tokens
    waiting = _queue(requests, range(len(requests)))
    fitting = Decoding(rows_per_batch) if rows_per_batch else _fitting(lm, budget, requests[waiting[-1]], longest)
    rows = fitting.rows
    work = sum(len(request.ids) for request in requests) + max_new_tokens * len(requests)
    kernels = budget.kernels(lm, work)
    while waiting:
        size = min(rows, len(waiting))
        batch = _Batch(lm, requests, max_new_tokens, fitting, kernels, rows=size, tokens=longest)
        try:
            yield from batch.run(waiting)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            rows = smaller(size, error)
            # Its rows stand in the order of the cache, in which those that finish are replaced by the last ones.
            waiting = _queue(requests, [*batch.unfinished, *waiting])


def _queue(requests: Sequence[Request], rows: Iterable[int]) -> deque[int]:
    """Rows in the order in which they are to be read."""
    return deque(sorted(rows, key=lambda index: _reading_order(requests[index])))


def _reading_order(request: Request) -> tuple[int, tuple[int, ...], float]:
    """Rows of one length stand together, among them those of one prompt, and these in the order in which they join."""
    return len(request.ids), request.ids, entry_layer(request.intervention)


@torch.no_grad()
def _fitting(lm: LanguageModel, budget: Budget, request: Request, longest: int) -> Decoding:
    with one_row():
        probe = SharedPass(lm, request.ids, set(), prompt=len(request.ids), cached=True)
    return budget.decoding(lm, probe.unsteered.cache, read=len(request.ids), tokens=longest)


class _Batch:
    """Rows that decode together.

    Args:
        lm: The model.
        requests: All requests.
        max_new_tokens: Longest continuation.
        fitting: How much its passes may read at one time.
        kernels: What it computes under.
        rows: Most rows at one time.
        tokens: Most tokens that a row will have.
    """

    def __init__(
        self,
        lm: LanguageModel,
        requests: Sequence[Request],
        max_new_tokens: int,
        fitting: Decoding,
        kernels: Callable[[], AbstractContextManager[None]],
        *,
        rows: int,
        tokens: int,
    ) -> None:
        self._rows = rows
        self.unfinished: list[int] = []
        """Requests that were taken and have not been answered, in the order of the cache's rows."""
        self._lm = lm
        self._requests = requests
        self._limit = max_new_tokens
        self._fitting = fitting
        self._kernels = kernels
        self._joins = can_join(lm, longest=tokens)
        self._cache = RowCache(lm, rows=rows, tokens=tokens)
        self._edits = RowEdits.of(lm, [])
        self._ids: dict[int, list[int]] = {}
        self._gaps: dict[int, list[float]] = {}

    def run(self, waiting: deque[int]) -> Iterator[tuple[int, Generation]]:
        """Answer requests, and take those that wait as places become free; rows that can't join are left waiting."""
        eos_ids = self._lm.eos_ids
        while True:
            with torch.no_grad(), self._kernels():
                hidden = [self._decode()] if self.unfinished else []
                groups = self._admitted(waiting)
                if groups:
                    hidden += [self._read(group) for group in groups]
                    self._edits = self._edits_of(self.unfinished)
                if not hidden:
                    return
                values, tokens = self._two_best(torch.cat(hidden))
            staying = []
            finished = []
            gaps, best = (values[:, 0] - values[:, 1]).tolist(), tokens.tolist()
            for place, row in enumerate(self.unfinished):
                self._gaps[row].append(gaps[place])
                ended = best[place] in eos_ids
                if not ended:
                    self._ids[row].append(best[place])
                if ended or len(self._ids[row]) == self._limit:
                    finished.append((row, ended))
                else:
                    staying.append(place)
            if finished:
                self._keep(staying)
            for row, ended in finished:
                yield row, Generation(tuple(self._ids[row]), tuple(self._gaps[row]), "eos" if ended else "length")

    def _edits_of(self, rows: Sequence[int]) -> RowEdits:
        return RowEdits.of(self._lm, [self._requests[row].intervention for row in rows])

    def _keep(self, staying: Sequence[int]) -> None:
        order = self._cache.keep(staying)
        self._edits.select(order)
        # Last, so that no row is taken for answered if one of these runs out of memory.
        self.unfinished = [self.unfinished[place] for place in order]

    def _decode(self) -> Tensor:
        """Feed each row its last token; what the LM head sees, `[rows, hidden_size]`."""
        tokens = torch.tensor([[self._ids[row][-1]] for row in self.unfinished])
        with self._edits.applied(self._lm.blocks, prompt=0), decode_attention(self._lm.module):
            return self._lm.final_hidden(tokens, **self._cache.arguments())[:, -1]

    def _read(self, group: Sequence[int]) -> Tensor:
        """Read a prompt for rows that come in; what the LM head sees after it, `[rows, hidden_size]`."""
        ids = self._requests[group[0]].ids
        interventions = [self._requests[row].intervention for row in group]
        layers = {entry_layer(intervention) for intervention in interventions}
        below = SharedPass(self._lm, ids, layers, prompt=len(ids), cached=True)
        rows = below.rows(interventions)
        self._cache.append(rows.cache, rows=len(group), tokens=len(ids))
        for row in group:
            self._ids[row], self._gaps[row] = [], []
        # A copy, so that what the other tokens gave is gone when the next prompt is read.
        return rows.hidden[:, -1].clone()

    def _two_best(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The two largest logits of each row, `[rows, 2]`, and the token of the largest, `[rows]`."""
        step = max(1, min(LOGIT_ROWS, LOGIT_BYTES // (4 * self._lm.vocabulary)))
        best = [_best(self._lm.logits(chunk[None])[0].float()) for chunk in torch.split(hidden, step)]
        return torch.cat([values for values, _ in best]), torch.cat([tokens for _, tokens in best])

    def _admitted(self, waiting: deque[int]) -> list[list[int]]:
        """Take rows that wait, those of one prompt together, as many as one pass may read."""
        free = self._rows - len(self._cache)
        if len(self._cache) and (not self._joins or free < max(1, self._rows // _REFILL_SHARE)):
            return []
        taken: list[int] = []
        while waiting and len(taken) < free and (self._joins or not taken or self._of_one_length(taken[0], waiting[0])):
            taken.append(waiting.popleft())
        self.unfinished += taken
        groups = []
        for _, same in groupby(taken, key=lambda index: self._requests[index].ids):
            prompt = list(same)
            most = self._fitting.rows_of(len(self._requests[prompt[0]].ids))
            groups += [prompt[start : start + most] for start in range(0, len(prompt), most)]
        return groups

    def _of_one_length(self, first: int, second: int) -> bool:
        return len(self._requests[first].ids) == len(self._requests[second].ids)


def _best(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The two largest of each row's logits, `[rows, 2]`, and the token that greedy decoding takes, `[rows]`."""
    values, indices = logits.topk(2)
    tokens = indices[:, 0]
    # `topk` says nothing of the order of equal ones, which are frequent in bfloat16.
    tied = values[:, 0] == values[:, 1]
    if tied.any():
        tokens[tied] = logits[tied].argmax(dim=-1)
    return values, tokens
