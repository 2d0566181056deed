"""How many rows fit.

Invariant: the size of a batch follows from a budget in bytes and from what a row was measured or computed to take; the
results do not depend on it. A batch that does not fit after all is made smaller and tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.packed import PACKED_FROM, PackedLinears, packing_bytes
from steer_eval.evaluation.row_cache import state_bytes
from steer_eval.model import LanguageModel

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
        return cls(memory if memory is not None else int(_SHARE * free_bytes(lm.device)))

    def packs(self, lm: LanguageModel) -> bool:
        """Whether there is room for a packed copy of the weights."""
        return 0 < packing_bytes(lm.module) <= _PACKING_SHARE * self.limit

    def kernels(self, lm: LanguageModel, tokens: int) -> Callable[[], AbstractContextManager[None]]:
        """What to compute so many tokens under: packed weights, where that pays and there is room for them."""
        return PackedLinears(lm.module).applied if tokens >= PACKED_FROM and self.packs(lm) else nullcontext

    def decoding_rows(self, lm: LanguageModel, cache: Any, *, read: int, tokens: int) -> int:
        """How many rows can decode together, at least one.

        Args:
            lm: The model.
            cache: The cache of one row, which was read.
            read: Its tokens.
            tokens: Most tokens that a row will have.
        """
        growing, fixed = state_bytes(cache)
        # Recurrent states are copied when rows join or leave.
        row = growing * tokens // read + 2 * fixed + _activation_bytes(lm)
        room = self.limit - (packing_bytes(lm.module) if self.packs(lm) else 0)
        return max(1, min(MOST_ROWS, room // row))

    def pass_rows(self, lm: LanguageModel, tokens: int) -> int:
        """How many rows of some tokens can be read in one pass, at least one."""
        room = self.limit - (packing_bytes(lm.module) if self.packs(lm) else 0)
        return max(1, min(PASS_TOKENS, room // _activation_bytes(lm)) // tokens)


def _activation_bytes(lm: LanguageModel) -> int:
    """What one token of one row takes on its way through a block, amply.

    A dozen copies of the residual stream and a few of the widest layer; the rest of a block is gone by then.
    """
    config = lm.module.config.get_text_config()
    widest = max(getattr(config, "intermediate_size", None) or 4 * config.hidden_size, config.hidden_size)
    return int(4 * (12 * config.hidden_size + 4 * widest))


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses on a device, in bytes; 4 GB where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 * 10**9


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
