"""Edits of every kind for tests, and what each does, token by token: the oracle that the engine is held to.

Nothing here is the engine's: neither its hooks nor its kernels, nor the encoder of its SAEs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from some_saes import random_sae
from tiny_models import BLOCKS, HIDDEN, add, random_vector
from torch import Tensor

from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Add, ClampFeatures, Edit, Intervention, Patch, Positions, Rotate

SAE = random_sae(HIDDEN, 96, 8)
PATCHED = (0, 2)
"""Tokens that `patch` patches, so prompts have three at least."""


def rotate(layer: int, coefficient: float, positions: Positions = "all") -> Rotate:
    return Rotate(layer, random_vector(layer), coefficient, positions)


def adding(layer: int, coefficient: float, positions: Positions) -> Add:
    return Add(layer, random_vector(layer), coefficient, positions)


def clamp(
    layer: int, *values: float, positions: Positions = "all", sink_norm: float = float("inf"), first: int = 3
) -> ClampFeatures:
    """As many features as there are values, from one on."""
    features = tuple(range(first, first + len(values)))
    return ClampFeatures(layer, SAE, features, torch.tensor(values), sink_norm, positions)


def patch(layer: int) -> Patch:
    return Patch(layer, torch.stack([random_vector(layer + place, norm=6.0) for place in PATCHED]), PATCHED)


def every_kind(sink_norm: float = float("inf")) -> dict[str, Intervention]:
    """Every kind of edit at every kind of position, several layers, several edits at one layer in either order.

    Args:
        sink_norm: Norm above which residuals are left alone by some of the clamps.
    """
    first, second, third, last = 0, 1, 2, BLOCKS - 1
    return {
        "unsteered": (),
        "add": (add(second, 1.0),),
        "add to prompt": (adding(second, 2.0, "prompt"),),
        "add to generated": (adding(third, -1.5, "generated"),),
        "rotate": (rotate(third, 2.0),),
        "rotate prompt": (rotate(first, -2.0, "prompt"),),
        "rotate generated": (rotate(last, 3.0, "generated"),),
        "clamp": (clamp(third, 0.0, 2.0, 1.0, sink_norm=sink_norm),),
        "clamp prompt": (clamp(second, 2.0, positions="prompt", sink_norm=sink_norm),),
        "clamp generated": (clamp(first, 0.5, 1.5, positions="generated", first=40),),
        "patch": (patch(second),),
        "stack": (add(first, 0.5), add(third, -1.0), add(last, 1.0)),
        "all kinds": (patch(first), rotate(second, 1.0), clamp(third, 1.0), add(last, -1.0)),
        "add, rotate": (add(second, 2.0), rotate(second, 1.0)),
        "rotate, add": (rotate(second, 1.0), add(second, 2.0)),
        "patch, add": (patch(second), adding(second, 1.0, "generated"), add(second, 0.5, seed=1)),
        "clamp, add, clamp": (clamp(third, 2.0), add(third, 1.0), clamp(third, 0.0, 0.0, first=4)),
    }


def by_hand(edit: Edit, residual: Tensor, *, place: int, kind: Literal["prompt", "generated"]) -> Tensor:
    """One token's residual after an edit, in float64.

    Args:
        edit: The edit.
        residual: The residual, `[hidden_size]`.
        place: Where the token stands in its text.
        kind: Whether it is of the prompt.
    """
    x = residual.double()
    if isinstance(edit, Patch):
        if kind == "generated" or place not in edit.at:
            return x
        return edit.residuals[edit.at.index(place)].double()
    if edit.positions not in ("all", kind):
        return x
    if isinstance(edit, Add):
        return x + edit.coefficient * edit.vector.double()
    if isinstance(edit, Rotate):
        pushed = x + edit.coefficient * edit.vector.double()
        return pushed * x.norm() / pushed.norm()
    if x.norm() > edit.sink_norm:
        return x
    sae = edit.sae
    before = ((x - sae.b_dec.double()) @ sae.w_enc.double() + sae.b_enc.double()).tolist()
    firing = sorted(range(sae.d_sae), key=lambda feature: -before[feature])[: sae.k]
    result = x.clone()
    for feature, value in zip(edit.features, edit.values.tolist(), strict=True):
        activation = max(before[feature], 0.0) if feature in firing else 0.0
        result += (value - activation) * sae.w_dec[feature].double()
    return result


def text_by_hand(intervention: Intervention, layer: int, hidden: Tensor, *, prompt: int, start: int = 0) -> Tensor:
    """One text's residuals `[tokens, hidden_size]` at a layer after an intervention, in float64.

    Args:
        intervention: The edits; those of other layers are left out.
        layer: The layer.
        hidden: The residuals.
        prompt: Tokens of the prompt.
        start: Place of the first of these tokens.
    """
    tokens = []
    for place, residual in enumerate(hidden.double(), start):
        for edit in intervention:
            if edit.layer == layer:
                residual = by_hand(edit, residual, place=place, kind="prompt" if place < prompt else "generated")
        tokens.append(residual)
    return torch.stack(tokens)


@contextmanager
def steered_by_hand(lm: LanguageModel, intervention: Intervention, *, prompt: int) -> Iterator[None]:
    """Steer passes over one whole text, without a cache, inside the `with` block."""

    def hook(layer: int) -> Any:
        def edit(_module: Any, _inputs: Any, output: Any) -> Any:
            assert isinstance(output, Tensor)
            assert len(output) == 1
            return text_by_hand(intervention, layer, output[0], prompt=prompt)[None].to(output.dtype)

        return edit

    layers = {edit.layer for edit in intervention}
    handles = [lm.blocks[layer].register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
