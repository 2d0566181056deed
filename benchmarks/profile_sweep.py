"""Where the time of a sweep goes: `python benchmarks/profile_sweep.py` prints it as tables.

The sweep is that of `roofline_sweep`: the packaged study's cells on five prompts, in float32 and bfloat16. A second
table counts operations: what a grid computes, beside what it would be cell by cell.

Invariant: shares are of the wall-clock time of the sweep under PyTorch's profiler; what no operation accounts for, the
interpreter and the profiler itself, is a line of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from grid_work import prepared
from limits import ROOFLINES
from ours import Ours
from products import NotedProducts, operations
from serving import threads

KINDS = {
    "linear layers": ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm", "aten::linear"),
    "attention's products": ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    "packing the weights": ("mkldnn::_reorder_linear_weight",),
    "choosing tokens": ("aten::topk",),
    "norms, rotations, activations, residuals, softmax, conversions": (
        *("aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::sub", "aten::neg", "aten::pow", "aten::mean"),
        *("aten::rsqrt", "aten::silu", "aten::cos", "aten::sin", "aten::cat", "aten::_softmax", "aten::masked_fill_"),
        *("aten::copy_", "aten::sum", "aten::div_"),
    ),
}
"""Operations by what they are for; the time of one is its own, without that of others that it calls."""
_REST = "other operations (indexing, memory, caches)"
_OUTSIDE = "outside operations (interpreter, profiler)"
WARM_UP = 4
WINDOW = 128


def kind_of(operation: str) -> str:
    """What an operation is for."""
    return next((kind for kind, names in KINDS.items() if operation in names), _REST)


def shares(handler: Any, **request: Any) -> tuple[float, dict[str, float]]:
    """Seconds of a piece of work, and the share of each kind of operation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profiler:
        start = time.perf_counter()
        handler(**request)
        seconds = time.perf_counter() - start
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    spent[_OUTSIDE] = max(0.0, seconds - spent.total())
    return seconds, {kind: spent[kind] / seconds for kind in (*KINDS, _REST, _OUTSIDE)}


def counted(ours: Ours) -> list[tuple[str, int, int]]:
    """Operations of grids, shared and cell by cell: what it is, ours, and that of one cell times their number.

    Cell by cell is the model from its first block to its head, for each cell; a grid in which nothing could be shared.
    """
    cells = list(range(len(ours.given["cells"])))
    # The beginning of one window says the same of all.
    ours.given["windows"] = [ours.given["windows"][0][:WINDOW]]
    ours.perplexity(cells[:1])  # What is done once for a model is no part of it.
    with NotedProducts() as grid:
        ours.perplexity(cells)
    window = torch.tensor(ours.given["windows"])
    with torch.no_grad(), NotedProducts() as alone:
        hidden = ours.lm.final_hidden(window)
        ours.lm.logits(hidden[:, :-1])
    return [
        (
            f"perplexity of {WINDOW} tokens, {len(cells)} cells",
            operations(grid.seen),
            operations(alone.seen) * len(cells),
        )
    ]


def main() -> None:
    torch.set_num_threads(threads())
    with tempfile.TemporaryDirectory(prefix="steer-eval-bench-") as folder:
        request = dict(ROOFLINES["roofline_sweep"].request(prepared(Path(folder))))
        sides = {dtype: Ours(folder, dtype) for dtype in ("float32", "bfloat16")}
    request.pop("do")
    rows = len(request["cells"]) * request["prompts"]
    found = {}
    for dtype, ours in sides.items():
        ours.sweep(cells=request["cells"][:WARM_UP], prompts=1, tokens=WARM_UP)
        found[dtype] = shares(ours.sweep, **request)
    print(f"{rows} rows, {request['tokens']} tokens each, {threads()} threads, torch {torch.__version__}:\n")
    print("| Share of the time | " + " | ".join(f"{dtype}, {found[dtype][0]:.1f} s" for dtype in found) + " |")
    print("|---|" + "---|" * len(found))
    for kind in (*KINDS, _REST, _OUTSIDE):
        print(f"| {kind} | " + " | ".join(f"{shared[kind]:.1%}" for _, shared in found.values()) + " |")
    print("\n| Operations (TFLOP) | shared | cell by cell | times |\n|---|---|---|---|")
    for what, shared, alone in counted(sides["float32"]):
        print(f"| {what} | {shared / 1e12:.3f} | {alone / 1e12:.3f} | {alone / shared:.2f} |")


if __name__ == "__main__":
    main()
