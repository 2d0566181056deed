"""The sides of the speed comparisons, on a tiny model: each does its part as a process, and all agree.

One process per script stays for all tests here. Times are real and mean nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import limits
import pytest
import run
import sweeping
import torch
from grid_work import SAMPLE, sample
from measuring import Asked, Command
from products import BATCHED, LINEAR, Product
from tiny_models import BLOCKS, HIDDEN, SPECIAL_TOKENS, TEXT, tiny_config, tiny_tokenizer
from transformers import LlamaForCausalLM
from workers import Answer, Worker

COEFFICIENTS = (-3.0, -1.0, 0.0, 1.0, 2.0, 3.0)
PROMPTS = 10
TOKENS = 5


def tiny_work(folder: Path) -> dict[str, Any]:
    """What `prepare.py` writes, of a random Llama."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    eos = tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS[3])
    config = tiny_config("llama")
    config.eos_token_id = eos
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    ids = tokenizer(TEXT).input_ids
    starts = torch.randperm(len(ids) - 20)[:40].tolist()
    pieces = [ids[start : start + 4 + number % 3] for number, start in enumerate(starts)]
    return {
        "model": str(folder / "model"),
        "vectors": {str(layer): torch.randn(HIDDEN).tolist() for layer in range(BLOCKS)},
        "cells": [[layer, coefficient] for layer in range(BLOCKS) for coefficient in COEFFICIENTS],
        "prompts": pieces[:PROMPTS],
        "tokens": TOKENS,
        "eos": [eos],
        "windows": [ids[:24], ids[24:41]],
        "pairs": [pieces[place : place + 3] for place in range(10, 36, 2)],
    }


