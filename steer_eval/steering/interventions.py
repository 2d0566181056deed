"""What steering does to the residual stream, as values.

Invariant: layer L means the output of decoder block L, counted from 0. An edit is a value: what it does to a token's
residual depends on that residual and on whether the token belongs to the prompt, never on other tokens or rows. The
edits of one row at one layer act in the order in which they are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    # What an edit is can be said, and its norm and digest with it, without what computes it: PyTorch takes a second.
    from torch import Tensor

    from steer_eval.formats.sae import TopKSae

Positions = Literal["all", "prompt", "generated"]
"""Which tokens an edit reaches: those that the model is given, those that it writes (or that are scored), or both."""


@dataclass(frozen=True, eq=False)
class Add:
    """Contrastive activation addition: `h_L <- h_L + coefficient * vector` (Rimsky et al., 2024, arXiv:2312.06681).

    Args:
        layer: Index of the decoder block whose output is steered, from 0.
        vector: Steering vector, float32 `[hidden_size]`.
        coefficient: Multiple of the vector that is added.
        positions: Which tokens are steered.
    """

    layer: int
    vector: Tensor
    coefficient: float
    positions: Positions = "all"

    def __post_init__(self) -> None:
        _check(self.layer, self.positions)

    def delta(self) -> Tensor:
        """The tensor that is added at each position, float32 `[hidden_size]`."""
        return self.coefficient * self.vector.float()


@dataclass(frozen=True, eq=False)
class Rotate:
    """Addition that keeps the norm: `h_L <- |h_L| (h_L + c v) / |h_L + c v|`, a rotation of `h_L` towards `v`.

    A residual's norm grows with depth and differs between tokens, and what a normalised model reads of it is mostly its
    direction. Keeping the norm tells what the turn does from what the length does.

    Args:
        layer: Index of the decoder block whose output is steered, from 0.
        vector: Steering vector, float32 `[hidden_size]`.
        coefficient: Multiple of the vector that is added before the norm is restored.
        positions: Which tokens are steered.
    """

    layer: int
    vector: Tensor
    coefficient: float
    positions: Positions = "all"

    def __post_init__(self) -> None:
        _check(self.layer, self.positions)

    def delta(self) -> Tensor:
        """The tensor that is added before the norm is restored, float32 `[hidden_size]`."""
        return self.coefficient * self.vector.float()


@dataclass(frozen=True, eq=False)
class ClampFeatures:
    """Hold features of a Top-K SAE at given activations: `h_L <- h_L + sum_f (value_f - a_f(h_L)) w_dec[f]`.

    What the SAE does not explain of a residual stays as it is, and so do all other features: nothing is evicted from
    the k largest. Attention sinks are left alone, as the SAE knows nothing of them (Templeton et al. 2024, "Scaling
    Monosemanticity", clamp features in the same way).

    Args:
        layer: Index of the decoder block whose output is steered, from 0.
        sae: The SAE of that layer.
        features: Indices of the features, each once.
        values: Their activations, float32 `[features]`.
        sink_norm: Norm above which a residual is an attention sink.
        positions: Which tokens are steered.
    """

    layer: int
    sae: TopKSae
    features: tuple[int, ...]
    values: Tensor
    sink_norm: float = float("inf")
    positions: Positions = "all"

    def __post_init__(self) -> None:
        _check(self.layer, self.positions)
        if len(set(self.features)) < len(self.features) or tuple(self.values.shape) != (len(self.features),):
            raise ValueError(f"values {list(self.values.shape)} for features {self.features}: one for each, each once")
        if not all(0 <= feature < self.sae.d_sae for feature in self.features):
            raise ValueError(f"features {self.features} of an SAE with {self.sae.d_sae}")


@dataclass(frozen=True, eq=False)
class Patch:
    """Activation patching: residuals of some prompt tokens are replaced (Vig et al. 2020, Meng et al. 2022).

    Only tokens of the prompt can be patched. A hook that also fires on generated tokens writes the residual of some
    prompt token over each of them, which makes gibberish of any text. So a prompt must have all the tokens that are
    patched (`check_prompt`).

    Args:
        layer: Index of the decoder block whose output is patched, from 0.
        residuals: What is put there, float `[tokens, hidden_size]`.
        at: Which tokens of the prompt, counted from its beginning; ascending.
    """

    layer: int
    residuals: Tensor
    at: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(self.layer)
        if self.residuals.dim() != 2 or len(self.residuals) != len(self.at):
            raise ValueError(f"residuals of shape {list(self.residuals.shape)} for {len(self.at)} tokens")
        if list(self.at) != sorted({place for place in self.at if place >= 0}):
            raise ValueError(f"tokens {self.at}: ascending, each once, from 0")


Edit = Add | Rotate | ClampFeatures | Patch

Intervention = tuple[Edit, ...]
"""Edits that act together in one row; the empty tuple is the unsteered model."""


def check_prompt(intervention: Intervention, prompt: int) -> None:
    """Check that a prompt has all tokens that an intervention patches.

    Args:
        intervention: The edits.
        prompt: Tokens of the prompt.

    Raises:
        ValueError: It has not, so part of a patch would be lost.
    """
    for edit in intervention:
        if isinstance(edit, Patch) and any(place >= prompt for place in edit.at):
            raise ValueError(f"a patch of token {max(edit.at)}, counted from 0, of a prompt with {prompt} tokens")


def _check(layer: int, positions: Positions = "all") -> None:
    if layer < 0:
        raise ValueError(f"layer {layer}: layers count from 0")
    if positions not in get_args(Positions):
        raise ValueError(f"positions {positions!r}: one of {', '.join(get_args(Positions))}")
