"""Our training step: `python benchmarks/sae_ours.py RECIPE`, a worker.

`plain` is the study's recipe, for the peer that trains by it; `recommended` is ours, which keeps the decoder's norms
and clips gradients, as SAELens does.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from sae_work import BATCH, D_IN, D_SAE, LEARNING_RATE, K, first_weights, residuals
from serving import serve, threads

from steer_eval.sae.recipe import RECIPES
from steer_eval.sae.training import Training


class InMemory:
    """Residuals as a tensor."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        return self.values[indices]


def main(recipe: str) -> None:
    torch.set_num_threads(threads())
    # Epochs without end: a round goes on where the last one stopped.
    settings = replace(RECIPES[recipe], batch=BATCH, epochs=1000, warmup=0.0, decay=0.0, learning_rate=LEARNING_RATE)
    training = Training(InMemory(residuals()), d_in=D_IN, d_sae=D_SAE, k=K, recipe=settings, seed=0)
    for tensor in (training.parameters.w_enc, training.parameters.w_dec):
        tensor.copy_(first_weights())

    def train(steps: int) -> tuple[float, Any]:
        """FVU of each step's batch."""
        losses = [progress.loss for progress in training.run(until=training.step + steps)]
        return steps * BATCH, losses

    serve({"train": train})


if __name__ == "__main__":
    main(*sys.argv[1:])