class Pool:
    """Starts each worker once and lets it stay; remembers who was asked for what.

    A library is played by the hooks, row by row, at a known cost: its environment is no test's business.
    """

    def __init__(self) -> None:
        self.running: dict[tuple[str, ...], Worker] = {}
        self.asked: list[tuple[str, str]] = []

    def __call__(self, command: Command) -> Pool._One:
        return Pool._One(self, command.arguments)

    def answer(self, arguments: tuple[str, ...], request: dict[str, Any]) -> Answer:
        python, script, folder, *rest = arguments
        if Path(script).name == "peer_libraries.py":
            [library] = rest
            self.asked.append((library, request["do"]))
            if request["do"] == "versions":
                return Answer(
                    1.0, 2, {library: "1.2", "transformers": {"steering-vectors": "4.0", "repeng": "5.0"}[library]}
                )
            rows = [[cell, prompt] for cell in request["cells"] for prompt in range(PROMPTS)]
            hooks = (python, str(Path(script).with_name("peer_hooks.py")), folder)
            made = self._worker(hooks).ask({"do": "sweep", "rows": rows, "tokens": request["tokens"]})
            return replace(made, seconds=made.units * {"steering-vectors": 3.0, "repeng": 2.0}[library])
        self.asked.append((" ".join([Path(script).stem, *rest]), request["do"]))
        return self._worker(arguments).ask(request)

    def _worker(self, arguments: tuple[str, ...]) -> Worker:
        if arguments not in self.running:
            self.running[arguments] = Worker(Command(arguments))
        return self.running[arguments]

    class _One:
        peak_mb = 1e6

        def __init__(self, pool: Pool, arguments: tuple[str, ...]) -> None:
            self.pool, self.arguments = pool, arguments

        def __enter__(self) -> Pool._One:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def ask(self, request: dict[str, Any]) -> Answer:
            return self.pool.answer(self.arguments, request)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("work")
    (folder / "work.json").write_text(json.dumps(tiny_work(folder)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def running() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    for worker in pool.running.values():
        worker.__exit__(None, None, None)


@pytest.fixture
def pool(running: Pool, monkeypatch) -> Pool:
    monkeypatch.setattr(sweeping, "python_of", lambda _library: sys.executable)
    running.asked.clear()
    return running


@pytest.fixture
def asked(work: Path, tmp_path: Path):
    return lambda *names: Asked(names, 9, tmp_path, work)


def test_sweeps_share_the_turns_of_their_sides_and_give_the_same_texts(pool, asked):
    names = ("sweep_vs_serial", "sweep_vs_best_peer", "sweep_bf16_vs_serial")
    found = {each.name: each for each in sweeping.sweeps(asked(*names), start=pool)}

    assert tuple(found) == names
    assert {name: each.identical for name, each in found.items()} == {
        "sweep_vs_serial": True,
        "sweep_vs_best_peer": True,
        "sweep_bf16_vs_serial": None,
    }
    # The faster library is chosen by three rounds of one cell, after a warm-up each.
    libraries = ("steering-vectors", "repeng")
    trial, rest = pool.asked[:10], pool.asked[10:]
    assert trial == [(name, do) for do in ("sweep", "versions", *["sweep"] * 3) for name in libraries]
    turn = [(side, "sweep") for side in ("ours bfloat16", "peer_hooks", "ours", "repeng")]
    assert rest == turn * (1 + 3)
    peer = found["sweep_vs_best_peer"].peer
    assert peer.startswith(
        "repeng, 1.2 on transformers 5.0, all prompts of a cell in one batch; 6 of 24 cells, scaled by tokens "
        "(steering-vectors, 1.2 on transformers 4.0, takes 1.50 times as long, "
    )
    seconds = re.search(r"long, (.*) s for (.*) s: medians of 3 rounds of one cell, 5 tokens\)$", peer).groups()
    assert float(seconds[0]) == pytest.approx(1.5 * float(seconds[1]), rel=0.01)
    assert {each.pairs for each in found.values()} == {3}
    assert {each.near_ties is None for each in found.values() if each.identical is None} == {True}
    assert all(each.near_ties is not None for each in found.values() if each.identical)
    # Both are held to the same turns of the serial loop.
    assert found["sweep_vs_serial"].peer.endswith(f"one text at a time; {SAMPLE} of 240 texts, scaled by tokens")


def test_one_sweep_alone_starts_only_its_sides(pool, asked):
    [found] = sweeping.sweeps(asked("sweep_bf16_vs_serial"), start=pool)

    assert found.name == "sweep_bf16_vs_serial"
    assert {side for side, _ in pool.asked} == {"ours bfloat16", "peer_hooks"}


def test_perplexities_agree_with_both_peers(pool, asked):
    found = sweeping.perplexities(asked("perplexity_grid_vs_lm_eval", "perplexity_grid_vs_serial"), start=pool)

    assert [(each.name, each.identical) for each in found] == [
        ("perplexity_grid_vs_lm_eval", True),
        ("perplexity_grid_vs_serial", True),
    ]
    assert pool.asked == [(side, "perplexity") for side in ("peer_hooks", "ours", "peer_lm_eval")] * (1 + 5)


def test_extraction_agrees_with_a_pass_per_layer_and_text(pool, asked):
    [found] = sweeping.extract_vs_per_layer(asked("extract_vs_per_layer"), start=pool)

    assert found.identical is True
    assert found.peer.endswith("4 of 13 pairs, scaled")


class Mistaken(Pool._One):
    """Steers in the cell after the one that it is asked for."""

    def ask(self, request: dict[str, Any]) -> Answer:
        if "rows" in request:
            request = {**request, "rows": [[cell + 1, prompt] for cell, prompt in request["rows"]]}
        elif "cells" in request:
            request = {**request, "cells": [cell + 1 for cell in request["cells"]]}
        return super().ask(request)


def test_a_peer_that_does_something_else_is_noticed(pool, asked):
    def start(command: Command) -> Pool._One:
        ours = Path(command.arguments[1]).name == "ours.py"
        return (Pool._One if ours else Mistaken)(pool, command.arguments)

    found = [
        *sweeping.sweeps(asked("sweep_vs_serial", "sweep_vs_best_peer"), start=start),
        *sweeping.perplexities(asked("perplexity_grid_vs_serial"), start=start),
    ]
    assert [each.identical for each in found] == [False] * 3


@pytest.mark.parametrize(("name", "dtype"), [("roofline_prefill", ""), ("roofline_sweep_bf16", " bfloat16")])
def test_rooflines_are_the_products_of_the_same_work(pool, asked, work, tmp_path, name, dtype):
    found = limits.rooflines(asked(name), start=pool)

    mine, peer = f"ours{dtype}", f"peer_products{dtype}"
    turns = [(mine, "sweep"), (peer, "products")]
    assert [(each.name, each.identical) for each in found] == [(name, None)]
    assert pool.asked == [(mine, "sweep"), (mine, "shapes"), (peer, "choose"), *turns * 3]
    noted = [Product(*each) for each in json.loads((tmp_path / "shapes.json").read_text(encoding="utf-8"))]
    # The unsteered model reads every prompt whole, and cells read parts of them again.
    prompts = json.loads((work / "work.json").read_text(encoding="utf-8"))["prompts"][:5]
    linear = [each for each in noted if each.kind == LINEAR]
    downwards = sum(each.rows for each in linear if (each.inner, each.outputs) == (2 * HIDDEN, HIDDEN))
    assert downwards > BLOCKS * sum(map(len, prompts))
    # Each block's attention is two more.
    batched = [each for each in noted if each.kind == BATCHED and each.inner > 1]
    assert len(batched) >= 2 * BLOCKS * len(prompts)
    assert f" TFLOP in {len(noted)} calls at " in found[0].peer
    packed = int(re.search(r"(\d+) calls with packed", found[0].peer)[1])
    assert 0 <= packed <= len(linear)


def test_growth_is_held_to_one_small_sweep(pool, asked):
    names = ("growth_tokens", "growth_layers", "growth_coefficients", "growth_prompts")
    found = {each.name: each for each in limits.growth(asked(*names), start=pool)}

    assert tuple(found) == names
    # Two warm-ups, then the small one and the four larger ones, twice and four times, in each round.
    assert pool.asked == [("ours", "sweep")] * (2 + 3 * 9)
    # Every comparison has the same small one before it.
    assert len({(each.ours_s, each.peer.rpartition(", ")[2]) for each in found.values()}) == 1
    for each in found.values():
        once, twice, fourfold = each.points
        assert (once.times, once.ratio, once.seconds) == (1, 1.0, each.ours_s)
        assert (twice.times, twice.ratio, twice.seconds) == (2, each.ratio, each.peer_s)
        assert fourfold.times == 4


def test_sweeps_grow_in_one_thing(work):
    given = limits.growing_work(json.loads((work / "work.json").read_text(encoding="utf-8")))
    small = limits.grown_sweep()
    layers = {given["cells"][cell][0] for cell in small["cells"]}
    assert (len(small["cells"]), len(layers), small["prompts"], small["tokens"]) == (6, 1, 5, 12)
    for axis in limits.GROWTH.values():
        for times in limits.TIMES:
            grown = limits.grown_sweep(axis, times)
            size = len(grown["cells"]) * grown["prompts"] * grown["tokens"]
            assert size == times * len(small["cells"]) * small["prompts"] * small["tokens"]
            assert set(small["cells"]) <= set(grown["cells"])
    for axis, place, count in (("layers", 0, 4), ("coefficients", 1, 24)):
        cells = limits.grown_sweep(axis, 4)["cells"]
        assert len({given["cells"][cell][place] for cell in cells}) == count
    assert len({tuple(cell) for cell in given["cells"]}) == len(given["cells"])
    assert len(given["prompts"]) == 20
    # Coefficients stay among those of the study.
    assert {min(COEFFICIENTS), max(COEFFICIENTS)} <= {coefficient for _, coefficient in given["cells"]}
    assert all(min(COEFFICIENTS) <= coefficient <= max(COEFFICIENTS) for _, coefficient in given["cells"])


def test_the_sample_is_spread_over_layers_coefficients_and_prompts():
    layers, coefficients, prompts = 5, 7, 10
    given = {"cells": [[layer, c] for layer in range(layers) for c in range(coefficients)], "prompts": [[]] * prompts}
    rows = sweeping.serial_rows(given)
    assert len(rows) == SAMPLE
    cells = [given["cells"][cell] for cell, _ in rows]
    assert {layer for layer, _ in cells} == set(range(layers))
    assert len({coefficient for _, coefficient in cells}) >= 5
    assert len({prompt for _, prompt in rows}) == SAMPLE
    assert sample(2) == [0, 1]


@pytest.mark.parametrize(
    ("tokens", "tie", "same", "parted"),
    [
        ([5, 6, 7], None, True, None),
        ([5, 6, 7, 2], None, True, None),
        ([5, 6, 7], 1, True, None),
        ([5, 6, 8], None, False, None),
        ([5, 6], None, False, None),
        ([5, 6, 8], 2, True, 2),
        ([5, 6, 8], 1, True, 2),
        ([5, 6, 2], 2, True, 2),
        ([5, 6, 7, 8], 2, True, 3),
        ([5, 9, 8], 2, False, None),
    ],
)
def test_texts_are_the_same_up_to_a_near_tie_and_those_that_part_there_are_listed(tokens, tie, same, parted):
    mine = Answer(1.0, 3, [[0, 4, [5, 6, 7], tie], [1, 0, [3], None]])
    places = () if parted is None else ((0, 4, parted),)
    assert sweeping.same_texts(mine, [((0, 4), tokens), ((1, 0), [3, 2])], eos=[2]) == (same, places)


def test_every_comparison_of_the_plan_is_registered_with_the_group_that_knows_it():
    assert {
        "sweep_vs_serial",
        "sweep_vs_best_peer",
        "sweep_bf16_vs_serial",
        "perplexity_grid_vs_serial",
        "extract_vs_per_layer",
        "roofline_prefill",
        "start_help",
        "start_validate",
        "start_model",
    } <= run.BENCHMARKS.keys()
    together = run.grouped(list(run.BENCHMARKS), run.BENCHMARKS)
    assert set(together[sweeping.sweeps]) == set(sweeping.SWEEPS)
    assert set(together[sweeping.perplexities]) == set(sweeping.PERPLEXITIES)
    assert set(together[limits.rooflines]) == set(limits.ROOFLINES)
    assert set(together[limits.growth]) == set(limits.GROWTH)
