"""How many rows fit.

Invariant: the size of a batch follows from a budget in bytes and from what a row was measured or computed to take; the
results do not depend on it. Counted is all that stands beside the model's weights at one time: what passes compute,
what is kept between them, caches and those that are copied into them. One row is always tried, also where the budget is
less than it takes; then that is said. A batch that does not fit after all is made smaller and tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.free_memory import free_bytes
from steer_eval.evaluation.packed import PACKED_FROM, PackedLinears, packing_bytes
from steer_eval.evaluation.row_cache import state_bytes
from steer_eval.evaluation.token_bytes import activation_bytes, residual_bytes
from steer_eval.model import LanguageModel
from steer_eval.progress import note

LOGIT_BYTES = 64 * 2**20
"""Most memory that one chunk of logits may take; a vocabulary of 248k at all positions would not fit otherwise."""

LOGIT_ROWS = 128
"""Most rows whose logits are made at once, however small the vocabulary; more would only get and give back memory."""

PASS_TOKENS = 4096
"""Most tokens in one pass. More are not faster: the products are at their best from some hundred rows on, and tensors
that outgrow the processor's caches and the allocator's pools are slower."""

MOST_ROWS = 512
"""Most rows that decode together, for the same reason."""

_SHARE = 0.5
"""Share of the free memory that is taken if nobody says how much may be."""

_PACKING_SHARE = 0.5
"""Share of the budget that a packed copy of the weights may take."""

_READING_SHARE = 0.25
"""Share of what remains that reading prompts may take beside the rows that decode."""

_KEPT_SHARE = 0.5
"""Share of what remains that may be kept from one pass to the next."""

_SCORES_SHARE = 0.125
"""Share of what remains that the scores of a corpus may take until the last of them is there."""


@dataclass(frozen=True)
class Decoding:
    """How much is decoded, and read for that, at one time.

    Args:
        rows: Rows that decode together, at least one.
        pass_tokens: Tokens of all rows of one pass that reads a prompt.
    """

    rows: int
    pass_tokens: int = PASS_TOKENS

    def rows_of(self, prompt: int) -> int:
        """How many rows read a prompt of some tokens together, at least one."""
        return max(1, self.pass_tokens // prompt)


@dataclass(frozen=True)
class Budget:
    """Memory for the batches of one model, beside its weights.

    Args:
        limit: Bytes.
    """

    limit: int

    @classmethod
    def of(cls, lm: LanguageModel, memory: int | None) -> Budget:
        """The bytes asked for, or half of what is free where the model computes.

        Raises:
            SteerEvalError: They are not even one.
        """
        if memory is not None and memory <= 0:
            raise SteerEvalError(f"a memory budget of {memory} bytes", "give a positive number")
        return cls(memory if memory is not None else max(1, int(_SHARE * free_bytes(lm.device))))

    def packs(self, lm: LanguageModel) -> bool:
        """Whether there is room for a packed copy of the weights."""
        return 0 < packing_bytes(lm.module) <= _PACKING_SHARE * self.limit

    def kernels(self, lm: LanguageModel, tokens: int) -> Callable[[], AbstractContextManager[None]]:
        """What to compute so many tokens under: packed weights, where that pays and there is room for them."""
        if tokens < PACKED_FROM or not self.packs(lm):
            return nullcontext
        try:
            return PackedLinears(lm.module).applied
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            # The room was counted before somebody else took it; plain layers need none.
            return nullcontext

    def room(self, lm: LanguageModel) -> int:
        """Bytes that remain beside the packed weights and one chunk of logits; less than none in a small budget."""
        packed = packing_bytes(lm.module) if self.packs(lm) else 0
        # As the model computes them, converted to float32, and once more while they are scaled or capped.
        logits = logit_rows(lm) * lm.vocabulary * (4 + 2 * int(lm.module.dtype.itemsize))
        return self.limit - packed - logits

    def decoding(self, lm: LanguageModel, cache: Any, *, read: int, tokens: int) -> Decoding:
        """How many rows can decode together, and how much of their prompts can be read at one time.

        Args:
            lm: The model.
            cache: The cache of one row, which was read: that of the longest prompt.
            read: Its tokens.
            tokens: Most tokens that a row will have.
        """
        growing, fixed = state_bytes(cache)
        # Recurrent states are copied when rows join or leave.
        row = growing * tokens // read + 2 * fixed + activation_bytes(lm, tokens)
        # Beside the buffers stand the cache of the pass, and the one that is completed with the unsteered states.
        reading = read * activation_bytes(lm, read) + 2 * (growing + fixed)
        unsteered = growing + fixed + read * residual_bytes(lm) * (len(lm.blocks) + 1)
        room = self.room(lm) - unsteered
        pass_tokens = max(read, min(int(_READING_SHARE * room) * read // reading, PASS_TOKENS))
        rows = min(MOST_ROWS, (room - pass_tokens * reading // read) // row)
        return Decoding(self._at_least_one(lm, rows, unsteered + reading + row), pass_tokens)

    def pass_rows(self, lm: LanguageModel, tokens: int, *, kept: int = 0, held: int = 0) -> int:
        """How many rows of some tokens can be read in one pass, at least one.

        Args:
            lm: The model.
            tokens: Tokens of each row.
            kept: Bytes that stand there for each row beside what its pass computes.
            held: Bytes that stand there beside the pass, however many rows it has.
        """
        row = tokens * activation_bytes(lm, tokens) + kept
        fitting = self._at_least_one(lm, (self.room(lm) - held) // row, held + row)
        return max(1, min(fitting, PASS_TOKENS // tokens))

    def kept_bytes(self, lm: LanguageModel) -> int:
        """Bytes that may be kept from one pass to the next."""
        return max(0, int(_KEPT_SHARE * self.room(lm)))

    def kept_scores(self, lm: LanguageModel, tokens: int) -> int:
        """Of how many rows the scores of all tokens of a corpus may be kept, at least one."""
        return max(1, int(_SCORES_SHARE * self.room(lm)) // (2 * 8 * tokens))

    def _at_least_one(self, lm: LanguageModel, rows: int, needed: int) -> int:
        """As many rows as fit, or the one that is always tried; if it takes more than there is, that is said."""
        if rows < 1:
            _say_exceeded(self.limit, needed + self.limit - self.room(lm))
        return max(1, rows)


_said: set[int] = set()


def _say_exceeded(limit: int, needed: int) -> None:
    """Say that one row takes more than a budget; once for each budget, as a study asks many times."""
    if limit not in _said:
        _said.add(limit)
        note(
            f"the memory budget of {limit / 1e9:.3g} GB is exceeded: even one row takes about {needed / 1e9:.3g} GB, "
            "logits included"
        )


def logit_rows(lm: LanguageModel) -> int:
    """How many rows' logits are made at once, at least one."""
    return max(1, min(LOGIT_ROWS, LOGIT_BYTES // (4 * lm.vocabulary)))


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be allocated."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # On a CPU torch has no class of its own for it.
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("can't allocate memory", "not enough memory", "out of memory")
    )


def smaller(rows: int, error: BaseException) -> int:
    """How many rows to try after some did not fit.

    Raises:
        SteerEvalError: One row does not fit.
    """
    if rows <= 1:
        raise _not_enough() from error
    return rows // 2


@contextmanager
def one_row() -> Iterator[None]:
    """For work on a single row, which can't be made smaller.

    Raises:
        SteerEvalError: It does not fit.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise _not_enough() from error


def _not_enough() -> SteerEvalError:
    return SteerEvalError(
        "there is not enough memory for one row", "close other programs, take a shorter text or --dtype bfloat16"
    )
