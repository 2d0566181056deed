"""Results: the typed tables that claims, cards and reports are computed from.

Invariant: published and reproduced results are this same type and are read by the same code (`results_files.py`), so
that comparing two is comparing two equal things. What could not be read is kept with its reason, never dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from steer_eval.cells import Cell
from steer_eval.claims.claim import Label
from steer_eval.contrast import ContrastPair
from steer_eval.environment import Environment
from steer_eval.evaluation.perplexity import Counts, Floats, Interval
from steer_eval.formats.vector import SteeringVector, file_name

if TYPE_CHECKING:
    from steer_eval.claims.facts import Facts
    from steer_eval.formats.sae import SaeOutline
    from steer_eval.judge.tables import JudgeTable
    from steer_eval.table_configs import TableConfig


@dataclass(frozen=True)
class Text:
    """One greedy generation as published.

    Args:
        prompt_idx: Index of the prompt in the evaluation prompts.
        prompt: The prompt.
        gen: The continuation.
        n_tokens: Its tokens; None where the publisher did not say.
        stop: Why it ended: `eos` or `length`.
        determined: Characters before the first near-tie of the two largest logits; None if there is no near-tie.
        path: `serial` if the row was generated again on the serial path.
    """

    prompt_idx: int
    prompt: str
    gen: str
    n_tokens: int | None = None
    stop: str | None = None
    determined: int | None = None
    path: str | None = None

    def same_as(self, published: Text) -> bool:
        """Whether a published text is this one: identical up to this one's first near-tie."""
        if self.prompt != published.prompt:
            return False
        if self.determined is None:
            return self.gen == published.gen
        return published.gen.startswith(self.gen[: self.determined])


@dataclass(frozen=True, eq=False)
class SweepRow:
    """One cell of a sweep.

    Args:
        cell: Which cell.
        base_ppl: Perplexity of the corpus under the unsteered model.
        ppl: Perplexity under the steered model.
        ppl_ratio: Their ratio, as published.
        collapsed: Whether the ratio lies above the study's collapse ratio, as published.
        generations: Greedy texts, in the order of the prompts; empty for a collapsed cell.
        interval: Sentence-bootstrap interval of the ratio, where published.
        undecided: Whether the interval spans the collapse ratio, as published.
        sentence_nll: Summed negative log-likelihood per sentence in nats `[sentences]`, where published.
        sentence_tokens: Scored tokens per sentence `[sentences]`, where published.
        system_prompt: The anchor's system prompt.
        line: Line in the file that it was read from.
        edits: In a comparison of methods, what happens to the residual stream (`schemas/comparison_row.schema.json`).
        corpus_after: Index of the prompt as whose reply the corpus was scored, steered and unsteered; None where it was
            scored by itself.
        base_sentence_nll: The unsteered model's sums in that place `[sentences]`.
    """

    cell: Cell
    base_ppl: float
    ppl: float
    ppl_ratio: float
    collapsed: bool
    generations: tuple[Text, ...]
    interval: Interval | None = None
    undecided: bool | None = None
    sentence_nll: Floats | None = None
    sentence_tokens: Counts | None = None
    system_prompt: str | None = None
    line: int | None = None
    edits: tuple[Mapping[str, Any], ...] | None = None
    corpus_after: int | None = None
    base_sentence_nll: Floats | None = None

    def collapse_undecided(self, threshold: float) -> bool:
        """Whether the ratio's interval spans the collapse ratio."""
        return self.interval is not None and self.interval.spans(threshold)


@dataclass(frozen=True, eq=False)
class Sweep:
    """All measured cells of one model, and the file they stand in."""

    file: str
    rows: tuple[SweepRow, ...]

    def find(self, cell: Cell) -> SweepRow | None:
        """The row of a cell."""
        return next((row for row in self.rows if row.cell == cell), None)

    def labelled(self, label: Label, *, layer: int | None = None) -> Iterator[SweepRow]:
        """Rows with a label, of one layer if asked."""
        return (row for row in self.rows if row.cell.label == label and layer in (None, row.cell.layer))


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that a study measured, from one place.

    Args:
        sweeps: By model.
        vectors: By model and layer.
        vector_files: Paths of the vectors, by model and layer.
        facts: What judges, feature tables and variants say; None where these files were not read.
        pairs: Contrast pairs; None where the file is absent.
        prompts: Evaluation prompts; None where the file is absent.
        corpus: Perplexity corpus; None where the file is absent.
        environments: What each model's sweep was measured on.
        weights: SHA-256 of the weights that each model's sweep was measured with.
        unusable: For files that could not be used, why.
        tables: The tables of the dataset repo, as they can be loaded; empty where they were not looked at.
        judges: Tables of judges' scores, as cards show them.
        comparisons: Rows of the comparison of methods, by model.
        saes: How good each SAE is (`schemas/sae_quality.schema.json`), by model and layer.
        sae_outlines: What each SAE says of itself, its values not read, by model and layer.
        feature_tables: Feature tables (`schemas/features.schema.json`), by model and layer.
        transfers: Diagnostics of each transfer (`schemas/transfer_diagnostics.schema.json`), by its name.
    """

    sweeps: Mapping[str, Sweep]
    vectors: Mapping[tuple[str, int], SteeringVector]
    pairs: tuple[ContrastPair, ...] | None = None
    prompts: tuple[str, ...] | None = None
    corpus: str | None = None
    environments: Mapping[str, Environment] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    vector_files: Mapping[tuple[str, int], str] = field(default_factory=dict)
    facts: Facts | None = None
    tables: tuple[TableConfig, ...] = ()
    judges: tuple[JudgeTable, ...] = ()
    comparisons: Mapping[str, Sweep] = field(default_factory=dict)
    saes: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    sae_outlines: Mapping[tuple[str, int], SaeOutline] = field(default_factory=dict)
    feature_tables: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    transfers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def vector_file(self, model: str, layer: int) -> str:
        """Path of a vector; where it would be if it is absent."""
        return self.vector_files.get((model, layer), file_name(model, layer))

    def why_absent(self, file: str) -> str:
        """Reason why a file gives no results."""
        return f"{file}: {self.unusable.get(file, 'not measured')}"


def sentence_perplexity(row: SweepRow) -> float | None:
    """Perplexity recomputed from a row's per-sentence sums, or None where it has none."""
    if row.sentence_nll is None or row.sentence_tokens is None:
        return None
    with np.errstate(over="ignore"):
        return float(np.exp(row.sentence_nll.sum() / row.sentence_tokens.sum()))
