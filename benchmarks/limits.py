"""How near a sweep comes to the limit of the machine, and what it costs as it grows.

Invariant: the limit is the same matrix products, of the same shapes in the same order, as plain `torch.mm`
(`peer_products.py`), and nothing is scaled: both sides do all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from grid_work import ROUNDS, SMALL, full_sweep, prepared, sample, script
from measuring import Asked, Comparison
from workers import Request, Side, Start, Worker, in_rounds, warmed_up

ROOF_CELLS = 12
_SIZE = {"layers": 2, "coefficients": 3, "prompts": 5, "tokens": 20}
GROWTH = {f"growth_{axis}": axis for axis in _SIZE}
"""What doubles in each comparison of growth."""

Work = Mapping[str, Any]


def _prefill(work: Work) -> tuple[Request, str]:
    return full_sweep(work) | {"tokens": 1}, "reading the prompts"


def _perplexity(work: Work) -> tuple[Request, str]:
    cells = sample(len(work["cells"]), ROOF_CELLS)
    return {"do": "perplexity", "cells": cells}, f"the perplexity of {len(cells)} cells"


def _sweep(work: Work) -> tuple[Request, str]:
    return full_sweep(work) | {"tokens": 10}, "reading and decoding 10 tokens"


ROOFLINES: dict[str, Callable[[Work], tuple[Request, str]]] = {
    "roofline_prefill": _prefill,
    "roofline_perplexity": _perplexity,
    "roofline_sweep": _sweep,
}
"""What is held to its matrix products: the request, and in words."""


def rooflines(asked: Asked, *, start: Start = Worker) -> list[Comparison]:
    """Pieces of work against their matrix products alone, each in processes of its own, so that each has a peak."""
    return [_roofline(name, asked, start) for name in asked.names]


def _roofline(name: str, asked: Asked, start: Start) -> Comparison:
    request, what = ROOFLINES[name](prepared(asked.shared))
    with start(script("ours.py", asked.shared)) as ours:
        # Our side tells its products while it warms up.
        shapes = ours.ask({**request, "do": "shapes", "kind": request["do"]}).result
        (asked.folder / "shapes.json").write_text(json.dumps(shapes), encoding="utf-8")
        few = {"do": "products", "count": 200}
        with warmed_up(script("peer_products.py", asked.folder), few, start=start) as peer:
            sides = {"ours": Side(ours, request), "peer": Side(peer, {"do": "products"})}
            rounds = in_rounds(sides, rounds=min(asked.pairs, ROUNDS))
    operations = sum(2 * rows * inputs * outputs for rows, inputs, outputs in shapes)
    words = f"the matrix products of {what} alone, {operations / 1e12:.1f} TFLOP as {len(shapes)} calls of `torch.mm`"
    return Comparison.of(name, words, rounds.timing("ours", "peer", scaled=False), identical=None)


def growth(asked: Asked, *, start: Start = Worker) -> list[Comparison]:
    """How the cost grows when one dimension of a sweep doubles: the small one is ours, the doubled one the peer."""
    work = prepared(asked.shared)
    command = script("ours.py", asked.shared)
    axes = [GROWTH[name] for name in asked.names]
    # The small sweep has a process of its own, whose peak is its own; all doubled ones share another.
    with warmed_up(command, SMALL, start=start) as small, warmed_up(command, SMALL, start=start) as large:
        sides = {"once": Side(small, small_sweep(work))}
        sides |= {axis: Side(large, small_sweep(work, axis)) for axis in axes}
        rounds = in_rounds(sides, rounds=min(asked.pairs, ROUNDS))
    before = rounds.last("once").units
    found = []
    for name, axis in zip(asked.names, axes, strict=True):
        words = f"twice as many {axis}: {rounds.last(axis).units:.0f} tokens of text, {before:.0f} before"
        timing = rounds.timing("once", axis, scaled=False)
        found.append(Comparison.of(name, words, timing, identical=None))
    return found


def small_sweep(work: Work, doubled: str | None = None) -> Request:
    """The request for a small sweep, with twice as much of one thing."""
    size = {axis: (2 if axis == doubled else 1) * many for axis, many in _SIZE.items()}
    coefficients = len(work["cells"]) // len(work["vectors"])
    cells = [layer * coefficients + place for layer in range(size["layers"]) for place in range(size["coefficients"])]
    return {"do": "sweep", "cells": cells, "prompts": size["prompts"], "tokens": size["tokens"]}
