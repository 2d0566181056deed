"""Measuring cells on a model: from cells to sweep rows, through the journal.

Invariant: a row is assembled from journalled measurements only, so a resumed run and an uninterrupted one end in the
same rows. A collapsed cell has no text, whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from steer_eval.cells import Cell, Conditions, perplexity_key, random_direction, text_key
from steer_eval.digest import sha256_text, sha256_vector
from steer_eval.errors import SteerEvalError
from steer_eval.evaluation import perplexity
from steer_eval.evaluation.corpus import TokenisedCorpus, tokenise
from steer_eval.evaluation.generation import Generation, Request
from steer_eval.evaluation.grid_generation import generate_grid
from steer_eval.evaluation.grid_perplexity import perplexity_grid
from steer_eval.evaluation.serial import generate_serial
from steer_eval.formats.vector import SteeringVector
from steer_eval.model import LanguageModel
from steer_eval.progress import progress_bar
from steer_eval.results import SweepRow, Text
from steer_eval.run import Journal
from steer_eval.steering.interventions import Add, Intervention
from steer_eval.study import Study

_UNSTEERED = "unsteered"


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that measuring the cells of one model needs.

    Args:
        study: The study.
        model: Name of the model in the study.
        lm: The model, loaded.
        conditions: Its weights and the machine class.
        vectors: Steering vectors by layer.
        prompts: Evaluation prompts.
        corpus: Perplexity corpus.
        journal: Where finished measurements go.
        memory: Bytes that batches may take; None for half of what is free.
    """

    study: Study
    model: str
    lm: LanguageModel
    conditions: Conditions
    vectors: dict[int, SteeringVector]
    prompts: Sequence[str]
    corpus: str
    journal: Journal
    memory: int | None = None

    def direction(self, cell: Cell) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        """What a cell adds to the residual stream at coefficient 1; None for the anchor."""
        if cell.layer is None:
            return None
        values = self.vectors[cell.layer].values
        if cell.label == "random" and self.study.sweep.random_seed is not None:
            return random_direction(values, seed=self.study.sweep.random_seed, layer=cell.layer)
        return values

    def intervention(self, cell: Cell) -> Intervention:
        """A cell's edits."""
        direction = self.direction(cell)
        if direction is None or cell.layer is None:
            return ()
        return (Add(cell.layer, torch.from_numpy(direction), cell.coef),)

    def system_prompt(self, cell: Cell) -> str | None:
        """A cell's system prompt."""
        return self.study.sweep.anchor if cell.label == "anchor" else None

    def edits(self, cell: Cell) -> list[tuple[int, float, str]]:
        """A cell's edits as its content keys have them."""
        direction = self.direction(cell)
        if direction is None or cell.layer is None:
            return []
        return [(cell.layer, cell.coef, sha256_vector(direction))]

    def perplexity_key(self, cell: Cell | None) -> str:
        """Content key of a cell's perplexity, or of the unsteered model's."""
        protocol = self.study.perplexity
        corpus = {"sha256": sha256_text(self.corpus), "window": protocol.window, "beyond": protocol.beyond}
        edits, context = ([], None) if cell is None else (self.edits(cell), self.system_prompt(cell))
        return perplexity_key(self.conditions, edits, context, corpus)

    def text_key(self, cell: Cell, prompt: str) -> str:
        """Content key of a cell's text on one prompt."""
        limit = self.study.sweep.max_new_tokens
        return text_key(self.conditions, self.edits(cell), self.system_prompt(cell), prompt, limit)

    def request(self, cell: Cell, prompt: str) -> Request:
        """What to generate for a cell on one prompt."""
        ids = self.lm.chat_ids(prompt, system=self.system_prompt(cell))
        return Request(tuple(ids), self.intervention(cell))


def measure(bench: Bench, cells: Sequence[Cell], text_cells: Sequence[Cell]) -> list[SweepRow]:
    """Measure cells: the perplexity of all of them, the text of some.

    Args:
        bench: Model, data and journal.
        cells: The cells, in the order of the rows.
        text_cells: Those of them whose text is wanted; collapsed ones are left out.

    Returns:
        One row per cell.
    """
    measure_perplexity(bench, cells)
    collapsed = {cell for cell in cells if _ratio(bench, cell) > bench.study.sweep.collapse_ratio}
    speaking = [cell for cell in text_cells if cell not in collapsed]
    measure_text(bench, speaking)
    return [_row(bench, cell, with_text=cell in speaking) for cell in cells]


def measure_perplexity(bench: Bench, cells: Sequence[Cell]) -> None:
    """Measure the perplexity of cells, and of the unsteered model, unless the journal has it."""
    corpus = tokenise(bench.corpus, bench.lm, bench.study.perplexity)
    wanted: list[Cell | None] = [None, *cells]
    missing = [cell for cell in wanted if bench.perplexity_key(cell) not in bench.journal]
    with progress_bar(f"perplexity {bench.model}", len(wanted), len(wanted) - len(missing)) as advance:
        # Cells with a system prompt see other tokens, so they are a grid of their own.
        for system in sorted({_system(bench, cell) for cell in missing}):
            group = [cell for cell in missing if _system(bench, cell) == system]
            seen = corpus.with_context(bench.lm.system_ids(system)) if system else corpus
            interventions = [() if cell is None else bench.intervention(cell) for cell in group]
            for index, nll in perplexity_grid(bench.lm, seen, interventions, memory=bench.memory):
                _journal_perplexity(bench, group[index], seen, nll)
                advance(1)


