"""Sweeps, perplexities and extraction, held to what one can do without this toolkit.

Invariant: we do all of the work of `grid_work.py`, and peers a part of it, whose time is scaled by what both sides
count: tokens of text, cells of perplexity, contrast pairs. Comparisons with a side in common are measured in the same
rounds; of the sides, only those run that the comparisons asked for have. A text is the peer's up to the first near-tie
of its two largest logits, and texts that part there are counted and listed.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import python_of
from grid_work import ROUNDS, SAMPLE, SMALL, full_sweep, prepared, sample, script
from measuring import Asked, Command, Comparison
from workers import Answer, Request, Rounds, Side, Start, Worker, in_rounds, told_versions, warmed_up

LIBRARIES = ("steering-vectors", "repeng")
EXTRACT_SAMPLE = 4
PERPLEXITY_ROUNDS = 5
"""More than of other groups: what is measured is near to what is required."""
TRIAL_TOKENS = 32
"""Most tokens of the one cell by which the faster library is chosen: few, so that there is time for rounds."""

SWEEPS = {
    "sweep_bf16_vs_serial": ("bfloat16", "serial"),
    "sweep_vs_serial": ("float32", "serial"),
    "sweep_vs_best_peer": ("float32", "library"),
}
"""Our side and the peer's of each comparison of sweeps."""
_SWEEP_TURNS = ("bfloat16", "serial", "float32", "library")
"""The order of turns, in which those that are compared are neighbours."""

PERPLEXITIES = {"perplexity_grid_vs_serial": ("ours", "serial"), "perplexity_grid_vs_lm_eval": ("ours", "lm-eval")}
_PERPLEXITY_TURNS = ("serial", "ours", "lm-eval")


def sweeps(asked: Asked, *, start: Start = Worker) -> list[Comparison]:
    """The full grid, in float32 and bfloat16, against hooks and `generate` and against the faster of two libraries."""
    work, folder = prepared(asked.shared), asked.shared
    turns = _needed(SWEEPS, _SWEEP_TURNS, asked.names)
    whole, tokens, cells = full_sweep(work), work["tokens"], sample(len(work["cells"]))
    sides = {
        "bfloat16": (script("ours.py", folder, "bfloat16"), SMALL, whole),
        "serial": (
            script("peer_hooks.py", folder),
            {"do": "sweep", "rows": [[0, 0]], "tokens": 4},
            {"do": "sweep", "rows": serial_rows(work), "tokens": tokens},
        ),
        "float32": (script("ours.py", folder), SMALL, whole),
    }
    texts = len(work["cells"]) * len(work["prompts"])
    words = {
        "serial": f"a forward hook and `generate` in float32, one text at a time; {SAMPLE} of {texts} texts, scaled "
        "by tokens"
    }
    rows = {"serial": serial_rows(work), "library": [[cell, row] for cell in cells for row in range(whole["prompts"])]}
    if "library" in turns:
        one = {"do": "sweep", "cells": cells[:1]}
        few = {**one, "tokens": min(TRIAL_TOKENS, tokens)}
        trials = library_trials(folder, {**one, "tokens": 4}, few, start=start)
        best = min(trials, key=lambda name: trials[name].cost)
        others = (
            f"{name}, {trial.versions}, takes {trial.cost / trials[best].cost:.2f} times as long, "
            f"{trial.seconds:.1f} s for {trials[best].seconds:.1f} s"
            for name, trial in trials.items()
            if name != best
        )
        sides["library"] = (
            library(best, folder),
            {**one, "tokens": 4},
            {"do": "sweep", "cells": cells, "tokens": tokens},
        )
        words["library"] = (
            f"{best}, {trials[best].versions}, all prompts of a cell in one batch; {len(cells)} of "
            f"{len(work['cells'])} cells, scaled by tokens ({', '.join(others)}: medians of {ROUNDS} rounds of one "
            f"cell, {few['tokens']} tokens)"
        )
    rounds = _measured({turn: sides[turn] for turn in turns}, min(asked.pairs, ROUNDS), start)
    found = []
    for name in asked.names:
        ours, peer = SWEEPS[name]
        same, near_ties = None, None
        # In bfloat16 a text can part from the float32 one anywhere.
        if ours == "float32":
            made = zip(rows[peer], rounds.last(peer).result, strict=True)
            same, near_ties = same_texts(rounds.last(ours), made, work["eos"])
        timing = rounds.timing(ours, peer)
        found.append(Comparison.of(name, words[peer], timing, identical=same, near_ties=near_ties))
    return found


def library(name: str, folder: Path) -> Command:
    """A library's worker, in its own environment.

    Raises:
        MeasurementError: The environment is not there.
    """
    return script("peer_libraries.py", folder, name, python=python_of(name))


@dataclass(frozen=True)
class Trial:
    """A library on a small piece of work.

    Args:
        cost: Median of its seconds per unit.
        seconds: Median of its seconds.
        versions: The versions in its environment, in words.
    """

    cost: float
    seconds: float
    versions: str


