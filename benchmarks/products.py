"""Matrix products of a piece of work, noted as they happen.

Invariant: every product that PyTorch computes inside `NotedProducts` is noted once, whoever asked for it: linear layers
plain or packed, and attention's, fused or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LINEAR, BATCHED = "linear", "batched"


class Product(NamedTuple):
    """A matrix product, or several of one shape.

    Args:
        kind: `LINEAR` with weights that all rows share, `BATCHED` where each matrix has a partner of its own.
        batch: How many products; 1 for linear layers.
        rows: Rows of the left factor.
        inner: Columns of the left factor.
        outputs: Columns of the right one.
    """

    kind: str
    batch: int
    rows: int
    inner: int
    outputs: int


def operations(products: Iterable[Product]) -> int:
    """Floating-point operations, an addition and a multiplication counted as two."""
    return sum(2 * math.prod(product[1:]) for product in products)


class NotedProducts(TorchDispatchMode):
    """Notes the products inside the `with` block."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Product] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.seen += _products(str(func.overloadpacket), args, kwargs or {}, output)
        return output


def _products(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> list[Product]:
    if name in {"aten.mm", "aten.linear", "mkldnn._linear_pointwise"}:
        return [_linear(args[0], output)]
    if name == "aten.addmm":
        return [_linear(args[1], output)]
    if name in {"aten.bmm", "aten.baddbmm"}:
        left, right = args[:2] if name == "aten.bmm" else args[1:3]
        return [Product(BATCHED, *left.shape, right.shape[-1])]
    if name == "aten._scaled_dot_product_flash_attention_for_cpu":
        query, key, value = args[:3]
        causal = args[4] if len(args) > 4 else kwargs.get("is_causal", False)
        batch, tokens, size = query.shape[0] * query.shape[1], query.shape[2], query.shape[3]
        # A token sees those before it, half of them on average: what a causal kernel need not compute is not counted.
        keys = (key.shape[2] + 1) // 2 if causal else key.shape[2]
        return [Product(BATCHED, batch, tokens, size, keys), Product(BATCHED, batch, tokens, keys, value.shape[3])]
    return []


def _linear(inputs: torch.Tensor, output: torch.Tensor) -> Product:
    inner = inputs.shape[-1]
    return Product(LINEAR, 1, inputs.numel() // inner, inner, output.shape[-1])
