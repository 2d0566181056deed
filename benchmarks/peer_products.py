"""The limit: the same matrix products as a piece of work, of the same shapes in the same order, and nothing else.

Run as a worker: `python benchmarks/peer_products.py FOLDER`; `shapes.json` there has the shapes. Each layer's weights
are a tensor of their own, as in the model, so that they come from memory as there; inputs are random.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from serving import serve, threads

BLOCKS = 30


@torch.no_grad()
def main(folder: str) -> None:
    torch.set_num_threads(threads())
    shapes: list[tuple[int, int, int]] = json.loads((Path(folder) / "shapes.json").read_text(encoding="utf-8"))
    kinds = {(inputs, outputs) for _, inputs, outputs in shapes}
    weights = {
        (inputs, outputs): [torch.randn(inputs, outputs) for _ in range(1 if outputs > 10 * inputs else BLOCKS)]
        for inputs, outputs in kinds
    }
    values = {
        inputs: torch.randn(max(rows for rows, width, _ in shapes if width == inputs), inputs) for inputs, _ in kinds
    }

    def products(count: int | None = None) -> tuple[float, Any]:
        """The first products, or all."""
        used: Counter[tuple[int, int]] = Counter()
        for rows, inputs, outputs in shapes[:count]:
            of_kind = weights[inputs, outputs]
            torch.mm(values[inputs][:rows], of_kind[used[inputs, outputs] % len(of_kind)])
            used[inputs, outputs] += 1
        return 1, None

    serve({"products": products})


if __name__ == "__main__":
    main(sys.argv[1])
