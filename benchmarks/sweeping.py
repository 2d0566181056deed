"""Sweeps, perplexities, extraction and prefill, held to what one can do without this toolkit.

Invariant: both sides do the same work, which `prepare.py` wrote down: the packaged study's model, vectors, cells,
prompts and corpus. Peers do a fixed part of it, spread over all layers, coefficients and prompts, and their time is
scaled by what both sides count: tokens of text, cells of perplexity, contrast pairs. We do all of it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import Command, Comparison, MeasurementError, run
from workers import Answer, Side, Worker, in_rounds

_HERE = Path(__file__).parent
INTEROP = _HERE.parent / ".interop"
LIBRARIES = ("steering-vectors", "repeng")
ROUNDS = 3
SAMPLE = 6
EXTRACT_SAMPLE = 6
ROOF_CELLS = 12


def prepared(folder: Path) -> dict[str, Any]:
    """Write the work into a folder, and read it."""
    run([Command((sys.executable, str(_HERE / "prepare.py"), str(folder)))])
    work: dict[str, Any] = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    return work


def sample(count: int, size: int = SAMPLE) -> list[int]:
    """So many of the first numbers, from all parts alike."""
    size = min(size, count)
    return [(2 * number + 1) * count // (2 * size) for number in range(size)]


def _side(script: str, folder: Path, *arguments: str, python: str = sys.executable) -> Command:
    return Command((python, str(_HERE / script), str(folder), *arguments))


def library(name: str, folder: Path, environments: Path = INTEROP) -> Command:
    """A library's worker, in its own environment.

    Args:
        name: The library.
        folder: Where the work is.
        environments: Where the environments are.

    Raises:
        MeasurementError: The environment is not there.
    """
    python = environments / name / "bin" / "python"
    if not python.exists():
        raise MeasurementError(f"{python} is absent: `make bench` builds the environments of the libraries")
    return _side("peer_libraries.py", folder, name, python=str(python))


def full_sweep(work: Mapping[str, Any]) -> dict[str, Any]:
    """The request for all cells and prompts."""
    return {"do": "sweep", "cells": list(range(len(work["cells"]))), "prompts": len(work["prompts"])} | {
        "tokens": work["tokens"]
    }


def serial_rows(work: Mapping[str, Any]) -> list[list[int]]:
    """Cells of the sample, each on another prompt."""
    prompts = sample(len(work["prompts"]))
    return [[cell, prompt] for cell, prompt in zip(sample(len(work["cells"])), prompts, strict=True)]


_SMALL = {"do": "sweep", "cells": [0], "prompts": 2, "tokens": 4}


def sweep_vs_serial(folder: Path, pairs: int) -> Comparison:
    """The full grid in float32 against hooks and `generate`, one text at a time."""
    work = prepared(folder)
    timing, mine, theirs = in_rounds(
        Side(_side("ours.py", folder), _SMALL, full_sweep(work)),
        _serial(folder, work),
        pairs=min(pairs, ROUNDS),
    )
    peer = f"a forward hook and `generate`, one text at a time; {SAMPLE} of {mine_texts(mine)} texts, scaled by tokens"
    same = same_texts(mine, zip(serial_rows(work), theirs.result, strict=True), work["eos"])
    return Comparison.of("sweep_vs_serial", peer, timing, identical=same)


def sweep_bf16_vs_serial(folder: Path, pairs: int) -> Comparison:
    """The full grid in bfloat16 against the same float32 loop."""
    work = prepared(folder)
    timing, mine, _ = in_rounds(
        Side(_side("ours.py", folder, "bfloat16"), _SMALL, full_sweep(work)),
        _serial(folder, work),
        pairs=min(pairs, ROUNDS),
    )
    peer = (
        f"a forward hook and `generate` in float32, one text at a time; {SAMPLE} of {mine_texts(mine)} texts, scaled "
        "by tokens"
    )
    return Comparison.of("sweep_bf16_vs_serial", peer, timing, identical=None)


def _serial(folder: Path, work: Mapping[str, Any]) -> Side:
    return Side(
        _side("peer_hooks.py", folder),
        {"do": "sweep", "rows": [[0, 0]], "tokens": 4},
        {"do": "sweep", "rows": serial_rows(work), "tokens": work["tokens"]},
    )


def sweep_vs_best_peer(folder: Path, pairs: int) -> Comparison:
    """The full grid in float32 against the faster of two libraries, one batch per cell."""
    work = prepared(folder)
    cells = sample(len(work["cells"]))
    first = {"do": "sweep", "cells": cells[:1], "tokens": work["tokens"]}
    seconds = {}
    for name in LIBRARIES:
        with Worker(library(name, folder)) as worker:
            worker.ask({**first, "tokens": 4})
            seconds[name] = worker.ask(first).cost
    best = min(seconds, key=seconds.__getitem__)
    timing, mine, theirs = in_rounds(
        Side(_side("ours.py", folder), _SMALL, full_sweep(work)),
        Side(library(best, folder), {**first, "tokens": 4}, {"do": "sweep", "cells": cells, "tokens": work["tokens"]}),
        pairs=min(pairs, ROUNDS),
    )
    others = ", ".join(
        f"{name} takes {seconds[name] / seconds[best]:.2f} times as long" for name in seconds if name != best
    )
    peer = (
        f"{best}, all prompts of a cell in one batch; {len(cells)} of {len(work['cells'])} cells, scaled by tokens "
        f"({others})"
    )
    rows = [[cell, prompt] for cell in cells for prompt in range(len(work["prompts"]))]
    same = same_texts(mine, zip(rows, theirs.result, strict=True), work["eos"])
    return Comparison.of("sweep_vs_best_peer", peer, timing, identical=same)


def mine_texts(mine: Answer) -> int:
    """How many texts we made."""
    return len(mine.result)


def same_texts(mine: Answer, theirs: Iterable[tuple[Sequence[int], Sequence[int]]], eos: Sequence[int]) -> bool:
    """Whether a peer's texts are ours, up to the first near-tie of the two largest logits.

    Args:
        mine: `[cell, prompt, tokens, first near-tie or None]` of each text.
        theirs: `[cell, prompt]` and tokens, the end-of-sequence token included.
        eos: End-of-sequence tokens.
    """
    texts = {(cell, prompt): (ids, tie) for cell, prompt, ids, tie in mine.result}
    for row, tokens in theirs:
        ids, tie = texts[row[0], row[1]]
        own = tokens[:-1] if tokens and tokens[-1] in eos else tokens
        if list(own[:tie]) != list(ids[:tie]):
            return False
    return True


def _perplexity(folder: Path, pairs: int, name: str, command: Command, what: str) -> Comparison:
    work = prepared(folder)
    every, some = list(range(len(work["cells"]))), sample(len(work["cells"]))
    timing, mine, theirs = in_rounds(
        Side(_side("ours.py", folder), {"do": "perplexity", "cells": [0]}, {"do": "perplexity", "cells": every}),
        Side(command, {"do": "perplexity", "cells": some[:1]}, {"do": "perplexity", "cells": some}),
        pairs=min(pairs, ROUNDS),
    )
    same = all(
        math.isclose(mine.result[cell], value, rel_tol=1e-4) for cell, value in zip(some, theirs.result, strict=True)
    )
    return Comparison.of(name, f"{what}; {len(some)} of {len(every)} cells, scaled", timing, identical=same)


def perplexity_grid_vs_serial(folder: Path, pairs: int) -> Comparison:
    """Perplexity of all cells against a hook and a forward pass per cell."""
    what = "a forward hook and a forward pass, one cell and one window at a time"
    return _perplexity(folder, pairs, "perplexity_grid_vs_serial", _side("peer_hooks.py", folder), what)


def perplexity_grid_vs_lm_eval(folder: Path, pairs: int) -> Comparison:
    """Perplexity of all cells against lm-eval's steered model."""
    what = "lm-eval's `steered` model, one cell at a time"
    return _perplexity(folder, pairs, "perplexity_grid_vs_lm_eval", _side("peer_lm_eval.py", folder), what)


