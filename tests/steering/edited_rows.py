"""Residuals of random numbers, and what the engine makes of them."""

from __future__ import annotations

import torch
from tiny_models import HIDDEN

from steer_eval.steering.row_edits import RowEdits

LAYER = 1


def residuals(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return 0.8 * torch.randn(rows, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))


def edits_of(*rows, dtype=torch.float32) -> RowEdits:
    return RowEdits(rows, hidden_size=HIDDEN, dtype=dtype)


def edited(row, hidden, *, layer=LAYER, prompt=None, start=0):
    """One row, `[tokens, hidden_size]`, under its edits."""
    prompt = len(hidden) if prompt is None else prompt
    edits = edits_of(row, dtype=hidden.dtype)
    return edits.edited(layer, hidden[None], start=start, prompt=prompt)[0]