def library_trials(folder: Path, warm_up: Request, request: Request, *, start: Start) -> dict[str, Trial]:
    """What each library takes for the same small piece of work, in turn, and what its environment has."""
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(warmed_up(library(name, folder), warm_up, start=start)) for name in LIBRARIES
        }
        versions = {name: told_versions(worker) for name, worker in workers.items()}
        rounds = in_rounds({name: Side(worker, request) for name, worker in workers.items()}, rounds=ROUNDS)
    return {
        name: Trial(
            statistics.median(answers[name].cost for answers in rounds.answers),
            statistics.median(answers[name].seconds for answers in rounds.answers),
            versions[name],
        )
        for name in LIBRARIES
    }


def serial_rows(work: Mapping[str, Any]) -> list[list[int]]:
    """Cells of the sample, each on another prompt."""
    prompts = sample(len(work["prompts"]))
    return [[cell, prompt] for cell, prompt in zip(sample(len(work["cells"])), prompts, strict=True)]


def same_texts(
    mine: Answer, theirs: Iterable[tuple[Sequence[int], Sequence[int]]], eos: Sequence[int]
) -> tuple[bool, tuple[tuple[int, int, int], ...]]:
    """Whether a peer's texts are ours, up to the first near-tie of the two largest logits.

    Args:
        mine: `[cell, prompt, tokens, first near-tie or None]` of each text.
        theirs: `[cell, prompt]` and tokens, the end-of-sequence token included.
        eos: End-of-sequence tokens.

    Returns:
        Whether they are, and `(cell, prompt, token)` of those that part at a near-tie or behind it.
    """
    texts = {(cell, prompt): (ids, tie) for cell, prompt, ids, tie in mine.result}
    same, near_ties = True, []
    for (cell, prompt), tokens in theirs:
        ids, tie = texts[cell, prompt]
        own = tokens[:-1] if tokens and tokens[-1] in eos else tokens
        if list(own[:tie]) != list(ids[:tie]):
            same = False
        elif list(own) != list(ids):
            alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(own, ids, strict=False))
            near_ties.append((cell, prompt, sum(1 for _ in alike)))
    return same, tuple(near_ties)


def perplexities(asked: Asked, *, start: Start = Worker) -> list[Comparison]:
    """Perplexity of all cells against a hook and a forward pass per cell, and against lm-eval's steered model."""
    work, folder = prepared(asked.shared), asked.shared
    every, some = list(range(len(work["cells"]))), sample(len(work["cells"]))
    scripts = {"serial": "peer_hooks.py", "ours": "ours.py", "lm-eval": "peer_lm_eval.py"}
    words = {
        "serial": "a forward hook and a forward pass, one cell and one window at a time",
        "lm-eval": "lm-eval's `steered` model, one cell at a time",
    }
    sides = {
        turn: (
            script(scripts[turn], folder),
            {"do": "perplexity", "cells": some[:1]},
            {"do": "perplexity", "cells": every if turn == "ours" else some},
        )
        for turn in _needed(PERPLEXITIES, _PERPLEXITY_TURNS, asked.names)
    }
    rounds = _measured(sides, min(asked.pairs, PERPLEXITY_ROUNDS), start)
    found = []
    for name in asked.names:
        ours, peer = PERPLEXITIES[name]
        mine, theirs = rounds.last(ours).result, rounds.last(peer).result
        same = all(math.isclose(mine[cell], value, rel_tol=1e-4) for cell, value in zip(some, theirs, strict=True))
        what = f"{words[peer]}; {len(some)} of {len(every)} cells, scaled"
        found.append(Comparison.of(name, what, rounds.timing(ours, peer), identical=same))
    return found


def extract_vs_per_layer(asked: Asked, *, start: Start = Worker) -> list[Comparison]:
    """Vectors of all layers from all pairs against a pass per layer and text."""
    work, folder = prepared(asked.shared), asked.shared
    count = len(work["pairs"])
    few = {"do": "extract", "pairs": min(EXTRACT_SAMPLE, count)}
    with (
        start(script("ours.py", folder)) as ours,
        warmed_up(script("peer_hooks.py", folder), {"do": "extract", "pairs": 1}, start=start) as peer,
    ):
        # What the peer will do, to compare it; it warms up as well.
        mine = ours.ask(few).result
        sides = {"ours": Side(ours, {"do": "extract", "pairs": count}), "peer": Side(peer, few)}
        rounds = in_rounds(sides, rounds=min(asked.pairs, ROUNDS))
    theirs = rounds.last("peer").result
    same = all(math.dist(vector, theirs[layer]) <= 1e-4 * math.hypot(*vector) for layer, vector in mine.items())
    what = f"one pass per layer, one text at a time, the LM head included; {few['pairs']} of {count} pairs, scaled"
    return [Comparison.of("extract_vs_per_layer", what, rounds.timing("ours", "peer"), identical=same)]


def _needed(compared: Mapping[str, tuple[str, str]], turns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Sides of the comparisons asked for, in the order of their turns."""
    needed = {side for name in names for side in compared[name]}
    return [turn for turn in turns if turn in needed]


def _measured(sides: Mapping[str, tuple[Command, Request, Request]], count: int, start: Start) -> Rounds:
    """Measure sides, each given as its command, what warms it up and what it does."""
    with ExitStack() as stack:
        running = {
            name: Side(stack.enter_context(warmed_up(command, warm_up, start=start)), request)
            for name, (command, warm_up, request) in sides.items()
        }
        return in_rounds(running, rounds=count)