def extract_vs_per_layer(folder: Path, pairs: int) -> Comparison:
    """Vectors of all layers from all pairs against a pass per layer and text."""
    work = prepared(folder)
    few = {"do": "extract", "pairs": EXTRACT_SAMPLE}
    timing, _, theirs = in_rounds(
        Side(_side("ours.py", folder), {"do": "extract", "pairs": 2}, {"do": "extract", "pairs": len(work["pairs"])}),
        Side(_side("peer_hooks.py", folder), {"do": "extract", "pairs": 1}, few),
        pairs=min(pairs, ROUNDS),
    )
    with Worker(_side("ours.py", folder)) as worker:
        mine = worker.ask(few)
    same = all(
        math.dist(vector, theirs.result[layer]) <= 1e-4 * math.hypot(*vector) for layer, vector in mine.result.items()
    )
    peer = (
        f"one pass per layer, one text at a time, the LM head included; {EXTRACT_SAMPLE} of {len(work['pairs'])} "
        "pairs, scaled"
    )
    return Comparison.of("extract_vs_per_layer", peer, timing, identical=same)


def _roofline(folder: Path, pairs: int, name: str, request: Mapping[str, Any], what: str) -> Comparison:
    with Worker(_side("ours.py", folder)) as worker:
        shapes = worker.ask({**request, "do": "shapes", "kind": request["do"]}).result
    (folder / "shapes.json").write_text(json.dumps(shapes), encoding="utf-8")
    timing, _, _ = in_rounds(
        Side(_side("ours.py", folder), _SMALL, request),
        Side(_side("peer_products.py", folder), {"do": "products", "count": 200}, {"do": "products"}),
        pairs=min(pairs, ROUNDS),
        scaled=False,
    )
    operations = sum(2 * rows * inputs * outputs for rows, inputs, outputs in shapes)
    peer = f"the matrix products of {what} alone, {operations / 1e12:.1f} TFLOP as {len(shapes)} calls of `torch.mm`"
    return Comparison.of(name, peer, timing, identical=None)


