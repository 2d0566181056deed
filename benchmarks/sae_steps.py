"""A training step of a Top-K SAE: ours, the study's and SAELens'."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from environments import python_of
from measuring import Asked, Command, Comparison
from workers import Rounds, Side, Worker, in_rounds, told_versions, warmed_up

_HERE = Path(__file__).parent
LIBRARY = "sae-lens"
_STEPS = 20
_PAIRS = 7
"""Enough for their spread."""
_WARM_UP = {"do": "train", "steps": 4}
_WORK = {"do": "train", "steps": _STEPS}
WORDS = f"{_STEPS} training steps of an SAE with 2,304 features on 2,048 residuals of width 576, k 32, in float32"


def step_vs_dense(asked: Asked) -> list[Comparison]:
    """By the study's recipe, from the same weights: both end in the same losses."""
    ours, dense = _script("sae_ours.py", "plain"), _script("sae_peers.py", "dense")
    with warmed_up(ours, _WARM_UP) as mine, warmed_up(dense, _WARM_UP) as theirs:
        rounds = _measured(mine, theirs, asked.pairs)
    losses = zip(rounds.last("ours").result, rounds.last("peer").result, strict=True)
    # Orders of summation differ, and twenty steps after twenty pass that on.
    same = all(math.isclose(one, other, rel_tol=1e-3) for one, other in losses)
    peer = "dense activations, autograd and Adam, as the study trains; same weights, same recipe"
    return [Comparison.of("sae_step_vs_dense", peer, rounds.timing("ours", "peer", scaled=False), identical=same)]


def step_vs_sae_lens(asked: Asked) -> list[Comparison]:
    """Each by its own recipe, on the same residuals; both keep decoder norms out of the activations, and clip."""
    ours, trainer = _script("sae_ours.py", "recommended"), _script("sae_peers.py", LIBRARY, python=python_of(LIBRARY))
    with warmed_up(ours, _WARM_UP) as mine, warmed_up(trainer, _WARM_UP) as theirs:
        peer = f"the trainer of SAELens, {told_versions(theirs)}, with its defaults for Top-K; its recipe is another"
        rounds = _measured(mine, theirs, asked.pairs)
    return [Comparison.of("sae_step_vs_sae_lens", peer, rounds.timing("ours", "peer", scaled=False), identical=None)]


def _measured(mine: Worker, theirs: Worker, pairs: int) -> Rounds:
    return in_rounds({"ours": Side(mine, _WORK), "peer": Side(theirs, _WORK)}, rounds=min(pairs, _PAIRS))


def _script(name: str, argument: str, *, python: str = sys.executable) -> Command:
    return Command((python, str(_HERE / name), argument))
