"""A training step of a Top-K SAE: ours, the study's and SAELens'."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from measuring import Command, Comparison, MeasurementError
from sweeping import INTEROP
from workers import Side, in_rounds

_HERE = Path(__file__).parent
_STEPS = 20
_WARM_UP = {"do": "train", "steps": 4}
_WORK = {"do": "train", "steps": _STEPS}
WORDS = f"{_STEPS} training steps of an SAE with 2,304 features on 2,048 residuals of width 576, k 32, in float32"


def step_vs_dense(_folder: Path, pairs: int) -> Comparison:
    """By the study's recipe, from the same weights: both end in the same losses."""
    timing, mine, theirs = in_rounds(
        _side("sae_ours.py", "plain"), _side("sae_peers.py", "dense"), pairs=pairs, scaled=False
    )
    # Orders of summation differ, and twenty steps after twenty pass that on.
    same = all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(mine.result, theirs.result, strict=True))
    peer = "dense activations, autograd and Adam, as the study trains; same weights, same recipe"
    return Comparison.of("sae_step_vs_dense", peer, timing, identical=same)


def step_vs_sae_lens(_folder: Path, pairs: int) -> Comparison:
    """Each by its own recipe, on the same residuals; both keep decoder norms out of the activations, and clip.

    Raises:
        MeasurementError: SAELens' environment is not there.
    """
    python = INTEROP / "sae-lens" / "bin" / "python"
    if not python.exists():
        raise MeasurementError(f"{python} is absent: `make bench` builds the environments of the libraries")
    timing, _, _ = in_rounds(
        _side("sae_ours.py", "recommended"),
        _side("sae_peers.py", "sae-lens", python=str(python)),
        pairs=pairs,
        scaled=False,
    )
    peer = "SAELens' trainer with its defaults for Top-K; its recipe is another"
    return Comparison.of("sae_step_vs_sae_lens", peer, timing, identical=None)


def _side(script: str, argument: str, *, python: str = sys.executable) -> Side:
    return Side(Command((python, str(_HERE / script), argument)), _WARM_UP, _WORK)