def roofline_prefill(folder: Path, pairs: int) -> Comparison:
    """Reading all prompts in all cells against its matrix products alone."""
    request = full_sweep(prepared(folder)) | {"tokens": 1}
    return _roofline(folder, pairs, "roofline_prefill", request, "reading the prompts")


def roofline_perplexity(folder: Path, pairs: int) -> Comparison:
    """Perplexity of some cells of all layers against its matrix products alone."""
    request = {"do": "perplexity", "cells": sample(len(prepared(folder)["cells"]), ROOF_CELLS)}
    return _roofline(folder, pairs, "roofline_perplexity", request, f"the perplexity of {ROOF_CELLS} cells")


def roofline_sweep(folder: Path, pairs: int) -> Comparison:
    """The sweep, decoding included, against its matrix products alone."""
    request = full_sweep(prepared(folder)) | {"tokens": 10}
    return _roofline(folder, pairs, "roofline_sweep", request, "reading and decoding 10 tokens")


def growth(axis: str, folder: Path, pairs: int) -> Comparison:
    """How the cost grows when one dimension of the sweep doubles: the small one is ours, the doubled one the peer."""
    work = prepared(folder)
    coefficients = len(work["cells"]) // len(work["vectors"])
    size = {"layers": 2, "coefficients": 3, "prompts": 5, "tokens": 20}
    requests = []
    for factor in (1, 2):
        now = {**size, axis: factor * size[axis]}
        cells = [layer * coefficients + place for layer in range(now["layers"]) for place in range(now["coefficients"])]
        requests.append({"do": "sweep", "cells": cells, "prompts": now["prompts"], "tokens": now["tokens"]})
    command = _side("ours.py", folder)
    timing, once, twice = in_rounds(
        Side(command, _SMALL, requests[0]), Side(command, _SMALL, requests[1]), pairs=min(pairs, ROUNDS), scaled=False
    )
    peer = f"twice as many {axis}: {twice.units:.0f} tokens of text, {once.units:.0f} before"
    return Comparison.of(f"growth_{axis}", peer, timing, identical=None)
