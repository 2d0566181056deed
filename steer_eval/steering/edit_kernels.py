"""Edits of one kind at one layer, computed for all rows that they are for at once.

Invariant: a row's result is a function of its own residuals and its own edit, never of another row. Additions are one
sum over the whole batch, in which rows without one add zero; the other kinds touch only their rows, and compute in
float32 whatever the model's precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from steer_eval.sae.topk import encode
from steer_eval.steering.interventions import Add, ClampFeatures, Edit, Patch, Positions, Rotate

if TYPE_CHECKING:
    from steer_eval.formats.sae import TopKSae

ENCODING_BYTES = 64 * 2**20
"""What the activations of all features of an SAE may take at one time."""

E = TypeVar("E", bound=Edit)


def kind_of(edit: Edit) -> tuple[Any, ...]:
    """Edits that are the same by this can be in one kernel."""
    match edit:
        case ClampFeatures(sae=sae):
            return (ClampFeatures, edit.positions, id(sae))
        case Patch():
            return (Patch, "prompt")
        case _:
            return (type(edit), edit.positions)


def kernel_of(
    edits: Sequence[tuple[int, Edit]],
    *,
    rows: int,
    hidden_size: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Kernel:
    """A kernel for edits of one kind.

    Args:
        edits: The edits, each with its row, in rising order; only additions may have a row in common.
        rows: Rows of the batch.
        hidden_size: Width of the residual stream.
        device: Where the batch is.
        dtype: Precision of the model.

    Raises:
        ValueError: An edit is made for residuals of another width.
    """
    for row, edit in edits:
        if _shape(edit) != (hidden_size,):
            raise ValueError(
                f"row {row}: {type(edit).__name__} at layer {edit.layer} is for residuals of shape "
                f"{list(_shape(edit))}, and the model's are {hidden_size} wide"
            )
    places = torch.tensor([row for row, _ in edits])
    match edits[0][1]:
        case Add(positions=positions):
            deltas = torch.stack([_as(Add, edit).delta() for _, edit in edits]).cpu()
            added = torch.zeros(rows, hidden_size).index_add_(0, places, deltas)
            return _Addition(positions, torch.unique_consecutive(places), added.to(device, dtype))
        case Rotate(positions=positions):
            deltas = torch.stack([_as(Rotate, edit).delta() for _, edit in edits])
            return _Rotation(positions, places, deltas.to(device))
        case ClampFeatures(positions=positions):
            return _Clamping(positions, places, [_as(ClampFeatures, edit) for _, edit in edits], device)
        case Patch():
            return _Patching("prompt", places, [_as(Patch, edit) for _, edit in edits], device, dtype)


def _shape(edit: Edit) -> tuple[int, ...]:
    """What an edit takes a token's residual to be."""
    match edit:
        case ClampFeatures(sae=sae):
            return (sae.d_in,)
        case Patch(residuals=residuals):
            return tuple(residuals.shape[1:])
        case _:
            return tuple(edit.vector.shape)


def _as(kind: type[E], edit: Edit) -> E:
    if not isinstance(edit, kind):
        raise TypeError(f"{edit} is no {kind.__name__}")
    return edit


class Kernel(ABC):
    """Edits of one kind at one layer.

    Args:
        positions: Which tokens they reach.
        rows: Rows of the batch that they are for, int64 `[edits]`, on the CPU; ascending until rows are selected.
    """

    def __init__(self, positions: Positions, rows: Tensor) -> None:
        self.positions = positions
        self.rows = rows

    def select(self, order: Tensor) -> None:
        """Follow the batch, which keeps some rows in a new order.

        Args:
            order: Which row now is in each place, on the CPU.
        """
        old, new = (self.rows[:, None] == order).nonzero(as_tuple=True)
        self.rows = new
        self._keep(old)

    @abstractmethod
    def _keep(self, kept: Tensor) -> None:
        """Keep these of the edits."""

    @abstractmethod
    def edited(self, hidden: Tensor, tokens: slice, start: int, first_row: int) -> Tensor:
        """What becomes of some rows of the batch.

        Args:
            hidden: Their residuals, `[rows, tokens, hidden_size]`; they are left as they are.
            tokens: Which of the tokens are reached.
            start: Place of the first token, reached or not, in the rows' texts.
            first_row: Which row of the batch the first row is.
        """


class _Addition(Kernel):
    """One sum for all rows.

    Args:
        positions: Which tokens are reached.
        rows: Rows that add something.
        added: What all rows of the batch add, in the model's precision, `[rows, hidden_size]`.
    """

    def __init__(self, positions: Positions, rows: Tensor, added: Tensor) -> None:
        super().__init__(positions, rows)
        self._added = added[:, None]

    def select(self, order: Tensor) -> None:
        super().select(order)
        self._added = self._added.index_select(0, order.to(self._added.device))

    def _keep(self, kept: Tensor) -> None:
        """What is added is kept by row."""

    def edited(self, hidden: Tensor, tokens: slice, _start: int, first_row: int) -> Tensor:
        added = self._added
        if len(hidden) < len(added):
            # Rows that come in together may be others than those that add here.
            last_row = first_row + len(hidden)
            if not bool(((self.rows >= first_row) & (self.rows < last_row)).any()):
                return hidden
            added = added[first_row:last_row]
        if tokens == slice(0, hidden.shape[1]):
            return hidden + added
        hidden = hidden.clone(memory_format=torch.contiguous_format)
        hidden[:, tokens] += added
        return hidden


