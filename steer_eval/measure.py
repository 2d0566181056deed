"""Measuring cells on a model: from cells to sweep rows, through the journal.

Invariant: a row is assembled from journalled measurements only, so a resumed run and an uninterrupted one end in the
same rows. A collapsed cell has no text, whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from steer_eval.cells import Cell, Conditions, perplexity_key, prompts_of, random_direction, text_key
from steer_eval.digest import sha256_text
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
from steer_eval.steering.interventions import Add
from steer_eval.study import Study
from steer_eval.treatment import Treatment

if TYPE_CHECKING:
    from steer_eval.comparison.methods import Comparison

_UNSTEERED = "unsteered"
_PLAN_COMPARISON = "plan it under `comparisons:` in study.yaml (docs/study-format.md)"


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that measuring the cells of one model needs.

    Args:
        study: The study.
        model: Name of the model in the study.
        lm: The model, loaded.
        conditions: Its weights, and what else decides tokens and arithmetic.
        vectors: Steering vectors by layer.
        prompts: Evaluation prompts.
        corpus: Perplexity corpus.
        journal: Where finished measurements go.
        memory: Bytes that batches may take; None for half of what is free.
        comparison: The comparison of methods, where the study has one.
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
    comparison: Comparison | None = None

    def prompts_of(self, cell: Cell) -> Sequence[str]:
        """The prompts that a cell has text on."""
        return prompts_of(self.study, cell, self.prompts)

    def treatment(self, cell: Cell) -> Treatment:
        """What is done to a cell's rows.

        Raises:
            SteerEvalError: The cell is one of a comparison, and something that its method needs is absent or bad.
        """
        if cell.variant is not None:
            if self.comparison is None:
                raise SteerEvalError(f"{cell}: the study compares no methods on {self.model}", _PLAN_COMPARISON)
            return self.comparison.treatment(cell)
        if cell.layer is None:
            return Treatment(system=self.study.sweep.anchor if cell.label == "anchor" else None)
        values = self.vectors[cell.layer].values
        if cell.label == "random" and self.study.sweep.random_seed is not None:
            values = random_direction(values, seed=self.study.sweep.random_seed, layer=cell.layer)
        return Treatment((Add(cell.layer, torch.from_numpy(values), cell.coef),))

    def perplexity_key(self, cell: Cell | None) -> str:
        """Content key of a cell's perplexity, or of the unsteered model's."""
        return self.corpus_key(Treatment() if cell is None else self.treatment(cell))

    def corpus_key(self, treatment: Treatment) -> str:
        """Content key of a treatment's perplexity."""
        protocol = self.study.perplexity
        corpus = {"sha256": sha256_text(self.corpus), "window": protocol.window, "beyond": protocol.beyond}
        return perplexity_key(self.conditions, treatment.keys(), treatment.context, corpus)

    def text_key(self, cell: Cell, prompt: str) -> str:
        """Content key of a cell's text on one prompt."""
        limit, treatment = self.study.sweep.max_new_tokens, self.treatment(cell)
        return text_key(self.conditions, treatment.keys(), treatment.system, prompt, limit)

    def request(self, cell: Cell, prompt: str) -> Request:
        """What to generate for a cell on one prompt."""
        treatment = self.treatment(cell)
        ids = self.lm.chat_ids(prompt, system=treatment.system)
        return Request(tuple(ids), treatment.intervention(prompt))


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
    """Measure the perplexity of cells, and of the unsteered model in the same place, unless the journal has it.

    Cells that are the same by their content are measured once.
    """
    corpus = tokenise(bench.corpus, bench.lm, bench.study.perplexity)
    wanted = {bench.perplexity_key(None): _Scored(None, Treatment())}
    for cell in cells:
        treatment = bench.treatment(cell)
        for scored in (_Scored(None, treatment.unsteered), _Scored(cell, treatment)):
            wanted.setdefault(bench.corpus_key(scored.treatment), scored)
    missing = [scored for key, scored in wanted.items() if key not in bench.journal]
    # Cells with other tokens before the corpus see other tokens, so they are a grid of their own.
    groups: dict[tuple[int, ...], list[_Scored]] = {}
    for scored in missing:
        groups.setdefault(_context_ids(bench, scored.treatment), []).append(scored)
    with progress_bar(f"perplexity {bench.model}", len(wanted), len(wanted) - len(missing)) as advance:
        for context, group in groups.items():
            seen = corpus.with_context(context) if context else corpus
            interventions = [scored.treatment.intervention(scored.treatment.after) for scored in group]
            for index, nll in perplexity_grid(bench.lm, seen, interventions, memory=bench.memory):
                _journal_perplexity(bench, group[index], seen, nll)
                advance(1)


def measure_text(bench: Bench, cells: Sequence[Cell]) -> None:
    """Generate the text of cells on their prompts, unless the journal has it; once, where cells are the same."""
    rows: dict[str, tuple[Cell, str]] = {}
    for cell in cells:
        for prompt in bench.prompts_of(cell):
            rows.setdefault(bench.text_key(cell, prompt), (cell, prompt))
    missing = [row for key, row in rows.items() if key not in bench.journal]
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


@dataclass(frozen=True, eq=False)
class _Scored:
    """A treatment whose perplexity is wanted, and the cell that it is of; None for the unsteered model."""

    cell: Cell | None
    treatment: Treatment


def _context_ids(bench: Bench, treatment: Treatment) -> tuple[int, ...]:
    """Tokens before each window of the corpus."""
    if treatment.after is not None:
        return tuple(bench.lm.chat_ids(treatment.after, system=treatment.system))
    return tuple(bench.lm.system_ids(treatment.system)) if treatment.system else ()


def _journal_perplexity(bench: Bench, scored: _Scored, corpus: TokenisedCorpus, nll: perplexity.Floats) -> None:
    sums, counts = corpus.by_sentence(nll)
    cell = scored.cell
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
    bench.journal.add(bench.corpus_key(scored.treatment), record)


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


def _sums(bench: Bench, treatment: Treatment) -> tuple[perplexity.Floats, perplexity.Counts]:
    record = bench.journal[bench.corpus_key(treatment)]
    return np.array(record["sentence_nll"]), np.array(record["sentence_tokens"])


def _ratio(bench: Bench, cell: Cell) -> float:
    treatment = bench.treatment(cell)
    nll, tokens = _sums(bench, treatment)
    return perplexity.ratio(nll, _sums(bench, treatment.unsteered)[0], tokens)


def _row(bench: Bench, cell: Cell, *, with_text: bool) -> SweepRow:
    protocol = bench.study.perplexity
    treatment = bench.treatment(cell)
    nll, tokens = _sums(bench, treatment)
    base_nll, base_tokens = _sums(bench, treatment.unsteered)
    base_ppl = perplexity.perplexity(base_nll, base_tokens)
    ppl = perplexity.perplexity(nll, tokens)
    texts = []
    for index, prompt in enumerate(bench.prompts_of(cell) if with_text else ()):
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
        system_prompt=treatment.system,
        edits=None if cell.variant is None else treatment.to_json(),
        corpus_after=None if treatment.after is None else bench.prompts.index(treatment.after),
        base_sentence_nll=None if treatment.after is None else base_nll,
    )
