"""Linear layers with their weights in the order in which the processor wants them.

Invariant: inside `PackedLinears.applied` a model computes the same products up to float rounding, and outside it is as
it was.

PyTorch hands a matrix product of float32 to a library that packs the weights anew in each call, which costs most where
a batch is small beside the weights: at 64 rows a third of the time. oneDNN can keep them packed. That is what PyTorch's
own compiler does with frozen weights on a CPU, through the two operators used here; where a build lacks them, or a
device or precision is not served by them, layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

PACKED_FROM = 4096
"""Tokens from which on packing the weights is worth its second."""

_BATCH_HINT = 256
"""Rows that the packing is chosen for; it serves all numbers of rows."""

_PRECISIONS = (torch.float32, torch.bfloat16)


class PackedLinears:
    """Packed copies of the weights of a model's linear layers.

    Args:
        module: The model; its parameters must not change while this is in use.
    """

    def __init__(self, module: nn.Module) -> None:
        self._products = {
            linear: partial(_product, _packed(linear.weight), linear.bias) for linear in _packable(module)
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the layers use them inside the `with` block."""
        try:
            for linear, product in self._products.items():
                linear.__dict__["forward"] = product
            yield
        finally:
            for linear in self._products:
                linear.__dict__.pop("forward", None)


def packing_bytes(module: nn.Module) -> int:
    """Memory that packed copies take; 0 if nothing can be packed here."""
    return sum(linear.weight.nbytes for linear in _packable(module))


def _packable(module: nn.Module) -> list[nn.Linear]:
    if not _is_there():
        return []
    # Subclasses (quantised layers, adapters) compute something else; an own `forward` is somebody's hook.
    return [
        child
        for child in module.modules()
        if type(child) is nn.Linear
        and "forward" not in child.__dict__
        and child.weight.device.type == "cpu"
        and child.weight.dtype in _PRECISIONS
        and (child.weight.dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    ]


def _is_there() -> bool:
    operators: Any = torch.ops.mkldnn
    return bool(torch.backends.mkldnn.is_available()) and all(  # type: ignore[no-untyped-call]
        hasattr(operators, name)
        for name in ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    )


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _BATCH_HINT)
    return packed


def _product(weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return product
