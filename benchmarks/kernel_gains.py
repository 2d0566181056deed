"""What single kernels gain: `python benchmarks/kernel_gains.py` prints it as tables.

Invariant: both ways of each line compute the same product, of SmolLM2-135M's shapes, and take turns; times are medians.
Weights and caches are those of several layers in turn, so that they come from memory as in the model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import torch
from serving import threads
from torch import nn

from steer_eval.evaluation.decode_attention import _attention
from steer_eval.evaluation.packed import PackedLinears

HIDDEN, KEYS, INNER, VOCABULARY = 576, 192, 1536, 49152
HEADS, KEY_HEADS, HEAD = 9, 3, 64
LAYERS = 8
ROWS = (64, 350, 1700)
DECODING, WIDTH = 350, 128
ROUNDS = 7

Way = Callable[[], Any]
PRECISIONS = (torch.float32, torch.bfloat16)


def medians(*ways: Way, rounds: int = ROUNDS) -> list[float]:
    """Seconds of each way, which take turns after one run that is not counted."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for way, taken in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in times]


def linears(shapes: Sequence[tuple[int, int]], dtype: torch.dtype, *, layers: int = LAYERS) -> list[nn.ModuleList]:
    """Linear layers of some shapes, for each of several layers."""
    made = [[nn.Linear(inner, outputs, bias=False, dtype=dtype) for inner, outputs in shapes] for _ in range(layers)]
    return [nn.ModuleList(each) for each in made]


def each_layer(layers: Sequence[nn.ModuleList], rows: int, dtype: torch.dtype) -> Way:
    """All products of all layers, as they are when this is called: packed inside `PackedLinears.applied`."""
    products = [(linear.forward, torch.randn(rows, linear.in_features).to(dtype)) for of in layers for linear in of]

    def way() -> None:
        for product, inputs in products:
            product(inputs)

    return way


def packed_of(layers: Sequence[nn.ModuleList], rows: int, dtype: torch.dtype) -> Way:
    """The same with packed weights."""
    with PackedLinears(nn.ModuleList(layers)).applied():
        return each_layer(layers, rows, dtype)


def rate(layers: Sequence[nn.ModuleList], rows: int, seconds: float) -> float:
    """GFLOP/s."""
    return sum(2 * rows * linear.in_features * linear.out_features for of in layers for linear in of) / seconds / 1e9


def packing() -> None:
    """Packed weights against plain layers."""
    block = [(HIDDEN, HIDDEN), (HIDDEN, KEYS), (HIDDEN, KEYS), (HIDDEN, HIDDEN), *[(HIDDEN, INNER)] * 2]
    cases = [("a block's layers", [*block, (INNER, HIDDEN)], rows, LAYERS) for rows in ROWS]
    cases.append(("LM head", [(HIDDEN, VOCABULARY)], 128, 1))
    print("| Products | Rows | Precision | plain, GFLOP/s | packed, GFLOP/s | gain |\n|---|---|---|---|---|---|")
    for dtype in PRECISIONS:
        for what, shapes, rows, count in cases:
            layers = linears(shapes, dtype, layers=count)
            plain, packed = medians(each_layer(layers, rows, dtype), packed_of(layers, rows, dtype))
            speeds = f"{rate(layers, rows, plain):.0f} | {rate(layers, rows, packed):.0f}"
            print(f"| {what} | {rows} | {_name(dtype)} | {speeds} | {plain / packed:.2f} |")


def fusing() -> None:
    """One packed product for query, key and value against three."""
    print("\n| Query, key and value | Precision | three, GFLOP/s | fused, GFLOP/s | gain |\n|---|---|---|---|---|")
    for dtype in PRECISIONS:
        three = linears([(HIDDEN, HIDDEN), (HIDDEN, KEYS), (HIDDEN, KEYS)], dtype)
        fused = linears([(HIDDEN, HIDDEN + 2 * KEYS)], dtype)
        apart, together = medians(packed_of(three, DECODING, dtype), packed_of(fused, DECODING, dtype))
        speeds = f"{rate(three, DECODING, apart):.0f} | {rate(fused, DECODING, together):.0f}"
        print(f"| {DECODING} rows | {_name(dtype)} | {speeds} | {apart / together:.2f} |")


def attention_ways(dtype: torch.dtype, *, rows: int = DECODING, width: int = WIDTH, layers: int = 4) -> tuple[Way, Way]:
    """Attention of one new token per row: the fused kernel's way and ours, each over the next layer's cache."""
    query = torch.randn(rows, HEADS, 1, HEAD).to(dtype)
    caches = [tuple(torch.randn(rows, KEY_HEADS, width, HEAD).to(dtype) for _ in "kv") for _ in range(layers)]
    mask = torch.ones(rows, 1, 1, width, dtype=torch.bool)
    mask[::2, ..., : width // 4] = False
    module: Any = SimpleNamespace(num_key_value_groups=HEADS // KEY_HEADS, is_causal=True, training=False)
    turns = cycle(caches), cycle(caches)

    def fused() -> Any:
        key, value = next(turns[0])
        attend = nn.functional.scaled_dot_product_attention
        return attend(query, key, value, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    return fused, lambda: _attention(module, query, *next(turns[1]), mask)[0]


def attention() -> None:
    """Two batched products against the fused kernel."""
    print(f"\n| Attention, {DECODING} rows, {WIDTH} tokens | fused | two products | gain |\n|---|---|---|---|")
    for dtype in PRECISIONS:
        fused, ours = medians(*attention_ways(dtype), rounds=3 * ROUNDS)
        print(f"| {_name(dtype)} | {1e3 * fused:.1f} ms | {1e3 * ours:.1f} ms | {fused / ours:.2f} |")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(threads())
    print(f"{threads()} threads, torch {torch.__version__}\n")
    packing()
    fusing()
    attention()


if __name__ == "__main__":
    main()