class _OfSomeRows(Kernel):
    """Edits that are computed for their rows alone."""

    def edited(self, hidden: Tensor, tokens: slice, start: int, first_row: int) -> Tensor:
        here = ((self.rows >= first_row) & (self.rows < first_row + len(hidden))).nonzero()[:, 0]
        if not len(here):
            return hidden
        rows = (self.rows[here] - first_row).to(hidden.device)
        result = hidden.clone(memory_format=torch.contiguous_format)
        result[rows, tokens] = self._computed(hidden[rows, tokens].float(), here, start + tokens.start).to(hidden.dtype)
        return result

    @abstractmethod
    def _computed(self, hidden: Tensor, edits: Tensor, start: int) -> Tensor:
        """What becomes of residuals.

        Args:
            hidden: Residuals, float32 `[edits, tokens, hidden_size]`; they may be overwritten.
            edits: Which of the edits each row is for, on the CPU.
            start: Place of the first token in the rows' texts.
        """


class _Rotation(_OfSomeRows):
    """Args: deltas: What is added before the norm is restored, float32 `[edits, hidden_size]`."""

    def __init__(self, positions: Positions, rows: Tensor, deltas: Tensor) -> None:
        super().__init__(positions, rows)
        self._deltas = deltas

    def _keep(self, kept: Tensor) -> None:
        self._deltas = self._deltas[kept.to(self._deltas.device)]

    def _computed(self, hidden: Tensor, edits: Tensor, _start: int) -> Tensor:
        turned = hidden + self._deltas[edits.to(self._deltas.device), None]
        before, after = hidden.norm(dim=-1, keepdim=True), turned.norm(dim=-1, keepdim=True)
        # Where the sum is 0 there is no direction to restore the norm in.
        return torch.where(after > 0, turned * (before / after), hidden)


class _Clamping(_OfSomeRows):
    """Features of one SAE, held at a value."""

    def __init__(
        self, positions: Positions, rows: Tensor, edits: Sequence[ClampFeatures], device: torch.device | str
    ) -> None:
        super().__init__(positions, rows)
        self._sae = _placed(edits[0].sae, torch.device(device))
        most = max(len(edit.features) for edit in edits)
        # Edits with fewer features are filled up with feature 0, which is then left alone.
        features = torch.zeros(len(edits), most, dtype=torch.long)
        values = torch.zeros(len(edits), most)
        given = torch.zeros(len(edits), most, dtype=torch.bool)
        for index, edit in enumerate(edits):
            count = len(edit.features)
            features[index, :count] = torch.tensor(edit.features, dtype=torch.long)
            values[index, :count] = edit.values.float().cpu()
            given[index, :count] = True
        self._features, self._values, self._given = features.to(device), values.to(device), given.to(device)
        self._sink_norms = torch.tensor([edit.sink_norm for edit in edits], device=device)

    def _keep(self, kept: Tensor) -> None:
        kept = kept.to(self._features.device)
        self._features, self._values = self._features[kept], self._values[kept]
        self._given, self._sink_norms = self._given[kept], self._sink_norms[kept]

    def _computed(self, hidden: Tensor, edits: Tensor, _start: int) -> Tensor:
        edits = edits.to(self._features.device)
        features = self._features[edits]
        change = self._values[edits, None] - self._active(hidden, features)
        sinks = hidden.norm(dim=-1) > self._sink_norms[edits, None]
        change = change.masked_fill(~self._given[edits, None] | sinks[..., None], 0.0)
        return torch.baddbmm(hidden, change, self._sae.w_dec[features])

    def _active(self, hidden: Tensor, features: Tensor) -> Tensor:
        """Activations of each row's features `[edits, features]`, `[edits, tokens, features]`."""
        residuals = hidden.flatten(0, 1)
        wanted = features.repeat_interleave(hidden.shape[1], dim=0)
        # `encode` holds two tensors of all features, and the product a third one for a moment.
        step = max(1, ENCODING_BYTES // (3 * 4 * self._sae.d_sae))
        chunks = zip(torch.split(residuals, step), torch.split(wanted, step), strict=True)
        active = torch.cat([encode(self._sae, chunk).gather(1, of_chunk) for chunk, of_chunk in chunks])
        return active.view(len(features), hidden.shape[1], -1)


_PLACED: WeakKeyDictionary[TopKSae, dict[torch.device, TopKSae]] = WeakKeyDictionary()
"""Copies of SAEs, kept for as long as these: batches come and go faster than an SAE can be copied."""


def _placed(sae: TopKSae, device: torch.device) -> TopKSae:
    """An SAE in float32 on a device; itself if it is."""
    tensors = (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec)
    if all(tensor.dtype == torch.float32 and tensor.device == device for tensor in tensors):
        return sae
    copies = _PLACED.setdefault(sae, {})
    if device not in copies:
        w_enc, b_enc, w_dec, b_dec = (tensor.to(device, torch.float32) for tensor in tensors)
        copies[device] = replace(sae, w_enc=w_enc, b_enc=b_enc, w_dec=w_dec, b_dec=b_dec)
    return copies[device]


class _Patching(_OfSomeRows):
    """Residuals put over those of some tokens."""

    def __init__(
        self,
        positions: Positions,
        rows: Tensor,
        edits: Sequence[Patch],
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(positions, rows)
        self._at = [torch.tensor(edit.at, dtype=torch.long) for edit in edits]
        # Through the model's precision, so that what stands in a row is what could stand there.
        self._residuals = [edit.residuals.to(device, dtype).float() for edit in edits]

    def _keep(self, kept: Tensor) -> None:
        self._at = [self._at[index] for index in kept.tolist()]
        self._residuals = [self._residuals[index] for index in kept.tolist()]

    def _computed(self, hidden: Tensor, edits: Tensor, start: int) -> Tensor:
        for row, index in enumerate(edits.tolist()):
            at = self._at[index] - start
            inside = (at >= 0) & (at < hidden.shape[1])
            hidden[row, at[inside].to(hidden.device)] = self._residuals[index][inside.to(hidden.device)]
        return hidden
