"""How near a sweep comes to the limit of the machine, and what it costs as it grows.

Invariant: the limit is the same matrix products, attention's included, of the same shapes in the same order, each in
the fastest way that is known of (`peer_products.py`), and nothing is scaled: both sides do all of it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from grid_work import ROUNDS, SMALL, full_sweep, prepared, sample, script
from measuring import Asked, Comparison, Point
from workers import Request, Rounds, Side, Start, Worker, in_rounds, warmed_up

_ROOF_CELLS = 8
_ROOF_PROMPTS = 5
"""A half of the prompts has the shapes of all."""
_ROOF_TOKENS = 20

_SIZE = {"layers": 1, "coefficients": 6, "prompts": 5, "tokens": 12}
TIMES = (1, 2, 4)
_STRIDE = 7
"""Has no divisor in common with the number of coefficients, so that any of the first are spread over all."""
GROWTH = {f"growth_{axis}": axis for axis in _SIZE}
"""What grows in each comparison of growth."""
SMALL_SWEEP = ", ".join(f"{many} {axis if many > 1 else axis[:-1]}" for axis, many in _SIZE.items())

Work = Mapping[str, Any]


@dataclass(frozen=True)
class Roofline:
    """What is held to its matrix products.

    Args:
        request: Makes the request.
        words: What it does.
        dtype: Argument of both sides' workers; none for float32.
    """

    request: Callable[[Work], Request]
    words: str
    dtype: tuple[str, ...] = ()


def _prefill(work: Work) -> Request:
    return full_sweep(work) | {"prompts": _ROOF_PROMPTS, "tokens": 1}


def _perplexity(work: Work) -> Request:
    return {"do": "perplexity", "cells": sample(len(work["cells"]), _ROOF_CELLS)}


def _sweep(work: Work) -> Request:
    return full_sweep(work) | {"prompts": _ROOF_PROMPTS, "tokens": _ROOF_TOKENS}


_GRID = f"{_ROOF_PROMPTS} prompts in all cells"
_TEXTS = f"reading {_GRID} and decoding {_ROOF_TOKENS} tokens of each"

ROOFLINES = {
    "roofline_prefill": Roofline(_prefill, f"reading {_GRID}, up to the first token"),
    "roofline_perplexity": Roofline(_perplexity, f"the perplexity of {_ROOF_CELLS} cells of all layers"),
    "roofline_sweep": Roofline(_sweep, _TEXTS),
    "roofline_sweep_bf16": Roofline(_sweep, f"{_TEXTS}, in bfloat16", ("bfloat16",)),
}
"""What is held to its matrix products, by the comparison's name."""


def rooflines(asked: Asked, *, start: Start = Worker) -> list[Comparison]:
    """Pieces of work against their matrix products alone, each in processes of its own, so that each has a peak."""
    return [_roofline(name, asked, start) for name in asked.names]


def _roofline(name: str, asked: Asked, start: Start) -> Comparison:
    roofline = ROOFLINES[name]
    request = roofline.request(prepared(asked.shared))
    # What is done once for a model is done before anything is counted.
    with warmed_up(script("ours.py", asked.shared, *roofline.dtype), SMALL, start=start) as ours:
        # Our side tells its products while it warms up further, and the other finds its fastest ways.
        shapes = ours.ask({**request, "do": "shapes", "kind": request["do"]}).result
        (asked.folder / "shapes.json").write_text(json.dumps(shapes), encoding="utf-8")
        with start(script("peer_products.py", asked.folder, *roofline.dtype)) as peer:
            choice = peer.ask({"do": "choose"}).result
            sides = {"ours": Side(ours, request), "peer": Side(peer, {"do": "products"})}
            rounds = in_rounds(sides, rounds=min(asked.pairs, ROUNDS))
    timing = rounds.timing("ours", "peer", scaled=False)
    operations = sum(2 * batch * rows * inner * outputs for _, batch, rows, inner, outputs in shapes)
    words = (
        f"its matrix products alone, attention's included, {operations / 1e12:.1f} TFLOP in {len(shapes)} calls at "
        f"{operations / timing.peer_s / 1e9:.0f} GFLOP/s, each shape in the fastest way: {choice['packed']} calls with "
        f"packed weights; plain `torch.mm` and `torch.bmm` alone take {choice['plain']:.2f} times as long"
    )
    return Comparison.of(name, words, timing, identical=None)


def growth(asked: Asked, *, start: Start = Worker) -> list[Comparison]:
    """How the cost grows with one dimension of a sweep: the small one is ours, the doubled one the peer."""
    work = growing_work(prepared(asked.shared))
    (asked.folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    command = script("ours.py", asked.folder)
    axes = [GROWTH[name] for name in asked.names]
    # The small sweep has a process of its own, whose peak is its own; all larger ones share another.
    with warmed_up(command, SMALL, start=start) as small, warmed_up(command, SMALL, start=start) as large:
        sides = {"once": Side(small, grown_sweep())}
        sides |= {f"{times} {axis}": Side(large, grown_sweep(axis, times)) for axis in axes for times in TIMES[1:]}
        rounds = in_rounds(sides, rounds=min(asked.pairs, ROUNDS))
    before = rounds.last("once").units
    found = []
    for name, axis in zip(asked.names, axes, strict=True):
        doubled = f"2 {axis}"
        words = f"twice as many {axis}: {rounds.last(doubled).units:.0f} tokens of text, {before:.0f} before"
        timing = rounds.timing("once", doubled, scaled=False)
        points = tuple(_point(rounds, axis, times) for times in TIMES)
        found.append(Comparison.of(name, words, timing, identical=None, points=points))
    return found


def _point(rounds: Rounds, axis: str, times: int) -> Point:
    side = "once" if times == 1 else f"{times} {axis}"
    pairs = [(answers["once"].seconds, answers[side].seconds) for answers in rounds.answers]
    seconds = statistics.median(grown for _, grown in pairs)
    return Point(times, round(seconds, 4), round(statistics.median(grown / once for once, grown in pairs), 3))


def growing_work(work: Work) -> dict[str, Any]:
    """The packaged study's work with as many cells and prompts as the largest sweep has.

    Coefficients lie between the study's, and beside its prompts there are the scenarios of its contrast pairs.
    """
    layers, many, prompts = (TIMES[-1] * _SIZE[axis] for axis in ("layers", "coefficients", "prompts"))
    given = [coefficient for _, coefficient in work["cells"]]
    step = (max(given) - min(given)) / (many - 1)
    coefficients = [min(given) + step * (place * _STRIDE % many) for place in range(many)]
    cells = [
        [layer, coefficient] for layer in sorted(map(int, work["vectors"]))[:layers] for coefficient in coefficients
    ]
    scenarios = [scenario for scenario, *_ in work["pairs"]]
    return {**work, "cells": cells, "prompts": [*work["prompts"], *scenarios][:prompts]}


def grown_sweep(grown: str | None = None, times: int = 1) -> Request:
    """The request for a small sweep of `growing_work`, with more of one thing."""
    size = {axis: (times if axis == grown else 1) * many for axis, many in _SIZE.items()}
    stride = TIMES[-1] * _SIZE["coefficients"]
    cells = [layer * stride + place for layer in range(size["layers"]) for place in range(size["coefficients"])]
    return {"do": "sweep", "cells": cells, "prompts": size["prompts"], "tokens": size["tokens"]}
