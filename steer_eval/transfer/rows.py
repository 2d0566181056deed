"""Paired rows: the residuals of two models, or of two layers of one, for the same texts.

Invariant: row i of the source and row i of the target stand at the same place of the same text, whatever the
tokenizers. Each model reads each text once and stops at its last wanted block. Texts of about one length share a batch
and are filled up on the right, where nothing that is before sees it, in recurrent layers neither; what is read at the
filling is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.memory import Budget, out_of_memory, smaller
from steer_eval.model import LanguageModel
from steer_eval.sae.sinks import is_sink, sink_norm
from steer_eval.steering.hooks import captured, residual
from steer_eval.transfer.heldout import PairedRows
from steer_eval.transfer.maps import Floats
from steer_eval.transfer.protocol import Rows
from steer_eval.transfer.variation import check_rows
from steer_eval.transfer.words import Passage, Tokens, word_tokens

TOKENS_PER_BATCH = 2048
LEAST_ROWS = 12
LEAST_TEXTS = 6

Advance = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Side:
    """One end of a map.

    Args:
        lm: The model.
        layer: Index of the decoder block whose output the rows are of, from 0.
    """

    lm: LanguageModel
    layer: int


@dataclass(frozen=True, eq=False)
class Read:
    """What one model makes of some texts at one layer.

    Args:
        tokens: The texts in its tokens.
        residuals: For each text float32 `[tokens, hidden_size]`.
    """

    tokens: Sequence[Tokens]
    residuals: Sequence[Tensor]


def paired_rows(
    source: Side,
    target: Side,
    texts: Sequence[Passage],
    rows: Rows,
    *,
    memory: int | None = None,
    on_texts: Advance = lambda _done: None,
) -> PairedRows:
    """Collect paired rows.

    Args:
        source: Where maps lead from.
        target: Where they lead to.
        texts: The texts; rows of one document are never on both sides of a split.
        rows: What a row is.
        memory: Bytes that batches may take; None for half of what is free.
        on_texts: Called with the number of texts just read, per model.

    Raises:
        SteerEvalError: There are too few rows or documents to fit and to measure on.
    """
    layers: dict[int, set[int]] = {}
    for side in (source, target):
        layers.setdefault(id(side.lm), set()).add(side.layer)
    models = {id(side.lm): side.lm for side in (source, target)}
    found = {
        key: read_texts(lm, sorted(layers[key]), texts, rows, memory=memory, on_texts=on_texts)
        for key, lm in models.items()
    }
    return pair(found[id(source.lm)][source.layer], found[id(target.lm)][target.layer], texts, rows)


def read_texts(
    lm: LanguageModel,
    layers: Sequence[int],
    texts: Sequence[Passage],
    rows: Rows,
    *,
    memory: int | None = None,
    on_texts: Advance = lambda _done: None,
) -> dict[int, Read]:
    """Read texts with one end of a map, or with both ends if they are layers of one model.

    Args:
        lm: The model.
        layers: Which layers.
        texts: The texts.
        rows: What a row is.
        memory: Bytes that batches may take; None for half of what is free.
        on_texts: Called with the number of texts just read.

    Returns:
        What was read, by layer.
    """
    tokens = [_tokens(lm, passage.text, rows) for passage in texts]
    found = residuals(lm, [each.ids for each in tokens], layers, memory=memory, on_texts=on_texts)
    return {layer: Read(tokens, by_text) for layer, by_text in found.items()}


def pair(source: Read, target: Read, texts: Sequence[Passage], rows: Rows) -> PairedRows:
    """Pair the rows of what both ends read.

    Args:
        source: What the model read that maps lead from.
        target: What the one read that they lead to.
        texts: The texts; rows of one document are never on both sides of a split.
        rows: What a row is.

    Raises:
        SteerEvalError: There are too few rows or documents to fit and to measure on, or all rows of an end are alike.
    """
    sides = [(each.tokens, each.residuals) for each in (source, target)]
    collect = _at_words if rows == "words" else _means
    (x, y), kept = collect(sides, drop_sinks=rows != "chats")
    documents = np.array([texts[index].document for index in kept], dtype=np.int64)
    if len(kept) < LEAST_ROWS or len(set(documents.tolist())) < LEAST_TEXTS:
        raise SteerEvalError(
            f"the text has {len(kept)} rows of {len(set(documents.tolist()))} documents; a map that is measured on "
            f"other documents than it is fitted on needs {LEAST_ROWS} of {LEAST_TEXTS}",
            "name more text under transfers.text in study.yaml, one document per row",
        )
    for end, side in (("source", x), ("target", y)):
        check_rows(side, f"the {len(kept)} rows that the {end} makes of the text")
    return PairedRows(x, y, documents)


@torch.no_grad()
def residuals(
    lm: LanguageModel,
    texts: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    memory: int | None = None,
    on_texts: Advance = lambda _done: None,
) -> dict[int, list[Tensor]]:
    """Outputs of some blocks for some texts.

    Args:
        lm: The model.
        texts: Their token ids.
        layers: Indices of the blocks.
        memory: Bytes that batches may take; None for half of what is free.
        on_texts: Called with the number of texts just read.

    Returns:
        For each layer float32 `[tokens, hidden_size]` on the CPU for each text.

    Raises:
        SteerEvalError: One text does not fit into the memory.
    """
    found: dict[int, dict[int, Tensor]] = {layer: {} for layer in layers}
    order = sorted((number for number in range(len(texts)) if texts[number]), key=lambda number: len(texts[number]))
    budget = Budget.of(lm, memory)
    kernels, most = budget.kernels(lm, sum(map(len, texts))), len(order)
    while order:
        batch = order[: _together(lm, budget, [len(texts[number]) for number in order[:most]])]
        # Filled up on the right, where a causal model's earlier tokens can't see it.
        ids = torch.zeros(len(batch), len(texts[batch[-1]]), dtype=torch.long)
        for row, number in enumerate(batch):
            ids[row, : len(texts[number])] = torch.tensor(list(texts[number]))
        try:
            with kernels(), captured(lm.blocks, layers, stop=True) as outputs:
                lm.final_hidden(ids.to(lm.device))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            most = smaller(len(batch), error)
            continue
        order = order[len(batch) :]
        for layer in layers:
            hidden = residual(outputs[layer]).to("cpu", torch.float32)
            found[layer] |= {number: hidden[row, : len(texts[number])].clone() for row, number in enumerate(batch)}
        on_texts(len(batch))
    nothing = torch.zeros(0, lm.hidden_size)
    return {layer: [by_text.get(number, nothing) for number in range(len(texts))] for layer, by_text in found.items()}


def _together(lm: LanguageModel, budget: Budget, lengths: Sequence[int]) -> int:
    """How many texts share a batch, the first ones; longest last, so that the last of some is as wide as all become."""
    for count, length in enumerate(lengths, start=1):
        if count > 1 and (count * length > TOKENS_PER_BATCH or count > budget.pass_rows(lm, length)):
            return count - 1
    return len(lengths)


def _tokens(lm: LanguageModel, text: str, rows: Rows) -> Tokens:
    match rows:
        case "words":
            return word_tokens(lm, text)
        case "texts":
            return Tokens(tuple(lm.text_ids(text, special_tokens=True)), {})
        case "chats":
            # A base model has no template; it reads the bare text.
            templated = lm.chat_ids(text) if lm.tokenizer.chat_template else lm.text_ids(text, special_tokens=True)
            return Tokens(tuple(templated), {})


_Sides = Sequence[tuple[Sequence[Tokens], Sequence[Tensor]]]
_Found = tuple[tuple[Floats, Floats], list[int]]


def _at_words(sides: _Sides, *, drop_sinks: bool) -> _Found:
    """Rows at the ends of words that both tokenizers have; the texts of the rows."""
    (source_tokens, source), (target_tokens, target) = sides
    sinks = [_sinks(read, drop=drop_sinks) for _, read in sides]
    x, y, kept = [], [], []
    for number, (first, second) in enumerate(zip(source_tokens, target_tokens, strict=True)):
        for end in sorted(first.ends.keys() & second.ends.keys()):
            here, there = first.ends[end], second.ends[end]
            if not (sinks[0][number][here] or sinks[1][number][there]):
                x.append(source[number][here])
                y.append(target[number][there])
                kept.append(number)
    return (_stacked(x), _stacked(y)), kept


def _means(sides: _Sides, *, drop_sinks: bool) -> _Found:
    """One row per text, the mean over its tokens; texts that have none are left out."""
    means = []
    for _, read in sides:
        sinks = _sinks(read, drop=drop_sinks)
        means.append(
            [
                hidden[torch.from_numpy(~dropped)].double().mean(dim=0)
                for hidden, dropped in zip(read, sinks, strict=True)
            ]
        )
    kept = [
        number
        for number, pair in enumerate(zip(*means, strict=True))
        if all(bool(row.isfinite().all()) for row in pair)
    ]
    x, y = ([side[number] for number in kept] for side in means)
    return (_stacked(x), _stacked(y)), kept


def _sinks(read: Sequence[Tensor], *, drop: bool) -> list[NDArray[np.bool_]]:
    """Which tokens of each text are dropped; what is a sink is judged over all texts."""
    threshold = sink_norm(torch.cat([hidden.norm(dim=1) for hidden in read])) if drop else float("inf")
    return [is_sink(hidden, threshold).numpy() for hidden in read]


def _stacked(rows: Sequence[Tensor]) -> Floats:
    stacked: Floats = torch.stack(list(rows)).double().numpy() if rows else np.zeros((0, 0))
    return stacked
