"""What steering does to the residual stream, as values.

Invariant: layer L means the output of decoder block L, counted from 0, at every position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Add:
    """Contrastive activation addition: `h_L <- h_L + coefficient * vector` (Rimsky et al., 2024, arXiv:2312.06681).

    Args:
        layer: Index of the decoder block whose output is steered, from 0.
        vector: Steering vector, float32 `[hidden_size]`.
        coefficient: Multiple of the vector that is added.
    """

    layer: int
    vector: Tensor
    coefficient: float

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise ValueError(f"layer {self.layer}: layers count from 0")

    def delta(self) -> Tensor:
        """The tensor that is added at each position, float32 `[hidden_size]`."""
        return self.coefficient * self.vector.to(torch.float32)


Intervention = tuple[Add, ...]
"""Edits that act together in one row; the empty tuple is the unsteered model."""


def row_deltas(interventions: Sequence[Intervention], *, hidden_size: int) -> dict[int, Tensor]:
    """One addend per layer and row, for a batch whose rows have interventions of their own.

    Args:
        interventions: One intervention per row.
        hidden_size: Width of the residual stream.

    Returns:
        For each layer that any row touches a float32 tensor `[rows, hidden_size]`; rows without an edit there are zero.
    """
    deltas: dict[int, Tensor] = {}
    for row, intervention in enumerate(interventions):
        for edit in intervention:
            layer = deltas.setdefault(edit.layer, torch.zeros(len(interventions), hidden_size))
            layer[row] += edit.delta()
    return deltas
