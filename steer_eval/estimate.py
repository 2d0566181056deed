"""What a re-run needs, before it starts.

Invariant: an estimate is made from the plan, the size in the model's name and a short measurement of this machine; it
loads nothing and fetches nothing. What can't be known is None, never a guess.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from steer_eval.cells import Cell, prompts_of
from steer_eval.model_reference import ModelReference
from steer_eval.results import Results
from steer_eval.study import Study

_SIZE = re.compile(r"(?<![0-9A-Za-z.])(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[BM])(?![A-Za-z])")
_UNITS = {"B": 1e9, "M": 1e6}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_OVERHEAD = 1.3
"""Memory beyond the weights: activations, caches, the interpreter."""

_EFFICIENCY = 0.8
"""Share of a matrix product's speed that a re-run seems to reach. Cells share the blocks below the steered one and
weights are packed, so 1.3 was measured on SmolLM2-135M; the rest is for machines where that gains less."""

TOKENS_PER_WORD = 1.35
PROMPT_TOKENS = 48
"""Chat template and scenario; measured on SmolLM2's template."""


@dataclass(frozen=True)
class Estimate:
    """What running one model's cells again needs.

    Args:
        model: Name of the model in the study.
        base_model: Its Hub id.
        cells: Cells to measure.
        texts: Texts to generate.
        tokens: Tokens to read and to write, in all.
        gigabytes: Memory; None where the size of the model is not known.
        minutes: Time on this machine; None where the size of the model is not known.
    """

    model: str
    base_model: str
    cells: int
    texts: int
    tokens: int
    gigabytes: float | None
    minutes: float | None

    def __str__(self) -> str:
        memory = "memory not known" if self.gigabytes is None else f"about {self.gigabytes:.1f} GB of memory"
        time_needed = "time not known" if self.minutes is None else f"about {max(self.minutes, 0.1):.1f} minutes"
        cells = "1 cell" if self.cells == 1 else f"{self.cells} cells"
        texts = "1 text" if self.texts == 1 else f"{self.texts} texts"
        work = f"{cells}, {texts}, {self.tokens:,} tokens"
        return f"{self.model} ({self.base_model}): {work}; {memory}, {time_needed}"


def parameters(base_model: str) -> float | None:
    """Number of parameters that a model's name states, such as 2e9 for `Qwen3.5-2B`; None if it states none."""
    sizes = [float(match["number"]) * _UNITS[match["unit"]] for match in _SIZE.finditer(base_model)]
    return sizes[-1] if sizes else None


def estimate(
    study: Study,
    reference: ModelReference,
    cells: Sequence[Cell],
    text: Sequence[Cell],
    published: Results,
    *,
    flops: float,
    more_tokens: int = 0,
) -> Estimate:
    """What measuring some cells of a model needs.

    Args:
        study: The study.
        reference: The model.
        cells: Cells whose perplexity is measured.
        text: Cells whose text is generated.
        published: Corpus and prompts.
        flops: Floating-point operations per second of a matrix product on this machine.
        more_tokens: Tokens that are read beside these cells.
    """
    words = len((published.corpus or "").split())
    window = int(words * TOKENS_PER_WORD)
    if study.perplexity.beyond == "truncate":
        window = min(window, study.perplexity.window)
    texts = sum(len(prompts_of(study, cell, published.prompts or ())) for cell in text)
    tokens = (len(cells) + 1) * window + texts * (PROMPT_TOKENS + study.sweep.max_new_tokens) + more_tokens
    size = parameters(reference.base_model)
    return Estimate(
        reference.name,
        reference.base_model,
        len(cells),
        texts,
        tokens,
        None if size is None else size * _BYTES[reference.dtype] * _OVERHEAD / 1e9,
        # A forward pass takes two operations per parameter and token.
        None if size is None else 2 * size * tokens / (_EFFICIENCY * flops) / 60,
    )


def machine_flops() -> float:
    """Floating-point operations per second of a float32 matrix product, from a tenth of a second of them."""
    import torch

    size, seconds, products = 1024, 0.0, 0
    matrix = torch.ones(size, size)
    matrix @ matrix
    while seconds < 0.1:
        start = time.perf_counter()
        matrix @ matrix
        seconds += time.perf_counter() - start
        products += 1
    return 2 * size**3 * products / seconds


def machine_gigabytes() -> float | None:
    """Memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return None


def why_left_out(wanted: Estimate, *, minutes_left: float, gigabytes: float | None) -> str:
    """Why a model is not run; empty if it is.

    Args:
        wanted: What it needs.
        minutes_left: Time that is left.
        gigabytes: Memory of the machine; None if that is not known.
    """
    if wanted.gigabytes is not None and gigabytes is not None and wanted.gigabytes > gigabytes:
        return f"it needs about {wanted.gigabytes:.0f} GB of memory, this machine has {gigabytes:.0f}"
    if wanted.minutes is not None and wanted.minutes > minutes_left:
        return f"it needs about {wanted.minutes:.0f} minutes, {minutes_left:.0f} are left"
    return ""
