"""What the speed comparisons do: the packaged study's grid as requests, and who answers them.

Invariant: both sides do the same work, which `prepare.py` writes down once for all comparisons of a run: the packaged
study's model, vectors, cells, prompts and corpus. Peers do a fixed part of it, spread over all layers, coefficients and
prompts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring import Command, run

_HERE = Path(__file__).parent
ROUNDS = 3
SAMPLE = 6
SMALL = {"do": "sweep", "cells": [0], "prompts": 2, "tokens": 4}
"""A request that warms up."""


def prepared(folder: Path) -> dict[str, Any]:
    """The work in a folder, which is written there if nobody did so yet."""
    path = folder / "work.json"
    if not path.exists():
        run([Command((sys.executable, str(_HERE / "prepare.py"), str(folder)))])
    work: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return work


def script(name: str, folder: Path, *arguments: str, python: str = sys.executable) -> Command:
    """A worker of ours or of a peer, on the work in a folder."""
    return Command((python, str(_HERE / name), str(folder), *arguments))


def sample(count: int, size: int = SAMPLE) -> list[int]:
    """So many of the first numbers, from all parts alike."""
    size = min(size, count)
    return [(2 * number + 1) * count // (2 * size) for number in range(size)]


def full_sweep(work: Mapping[str, Any]) -> dict[str, Any]:
    """The request for all cells and prompts."""
    cells = list(range(len(work["cells"])))
    return {"do": "sweep", "cells": cells, "prompts": len(work["prompts"]), "tokens": work["tokens"]}