def measure_text(bench: Bench, cells: Sequence[Cell]) -> None:
    """Generate the text of cells on all prompts, unless the journal has it."""
    rows = [(cell, prompt) for cell in cells for prompt in bench.prompts]
    missing = [(cell, prompt) for cell, prompt in rows if bench.text_key(cell, prompt) not in bench.journal]
    requests = [bench.request(cell, prompt) for cell, prompt in missing]
    with progress_bar(f"generations {bench.model}", len(rows), len(rows) - len(missing)) as advance:
        for index, generation in generate_grid(
            bench.lm, requests, max_new_tokens=bench.study.sweep.max_new_tokens, memory=bench.memory
        ):
            cell, prompt = missing[index]
            _journal_text(bench, cell, prompt, generation, path=None)
            advance(1)


def settle_text(bench: Bench, cell: Cell, prompt: str) -> None:
    """Generate one row again on the serial path, whose word is final, unless that was done before."""
    record = bench.journal[bench.text_key(cell, prompt)]
    if record.get("path") != "serial":
        limit = bench.study.sweep.max_new_tokens
        generation = generate_serial(bench.lm, bench.request(cell, prompt), max_new_tokens=limit)
        _journal_text(bench, cell, prompt, generation, path="serial")


def _system(bench: Bench, cell: Cell | None) -> str:
    return "" if cell is None else bench.system_prompt(cell) or ""


def _journal_perplexity(bench: Bench, cell: Cell | None, corpus: TokenisedCorpus, nll: perplexity.Floats) -> None:
    sums, counts = corpus.by_sentence(nll)
    if not np.isfinite(sums).all():
        ways = ["take a smaller coefficient"] if cell is not None and cell.coef != 0 else []
        ways += ["set dtype: float32 in study.yaml"] if bench.lm.dtype != "float32" else []
        raise SteerEvalError(
            f"{cell or f'{bench.model} {_UNSTEERED}'}: the log-likelihoods of the corpus are not finite numbers",
            ", or ".join(ways) or "check the model's weights",
        )
    record = {
        "cell": _UNSTEERED if cell is None else str(cell),
        "sentence_nll": [float(value) for value in sums],
        "sentence_tokens": [int(value) for value in counts],
    }
    bench.journal.add(bench.perplexity_key(cell), record)


def _journal_text(bench: Bench, cell: Cell, prompt: str, generation: Generation, path: str | None) -> None:
    tie = generation.tie_at
    record = {
        "cell": str(cell),
        "gen": bench.lm.decode(generation.ids),
        "n_tokens": len(generation.ids),
        "stop": generation.stop,
        "determined": None if tie is None else len(bench.lm.decode(generation.ids[:tie])),
        "path": path,
    }
    bench.journal.add(bench.text_key(cell, prompt), record)


def _sums(bench: Bench, cell: Cell | None) -> tuple[perplexity.Floats, perplexity.Counts]:
    record = bench.journal[bench.perplexity_key(cell)]
    return np.array(record["sentence_nll"]), np.array(record["sentence_tokens"])


def _ratio(bench: Bench, cell: Cell) -> float:
    nll, tokens = _sums(bench, cell)
    return perplexity.ratio(nll, _sums(bench, None)[0], tokens)


def _row(bench: Bench, cell: Cell, *, with_text: bool) -> SweepRow:
    protocol = bench.study.perplexity
    nll, tokens = _sums(bench, cell)
    base_nll, base_tokens = _sums(bench, None)
    base_ppl = perplexity.perplexity(base_nll, base_tokens)
    ppl = perplexity.perplexity(nll, tokens)
    texts = []
    for index, prompt in enumerate(bench.prompts if with_text else ()):
        record = bench.journal[bench.text_key(cell, prompt)]
        texts.append(Text(index, prompt, **{key: value for key, value in record.items() if key != "cell"}))
    interval = perplexity.ratio_interval(
        nll, base_nll, tokens, resamples=protocol.resamples, confidence=protocol.confidence, seed=protocol.seed
    )
    threshold = bench.study.sweep.collapse_ratio
    return SweepRow(
        cell=cell,
        base_ppl=base_ppl,
        ppl=ppl,
        ppl_ratio=ppl / base_ppl,
        collapsed=ppl / base_ppl > threshold,
        generations=tuple(texts),
        interval=interval,
        undecided=interval.spans(threshold),
        sentence_nll=nll,
        sentence_tokens=tokens,
        system_prompt=bench.system_prompt(cell),
    )
