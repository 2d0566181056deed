"""Training a Top-K SAE on stored activations.

Invariant: the state after step n is a function of the activations, the recipe and the seed. It is what a checkpoint
holds, so a run that was killed and resumed ends in the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from steer_eval.errors import FormatError
from steer_eval.formats.atomic import write_bytes
from steer_eval.formats.sae import TopKSae
from steer_eval.sae.cached_tensors import DELETE, load_cached
from steer_eval.sae.recipe import Recipe
from steer_eval.sae.sinks import is_sink, sink_norm
from steer_eval.sae.sparse_step import Fired, Parameters, decoded, gradients, pre_activations, top_k

_SAMPLE = 16_384
_FIELDS = ("w_enc", "b_enc", "w_dec", "b_dec")


class Residuals(Protocol):
    """Residuals of many tokens, on disk or in memory."""

    def __len__(self) -> int: ...

    def rows(self, indices: Tensor) -> Tensor:
        """Some of them, float32 `[len(indices), d_in]`."""
        ...


@dataclass(frozen=True)
class Progress:
    """How training stands after a step.

    Args:
        step: Steps done.
        loss: Squared error of the batch over its variance (FVU), whatever is minimised.
        l0: Mean number of features that fire per token.
        dead: Share of features that have not fired for `Recipe.dead_after` tokens.
    """

    step: int
    loss: float
    l0: float
    dead: float


class Training:
    """An SAE in training.

    Args:
        residuals: What it is trained on.
        d_in: Width of the residual stream.
        d_sae: Number of features.
        k: Features that may fire per token.
        recipe: How.
        seed: Decides the initial weights and the order of the tokens.
    """

    def __init__(self, residuals: Residuals, *, d_in: int, d_sae: int, k: int, recipe: Recipe, seed: int) -> None:
        self.residuals, self.recipe, self.k, self.seed = residuals, recipe, k, seed
        sample = self._sample()
        self.sink_norm = sink_norm(sample.norm(dim=1))
        self.longest = self.sink_norm if recipe.drop_sinks else math.inf
        sample = sample[~is_sink(sample, self.longest)]
        self.scale = math.sqrt(d_in / float(sample.square().sum(dim=1).mean())) if recipe.centre != "zero" else 1.0
        self.parameters = _initial(sample * self.scale, d_in, d_sae, recipe, seed)
        # Adam with its default betas; one kernel per parameter.
        self.optimiser = torch.optim.Adam(self.parameters.tensors(), lr=recipe.learning_rate, fused=True)
        self.since_fired = torch.zeros(d_sae, dtype=torch.int64)
        self.step = 0
        self.steps_per_epoch = max(1, len(residuals) // recipe.batch)
        self.steps = recipe.epochs * self.steps_per_epoch

    def run(self, *, until: int | None = None) -> Iterator[Progress]:
        """Train from where it stands, one step at a time.

        Args:
            until: Step to stop after; the last one by default.
        """
        order = torch.empty(0, dtype=torch.int64)
        epoch = -1
        while self.step < (self.steps if until is None else min(until, self.steps)):
            if self.step // self.steps_per_epoch != epoch:
                epoch = self.step // self.steps_per_epoch
                order = self._order(epoch)
            start = (self.step % self.steps_per_epoch) * self.recipe.batch
            batch = self.residuals.rows(order[start : start + self.recipe.batch])
            batch = batch[~is_sink(batch, self.longest)] * self.scale
            progress = self._step(batch)
            self.step += 1
            yield progress

    @torch.no_grad()
    def _step(self, x: Tensor) -> Progress:
        recipe, parameters = self.recipe, self.parameters
        centred = x - parameters.b_dec
        pre = pre_activations(parameters, centred)
        fired = top_k(pre, self.k)
        error = decoded(fired, parameters.w_dec) - centred
        squared, variance = error.square().sum(), (x - x.mean(dim=0)).square().sum()
        upstream = error * (2 / (float(variance) if recipe.loss == "fvu" else x.numel()))
        found = list(gradients(parameters, centred, fired, upstream))
        found[3] += upstream.sum(dim=0)
        dead = (self.since_fired >= recipe.dead_after).nonzero().flatten()
        if recipe.aux and len(dead):
            for total, part in zip(found, self._aux(pre, centred, error, dead), strict=True):
                total += part
        self._update(found)
        self.since_fired += len(x)
        self.since_fired[fired.features[fired.values > 0]] = 0
        return Progress(
            step=self.step + 1,
            loss=float(squared / variance),
            l0=float((fired.values > 0).sum(dim=1).float().mean()),
            dead=float((self.since_fired >= recipe.dead_after).float().mean()),
        )

    def _aux(self, pre: Tensor, centred: Tensor, error: Tensor, dead: Tensor) -> tuple[Tensor, ...]:
        """Gradients of AuxK: the dead features that come closest to firing reconstruct the residual error.

        Gao et al. 2024, appendix A.2: half as many features as `d_in`, no bias, the error taken as a constant; scaled
        down while fewer than that many are dead, as in sparsify.
        """
        wanted = centred.shape[1] // 2
        count = min(wanted, len(dead))
        values, places = pre[:, dead].topk(count, dim=1, sorted=False)
        fired = Fired(dead[places], values.relu())
        remaining = -error
        missed = decoded(fired, self.parameters.w_dec) - remaining
        variance = float((remaining - remaining.mean(dim=0)).square().sum())
        weight = self.recipe.aux * min(len(dead) / wanted, 1.0)
        return gradients(self.parameters, centred, fired, missed * (2 * weight / max(variance, 1e-30)))

    def _update(self, found: list[Tensor]) -> None:
        w_dec = self.parameters.w_dec
        if self.recipe.unit_norm:
            # A step along a row would only be undone by its normalisation, but would disturb Adam's averages.
            found[2] -= (found[2] * w_dec).sum(dim=1, keepdim=True) * w_dec
        for tensor, gradient in zip(self.parameters.tensors(), found, strict=True):
            tensor.grad = gradient
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.tensors(), self.recipe.clip)
        self.optimiser.param_groups[0]["lr"] = self.recipe.learning_rate * self._rate()
        self.optimiser.step()
        if self.recipe.unit_norm:
            w_dec /= w_dec.norm(dim=1, keepdim=True)

    def _rate(self) -> float:
        """Share of the learning rate in this step."""
        warmup, decay = self.recipe.warmup * self.steps, self.recipe.decay * self.steps
        rising = min(1.0, (self.step + 1) / warmup) if warmup else 1.0
        falling = min(1.0, (self.steps - self.step) / decay) if decay else 1.0
        return rising * falling

    def _order(self, epoch: int) -> Tensor:
        if not self.recipe.shuffled:
            return torch.arange(len(self.residuals))
        random = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + epoch)
        return torch.randperm(len(self.residuals), generator=random)

    def _sample(self) -> Tensor:
        """Residuals spread over the whole text."""
        count = len(self.residuals)
        return self.residuals.rows(torch.arange(0, count, max(1, count // _SAMPLE)))

    def sae(self, *, layer: int, model: str, provenance: dict[str, str]) -> TopKSae:
        """The SAE as it stands, for activations as the model gives them.

        The scale of training is folded into the biases: activations of features come out divided by it, reconstructions
        are the same, and decoder rows keep their norm.
        """
        w_enc, b_enc, w_dec, b_dec = (tensor.detach().clone() for tensor in self.parameters.tensors())
        return TopKSae(
            w_enc.T.contiguous(), b_enc / self.scale, w_dec, b_dec / self.scale, self.k, layer, model, provenance
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint, in one step."""
        from safetensors.torch import save

        tensors = {"step": torch.tensor([self.step]), "since_fired": self.since_fired}
        for field, tensor in zip(_FIELDS, self.parameters.tensors(), strict=True):
            tensors[field] = tensor
            tensors |= {f"{field}.{name}": value.reshape(-1) for name, value in self.optimiser.state[tensor].items()}
        write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same training.

        Raises:
            FormatError: The file is damaged, or of another training.
        """
        tensors = load_cached(path, ("step", "since_fired", *_FIELDS))
        mine = dict(zip(_FIELDS, self.parameters.tensors(), strict=True))
        for field, tensor in {"since_fired": self.since_fired, **mine}.items():
            if tensors[field].shape != tensor.shape:
                message = "the checkpoint has the shape of another SAE"
                shapes = {"expected": list(tensor.shape), "observed": list(tensors[field].shape)}
                raise FormatError(str(path), field, message, **shapes, fix=DELETE)
        for field, tensor in mine.items():
            tensor.copy_(tensors[field])
            prefix = f"{field}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            self.optimiser.state[tensor] = {
                name: value.reshape(()) if name == "step" else value.reshape(tensor.shape)
                for name, value in state.items()
            }
        self.since_fired.copy_(tensors["since_fired"])
        self.step = int(tensors["step"])


def train(training: Training, *, checkpoint: Path, every: int, on_step: Callable[[Progress], None]) -> None:
    """Train to the end, from a checkpoint if there is one, and leave one behind.

    Args:
        training: What is trained.
        checkpoint: The file.
        every: Steps between checkpoints.
        on_step: Called after each step.
    """
    if checkpoint.exists():
        training.load(checkpoint)
    for progress in training.run():
        on_step(progress)
        if progress.step % every == 0 or progress.step == training.steps:
            training.save(checkpoint)


def _initial(sample: Tensor, d_in: int, d_sae: int, recipe: Recipe, seed: int) -> Parameters:
    """Decoder rows uniform on the sphere, the encoder their transpose (Gao et al. 2024, appendix A.1)."""
    random = torch.Generator().manual_seed(seed)
    directions = torch.randn(d_sae, d_in, generator=random)
    directions /= directions.norm(dim=1, keepdim=True)
    centre = torch.zeros(d_in) if recipe.centre == "zero" else geometric_median(sample)
    return Parameters(directions.clone(), torch.zeros(d_sae), directions, centre)


def geometric_median(points: Tensor, *, steps: int = 100, tolerance: float = 1e-6) -> Tensor:
    """The point with the least sum of distances, by Weiszfeld's iteration.

    Args:
        points: `[points, d]`.
        steps: Most iterations.
        tolerance: Stop when a step is shorter than this share of the median's norm.

    Returns:
        `[d]`.
    """
    guess = points.mean(dim=0)
    for _ in range(steps):
        weights = 1 / (points - guess).norm(dim=1).clamp(min=1e-12)
        moved = (weights[:, None] * points).sum(dim=0) / weights.sum()
        near = float((moved - guess).norm()) <= tolerance * float(moved.norm())
        guess = moved
        if near:
            break
    return guess
