"""Training steps of others: `python benchmarks/sae_peers.py dense|sae-lens`, a worker in the peer's environment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from sae_work import BATCH, D_IN, D_SAE, LEARNING_RATE, K, first_weights, residuals
from serving import serve, threads, versions

Step = Callable[[torch.Tensor], torch.Tensor]
"""Takes a batch, and gives its reconstruction before the step."""


def dense() -> Step:
    """As the study trains: dense activations, autograd, and Adam on the mean squared error."""
    w_dec = first_weights().requires_grad_()
    w_enc = first_weights().T.contiguous().requires_grad_()
    b_enc, b_dec = torch.zeros(D_SAE, requires_grad=True), torch.zeros(D_IN, requires_grad=True)
    optimiser = torch.optim.Adam([w_enc, b_enc, w_dec, b_dec], lr=LEARNING_RATE)

    def step(x: torch.Tensor) -> torch.Tensor:
        pre = (x - b_dec) @ w_enc + b_enc
        values, features = pre.topk(K, dim=-1)
        acts = torch.zeros_like(pre).scatter(-1, features, values.relu())
        restored = acts @ w_dec + b_dec
        loss = (restored - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return restored.detach()

    return step


def sae_lens() -> Step:
    """SAELens' own trainer, with its default settings for Top-K."""
    from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K))
    settings = SAETrainerConfig(
        total_training_samples=10**9, train_batch_size_samples=BATCH, lr=LEARNING_RATE, lr_end=LEARNING_RATE
    )
    trainer = SAETrainer(cfg=settings, sae=sae, data_provider=iter(()))

    def step(x: torch.Tensor) -> torch.Tensor:
        trained: torch.Tensor = trainer._train_step(sae=sae, sae_in=x).sae_out
        trainer.n_training_steps += 1
        return trained.detach()

    return step


STEPS: dict[str, Callable[[], Step]] = {"dense": dense, "sae-lens": sae_lens}


def main(name: str) -> None:
    torch.set_num_threads(threads())
    step, batches = STEPS[name](), _batches()

    def train(steps: int) -> tuple[float, Any]:
        """FVU of each step's batch."""
        losses = []
        for _ in range(steps):
            x = next(batches)
            losses.append(float((step(x) - x).square().sum() / (x - x.mean(dim=0)).square().sum()))
        return steps * BATCH, losses

    serve({"train": train, "versions": versions(name, "transformers", "numpy")})


def _batches() -> Iterator[torch.Tensor]:
    """Batches in the order of the text, again and again."""
    values = residuals()
    while True:
        yield from values.split(BATCH)


if __name__ == "__main__":
    main(*sys.argv[1:])
