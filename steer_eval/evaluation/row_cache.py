"""The cache of many rows that decode together, come and go.

Invariant: a row attends to exactly the keys and values that it would have alone, whoever shares the batch, and its
recurrent states are its own. Keys and values of all tokens stand in buffers that are allocated once: row r's token t in
place `[r, :, t]`. So a new token is written where it belongs, a row leaves by moving the last one into its place, and
rows of any length may share a batch; `attention_mask` hides what lies beyond a row's end.

A window that slides is a ring of as many places as it has tokens: token t stands in place `t mod window`, over the one
that is no longer seen. So in every layer the places that a row may look at are its first `length` ones, or all there
are. Models' own masks know nothing of rings; that of `decode_attention.py` does. Where it is not used, keys are dropped
by the model's own cache, and only rows of one length can share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from steer_eval.evaluation.decode_attention import is_used, serves
from steer_eval.model import LanguageModel


def new_cache(lm: LanguageModel) -> Any:
    """An empty cache of the kinds of layer that a model has."""
    return DynamicCache(config=lm.module.config.get_text_config())


def can_join(lm: LanguageModel, *, longest: int) -> bool:
    """Whether rows of different lengths can share a batch.

    Args:
        lm: The model.
        longest: Most tokens that a row will have.
    """
    # GPT-Neo cuts its local windows by place in the cache, and takes the longest row's place for every row's.
    if "local" in (getattr(lm.module.config.get_text_config(), "attention_layers", None) or ()):
        return False
    places = _Places(0, longest)
    return all(
        type(layer) is LinearAttentionLayer or _buffers(lm, layer, places) is not None for layer in new_cache(lm).layers
    )


class _Places:
    """Which places of the buffers are taken: row r has `lengths[r]` tokens, and none has more than `width`."""

    def __init__(self, rows: int, tokens: int) -> None:
        self.rows, self.tokens = rows, tokens
        self.lengths = torch.zeros(0, dtype=torch.long)
        self.width = 0

    @property
    def level(self) -> bool:
        """Whether all rows have one length."""
        return self.lengths.numel() == 0 or bool((self.lengths == self.lengths[0]).all())


class _BufferLayer(DynamicLayer):  # type: ignore[misc] # transformers is not typed for us
    """Keys and values of all tokens, `[rows, heads, tokens, head_size]`, in buffers of fixed size."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def append(self, theirs: Any) -> None:
        """Take rows that were read, a layer of their cache, behind those that are there."""
        keys, values = theirs.keys, theirs.values
        if not self.is_initialized:
            rows, tokens = self.places.rows, self._tokens
            self.lazy_initialization(keys, values)
            self.keys = keys.new_empty(rows, keys.shape[1], tokens, keys.shape[3])
            self.values = values.new_empty(rows, values.shape[1], tokens, values.shape[3])
        first = len(self.places.lengths)
        for buffer, new in ((self.keys, keys), (self.values, values)):
            self._fill(buffer[first : first + len(new)], new, theirs.get_seq_length())

    @property
    def _tokens(self) -> int:
        """Places that each row has."""
        return self.places.tokens

    def _fill(self, buffer: Tensor, new: Tensor, _tokens: int) -> None:
        # A place must hold a number before its row is long enough: NaN would show although it is hidden.
        buffer[:, :, : new.shape[2]] = new
        buffer[:, :, new.shape[2] :] = 0

    def keep(self, order: Tensor, moved: Tensor) -> None:
        """Let rows leave: place p is row `order[p]`'s from now on, which is another one where p is `moved`."""
        if len(moved):
            sources = order[moved]
            for buffer in (self.keys, self.values):
                buffer[moved, :, : self.places.width] = buffer[sources, :, : self.places.width]

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new token of each row, and return all that rows may see."""
        places = self.places
        rows = len(places.lengths)
        if places.level:
            self.keys[:rows, :, places.width - 1] = key_states[:, :, 0]
            self.values[:rows, :, places.width - 1] = value_states[:, :, 0]
        else:
            index = torch.arange(rows)
            self.keys[index, :, places.lengths - 1] = key_states[:, :, 0]
            self.values[index, :, places.lengths - 1] = value_states[:, :, 0]
        return self.keys[:rows, :, : places.width], self.values[:rows, :, : places.width]

    def get_seq_length(self) -> int:
        """Tokens before the one that is being decoded."""
        return max(self.places.width - 1, 0)


class _RingLayer(_BufferLayer):
    """Keys and values of the last tokens of each row, as many as a sliding window has, in buffers of fixed size."""

    is_sliding = True

    def __init__(self, places: _Places, window: int) -> None:
        super().__init__(places)
        self.window = window

    @property
    def _tokens(self) -> int:
        return self.window

    def _fill(self, buffer: Tensor, new: Tensor, tokens: int) -> None:
        buffer.zero_()
        buffer[:, :, torch.arange(tokens - new.shape[2], tokens) % self.window] = new

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new token of each row over the one that leaves the window, and return all that rows may see."""
        places = self.places
        index, place = torch.arange(len(places.lengths)), (places.lengths - 1) % self.window
        self.keys[index, :, place] = key_states[:, :, 0]
        self.values[index, :, place] = value_states[:, :, 0]
        return self.keys[: len(index), :, : places.width], self.values[: len(index), :, : places.width]

    def get_mask_sizes(self, _query_length: int) -> tuple[int, int]:
        """How many places rows may look at, and how many tokens the longest row no longer sees."""
        return min(self.places.width, self.window), max(self.places.width - self.window, 0)


