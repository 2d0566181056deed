"""One stretch of tokens under many interventions, at the cost of the blocks above each one's lowest edit.

Invariant: each row's residual stream and cache equal those of a pass of its own up to float rounding. Below its lowest
edit a row is the unsteered model, which is run once; there it joins the batch, as a copy of the unsteered residual
stream with its edit made, and from there on it is a row like the others. All rows have the same tokens, so positions
and masks of one row serve all of them, and nothing is padded.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steer_eval.evaluation.row_cache import append_rows, new_cache
from steer_eval.model import LanguageModel
from steer_eval.steering.hooks import captured, entered_at, hooked, residual, with_residual
from steer_eval.steering.interventions import Intervention, check_prompt
from steer_eval.steering.row_edits import RowEdits


def entry_layer(intervention: Intervention) -> float:
    """The lowest layer that an intervention edits, where its row joins a pass; infinity if it edits none."""
    return min((edit.layer for edit in intervention), default=math.inf)


@dataclass(frozen=True, eq=False)
class Rows:
    """What a pass gives for some rows.

    Args:
        hidden: What the LM head sees, `[rows, tokens, hidden_size]`.
        cache: Their cache, of the model's own kinds of layer; None if none was wanted.
    """

    hidden: Tensor
    cache: Any


class SharedPass:
    """The unsteered model on some tokens, and any number of steered rows that start from it.

    Args:
        lm: The model.
        ids: The tokens.
        layers: Where rows will join, as `entry_layer` says; infinity needs nothing.
        prompt: How many of the first tokens are of the prompt; the others count as generated.
        cached: Whether the caches are wanted.
    """

    def __init__(
        self, lm: LanguageModel, ids: Sequence[int], layers: Iterable[float], *, prompt: int, cached: bool
    ) -> None:
        self._lm = lm
        self._prompt = prompt
        self._ids = torch.tensor([list(ids)], device=lm.device)
        cache = new_cache(lm) if cached else None
        with captured(lm.blocks, _finite(layers), stop=False) as outputs:
            hidden = lm.final_hidden(self._ids, cache=cache)
        self._outputs: dict[int, Any] = outputs
        self.unsteered = Rows(hidden, cache)

    @torch.no_grad()
    def rows(self, interventions: Sequence[Intervention]) -> Rows:
        """Run some rows together.

        Args:
            interventions: One per row, in the order of `entry_layer`.

        Raises:
            ValueError: They stand in another order, a row joins where none was to, a patch reaches beyond the prompt,
                or an edit is made for another width.
        """
        for intervention in interventions:
            check_prompt(intervention, self._prompt)
        entries = self._entries(interventions)
        steered, unsteered = len(entries), len(interventions) - len(entries)
        hidden, cache = self.unsteered.hidden.expand(unsteered, -1, -1), None
        if steered:
            cache = None if self.unsteered.cache is None else new_cache(self._lm)
            with self._entered(interventions[:steered], entries):
                hidden = torch.cat([self._lm.final_hidden(self._ids, cache=cache), hidden])
        if self.unsteered.cache is not None:
            cache = self._completed(cache, entries, unsteered)
        return Rows(hidden, cache)

    def _entries(self, interventions: Sequence[Intervention]) -> list[int]:
        """Where the steered rows join, which are the first ones.

        In another order, rows would take each other's place without a sign of it, as all have the same tokens.
        """
        entries = [entry_layer(intervention) for intervention in interventions]
        if entries != sorted(entries):
            raise ValueError(f"rows that join at {entries}; they must stand in rising order")
        steered = _finite(entries)
        if not self._outputs.keys() >= set(steered):
            raise ValueError(f"rows that join at {steered} in a pass that was made for {sorted(self._outputs)}")
        return steered

    @contextmanager
    def _entered(self, interventions: Sequence[Intervention], entries: Sequence[int]) -> Iterator[None]:
        """Let a pass start at the first entry, and the rows join it one after another."""
        first = entries[0]
        edits = RowEdits.of(self._lm, interventions)
        started = self._joining(edits, first, entries)
        hooks = {layer: self._join(edits, layer, entries) for layer in edits.layers if layer != first}
        blocks = self._lm.blocks
        with ExitStack() as entered:
            entered.enter_context(entered_at(blocks, first, with_residual(self._outputs[first], started)))
            entered.enter_context(hooked(blocks, hooks))
            for block in list(blocks)[first + 1 :]:
                entered.callback(block.register_forward_pre_hook(_biased, with_kwargs=True).remove)
            yield

    def _joining(self, edits: RowEdits, layer: int, entries: Sequence[int]) -> Tensor:
        """The rows that are first edited at a layer, as they leave its block."""
        below = residual(self._outputs[layer]).expand(entries.count(layer), -1, -1)
        first_row = sum(entry < layer for entry in entries)
        return edits.edited(layer, below, start=0, prompt=self._prompt, first_row=first_row)

    def _join(self, edits: RowEdits, layer: int, entries: Sequence[int]) -> Any:
        """A hook that edits the rows that are there and puts new ones behind them."""

        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            hidden = edits.edited(layer, residual(output), start=0, prompt=self._prompt)
            if layer in entries:
                hidden = torch.cat([hidden, self._joining(edits, layer, entries)])
            return with_residual(output, hidden)

        return hook

    def _completed(self, cache: Any, entries: Sequence[int], unsteered: int) -> Any:
        """A pass's cache, with the unsteered states in the blocks where rows had not joined yet."""
        rows = len(entries) + unsteered
        whole = new_cache(self._lm)
        for index, (target, below) in enumerate(zip(whole.layers, self.unsteered.cache.layers, strict=True)):
            joined = sum(entry < index for entry in entries)
            if joined:
                append_rows(target, cache.layers[index])
            if joined < rows:
                same = copy.copy(below)
                for states in ("conv_states", "recurrent_states"):
                    if hasattr(same, states):
                        setattr(same, states, dict(getattr(same, states)))
                same.reorder_cache(torch.zeros(rows - joined, dtype=torch.long, device=self._lm.device))
                append_rows(target, same)
        return whole


def _finite(layers: Iterable[float]) -> list[int]:
    return [int(layer) for layer in layers if layer < math.inf]


def _biased(_block: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
    """A block's arguments with its linear attention bias, which was made for the one row at the entry, for all rows.

    BLOOM and Falcon make the bias (ALiBi) of each row and head by itself, although it is the same in all rows of one
    length; masks and rotary positions of one row are broadcast by the models themselves.
    """
    bias = arguments.get("alibi")
    if bias is None:
        return None
    rows = len(inputs[0])
    return inputs, {**arguments, "alibi": bias.repeat(rows, *[1] * (bias.dim() - 1))}
