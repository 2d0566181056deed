"""The limit: the same matrix products as a piece of work, of the same shapes in the same order, and nothing else.

Run as a worker: `python benchmarks/peer_products.py FOLDER [DTYPE]`; `shapes.json` there has the products.

Invariant: each shape is computed in whichever way was fastest when all ways were tried, so that nothing that computes
the same products one after the other is below the limit but by noise. Weights are tensors of their own for each layer,
and keys and values lie in a store larger than the processor's caches, so that they come from memory as in the model;
numbers are random.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from products import BATCHED, LINEAR, Product
from serving import serve, threads

from steer_eval.evaluation.packed import PackedLinears

BLOCKS = 30
TRIES = 3
_STORE = 2**26
"""Numbers that factors of batched products are taken from."""

Way = Callable[[Product], Any]


class Limit:
    """The products, and the ways of computing them.

    Args:
        products: In the order of the work.
        dtype: Their precision.
    """

    def __init__(self, products: list[Product], dtype: torch.dtype) -> None:
        self._products = products
        self._dtype = dtype
        self._weights: dict[tuple[int, int, bool], list[Any]] = {}
        self._used: Counter[tuple[int, int]] = Counter()
        self._inputs = {
            inner: torch.randn(max(each.rows for each in products if each.inner == inner), inner).to(dtype)
            for inner in {each.inner for each in products if each.kind == LINEAR}
        }
        batched = [each for each in products if each.kind == BATCHED]
        factors = (size * each.batch * each.inner for each in batched for size in (each.rows, each.outputs))
        self._store = torch.randn(max(_STORE, *factors)).to(dtype) if batched else torch.empty(0)
        self._place = 0
        self._chosen: dict[Product, Way] = {}

    def choose(self) -> tuple[float, Any]:
        """Find the fastest way for each shape. How much longer all products take in the plain way, and who is packed.

        The times of the trials are the least of a few: they choose, and are not the limit.
        """
        times = {}
        for product in dict.fromkeys(self._products):
            ways = self._ways(product)
            tried = dict.fromkeys(ways, math.inf)
            for _ in range(TRIES):
                for name, way in ways.items():
                    start = time.perf_counter()
                    way(product)
                    tried[name] = min(tried[name], time.perf_counter() - start)
            best = min(tried, key=lambda name: tried[name])
            self._chosen[product] = ways[best]
            times[product] = (tried["plain"], tried[best], best == "packed")
        plain, least, packed = (sum(column) for column in zip(*map(times.__getitem__, self._products), strict=True))
        return len(times), {"plain": plain / least, "packed": packed}

    def products(self) -> tuple[float, Any]:
        """All of them, each in the way that was chosen for it."""
        for product in self._products:
            self._chosen[product](product)
        return 1, None

    def _ways(self, product: Product) -> dict[str, Way]:
        if product.kind == LINEAR:
            return {"plain": self._mm, "packed": self._packed}
        return {"plain": self._bmm, "second factor transposed": self._bmm_transposed}

    def _mm(self, product: Product) -> Any:
        return torch.mm(self._inputs[product.inner][: product.rows], self._weight(product, packed=False))

    def _packed(self, product: Product) -> Any:
        return self._weight(product, packed=True)(self._inputs[product.inner][: product.rows])

    def _bmm(self, product: Product) -> Any:
        left = self._factor(product.batch, product.rows, product.inner)
        return torch.bmm(left, self._factor(product.batch, product.inner, product.outputs))

    def _bmm_transposed(self, product: Product) -> Any:
        left = self._factor(product.batch, product.rows, product.inner)
        return torch.bmm(left, self._factor(product.batch, product.outputs, product.inner).transpose(1, 2))

    def _factor(self, *shape: int) -> torch.Tensor:
        """The next numbers of the store."""
        size = math.prod(shape)
        if self._place + size > len(self._store):
            self._place = 0
        self._place += size
        return self._store[self._place - size : self._place].view(shape)

    def _weight(self, product: Product, *, packed: bool) -> Any:
        """The next layer's weights of a shape, or what computes the product with them packed."""
        shape = product.inner, product.outputs
        if (*shape, packed) not in self._weights:
            # There is one LM head.
            count = 1 if product.outputs > 10 * product.inner else BLOCKS
            self._weights[*shape, packed] = [self._made(*shape, packed=packed) for _ in range(count)]
        weights = self._weights[*shape, packed]
        self._used[shape] += 1
        return weights[self._used[shape] % len(weights)]

    def _made(self, inner: int, outputs: int, *, packed: bool) -> Any:
        if not packed:
            return torch.randn(inner, outputs).to(self._dtype)
        linear = torch.nn.Linear(inner, outputs, bias=False, dtype=self._dtype)
        with PackedLinears(linear).applied():
            return linear.forward


@torch.no_grad()
def main(folder: str, dtype: str = "float32") -> None:
    torch.set_num_threads(threads())
    noted = json.loads((Path(folder) / "shapes.json").read_text(encoding="utf-8"))
    limit = Limit([Product(*each) for each in noted], getattr(torch, dtype))
    serve({"choose": limit.choose, "products": limit.products})


if __name__ == "__main__":
    main(*sys.argv[1:])