class _HybridLayer(_BufferLayer, LinearAttentionAndFullAttentionLayer):  # type: ignore[misc] # as above
    """Keys and values of all tokens, and recurrent states, of which each row has its own."""

    def __init__(self, places: _Places, number_of_states: int) -> None:
        LinearAttentionAndFullAttentionLayer.__init__(self, number_of_states=number_of_states)
        self.places = places

    def append(self, theirs: Any) -> None:
        """Take rows that were read, a layer of their cache, behind those that are there."""
        super().append(theirs)
        _append_states(self, theirs)

    def keep(self, order: Tensor, moved: Tensor) -> None:
        """Let rows leave: place p is row `order[p]`'s from now on, which is another one where p is `moved`."""
        super().keep(order, moved)
        LinearAttentionLayer.reorder_cache(self, order)


def _buffers(lm: LanguageModel, layer: Any, places: _Places) -> _BufferLayer | None:
    """What a layer of the model's own cache becomes; None if rows of different lengths can't share its kind."""
    kind = type(layer)
    if kind is DynamicLayer:
        return _BufferLayer(places)
    if kind is LinearAttentionAndFullAttentionLayer:
        return _HybridLayer(places, layer.number_of_states)
    if kind is DynamicSlidingWindowLayer:
        if places.tokens <= layer.sliding_window:
            return _BufferLayer(places)
        # Chunks of a text have the same kind of layer, but no window that slides.
        window = getattr(lm.module.config.get_text_config(), "sliding_window", None)
        if window == layer.sliding_window and serves(lm.module):
            return _RingLayer(places, window)
    return None


class RowCache:
    """The cache of a batch while it decodes.

    Args:
        lm: The model.
        rows: Most rows at one time.
        tokens: Most tokens that a row will have.
    """

    def __init__(self, lm: LanguageModel, *, rows: int, tokens: int) -> None:
        self._module = lm.module
        self._places = _Places(rows, tokens)
        own = new_cache(lm).layers
        self._cache = Cache(layers=[_buffers(lm, layer, self._places) or layer for layer in own])
        self._slides = any(isinstance(layer, _RingLayer) for layer in self._cache.layers)

    def __len__(self) -> int:
        return len(self._places.lengths)

    def append(self, caches: Any, *, rows: int, tokens: int) -> None:
        """Take rows that were read, behind those that are there.

        Args:
            caches: Their cache, of the model's own kinds of layer.
            rows: How many.
            tokens: Their length.
        """
        for mine, theirs in zip(self._cache.layers, caches.layers, strict=True):
            if isinstance(mine, _BufferLayer):
                mine.append(theirs)
            else:
                append_rows(mine, theirs)
        self._places.lengths = torch.cat([self._places.lengths, torch.full((rows,), tokens)])
        self._places.width = max(self._places.width, tokens)

    def arguments(self) -> dict[str, Any]:
        """What `LanguageModel.final_hidden` must be given to decode the next token of each row.

        Raises:
            RuntimeError: Windows slide over rows of different lengths outside `decode_attention`.
        """
        places = self._places
        places.lengths = places.lengths + 1
        places.width = int(places.lengths.max())
        inputs: dict[str, Any] = {"cache": self._cache}
        if not places.level:
            if self._slides and not is_used(self._module):
                raise RuntimeError("no mask but that of decode_attention is right for these rows")
            seen = torch.arange(places.width) < places.lengths[:, None]
            inputs["attention_mask"] = seen.long().to(self._module.device)
        inputs["position_ids"] = (places.lengths - 1)[:, None].to(self._module.device)
        return inputs

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Let all other rows leave.

        Args:
            rows: Those that stay, in rising order.

        Returns:
            Which row now is in each place: a place that was left is filled from the end, so that few rows move.
        """
        inside = {row for row in rows if row < len(rows)}
        beyond = iter([row for row in rows if row >= len(rows)])
        order = [place if place in inside else next(beyond) for place in range(len(rows))]
        moved = [place for place, row in enumerate(order) if row != place]
        everyone, device = torch.tensor(order, dtype=torch.long), self._module.device
        there, targets = everyone.to(device), torch.tensor(moved, dtype=torch.long, device=device)
        for layer in self._cache.layers:
            if isinstance(layer, _BufferLayer):
                layer.keep(there, targets)
            else:
                layer.reorder_cache(there)
        self._places.lengths = self._places.lengths[everyone]
        return order


def append_rows(mine: Any, theirs: Any) -> None:
    """Put the rows of one layer's cache behind those of another's of the same kind, which has as many tokens.

    Args:
        mine: The layer that grows; it may be empty.
        theirs: The layer whose rows are taken.
    """
    if isinstance(mine, LinearAttentionLayer):
        _append_states(mine, theirs)
    if not isinstance(mine, DynamicLayer):
        return
    if not mine.is_initialized:
        mine.lazy_initialization(theirs.keys, theirs.values)
        mine.keys = mine.values = None
    if hasattr(theirs, "cumulative_length"):
        mine.cumulative_length = theirs.cumulative_length
    mine.keys, mine.values = _joined(mine.keys, theirs.keys), _joined(mine.values, theirs.values)


def _append_states(mine: Any, theirs: Any) -> None:
    """The same for the recurrent states alone."""
    for states in ("conv_states", "recurrent_states"):
        own, new = getattr(mine, states), getattr(theirs, states)
        joined = {index: _joined(own[index], new[index]) for index in new}
        setattr(mine, states, joined)
    for attribute in (
        "is_conv_states_initialized",
        "is_recurrent_states_initialized",
        "has_previous_state",
        "conv_kernel_size",
    ):
        setattr(mine, attribute, dict(getattr(theirs, attribute)))
    mine.device, mine.dtype = theirs.device, theirs.dtype


def _joined(mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    # Rows that have all left say nothing about the length of those to come.
    if theirs is None or mine is None or not len(mine):
        return theirs
    return torch.cat([mine, theirs])


def state_bytes(cache: Any) -> tuple[int, int]:
    """Memory of a cache.

    Args:
        cache: One row's, of the model's own kinds of layer.

    Returns:
        Bytes of keys and values, which grow with the row, and bytes of recurrent states, which don't.
    """
    growing = fixed = 0
    for layer in cache.layers:
        growing += (
            sum(state.nbytes for state in (layer.keys, layer.values) if state is not None)
            if hasattr(layer, "keys")
            else 0
        )
        for states in ("conv_states", "recurrent_states"):
            fixed += sum(state.nbytes for state in getattr(layer, states, {}).values() if state is not None)
    return growing, fixed
