"""The edits of a batch: each row its own, whoever shares the batch.

Invariant: what happens to a row is what its intervention says, in its order, whatever the other rows do and whichever
rows have left. Edits of one kind act on all their rows at once (`edit_kernels.py`); where rows only add, a hooked block
costs one sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from steer_eval.steering.edit_kernels import Kernel, kernel_of, kind_of
from steer_eval.steering.hooks import hooked, residual, with_residual
from steer_eval.steering.interventions import Add, Edit, Intervention, Positions

if TYPE_CHECKING:
    from steer_eval.model import LanguageModel


class RowEdits:
    """What happens to each row of a batch, for as long as the batch lives.

    Args:
        interventions: One per row.
        hidden_size: Width of the residual stream.
        device: Where the batch is.
        dtype: Precision of the model.

    Raises:
        ValueError: An edit is made for residuals of another width.
    """

    def __init__(
        self,
        interventions: Sequence[Intervention],
        *,
        hidden_size: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._rows = len(interventions)
        self._kernels: dict[int, list[Kernel]] = {}
        for layer, groups in _grouped(interventions).items():
            for edits in groups:
                kernel = kernel_of(edits, rows=self._rows, hidden_size=hidden_size, device=device, dtype=dtype)
                self._kernels.setdefault(layer, []).append(kernel)

    @classmethod
    def of(cls, lm: LanguageModel, interventions: Sequence[Intervention]) -> RowEdits:
        """Edits for a batch of a model."""
        return cls(interventions, hidden_size=lm.hidden_size, device=lm.device, dtype=lm.module.dtype)

    @property
    def layers(self) -> list[int]:
        """Layers at which any row is edited, ascending."""
        return sorted(self._kernels)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, each at most once, in this order, as the batch does."""
        order = torch.tensor(rows, dtype=torch.long)
        for kernels in self._kernels.values():
            for kernel in kernels:
                kernel.select(order)
        left = {layer: [kernel for kernel in kernels if len(kernel.rows)] for layer, kernels in self._kernels.items()}
        self._kernels = {layer: kernels for layer, kernels in left.items() if kernels}
        self._rows = len(rows)

    def edited(self, layer: int, hidden: Tensor, *, start: int, prompt: int, first_row: int = 0) -> Tensor:
        """What a block's output becomes.

        Args:
            layer: The block.
            hidden: Its output, `[rows, tokens, hidden_size]`.
            start: Place of the first of these tokens in the rows' texts.
            prompt: How many of these tokens are of the prompt; the others are generated.
            first_row: Which row of the batch the first of these rows is.

        Returns:
            A tensor of the same shape; the same tensor if nothing is edited.

        Raises:
            ValueError: There are more rows than the batch has.
        """
        if first_row + len(hidden) > self._rows:
            raise ValueError(f"{len(hidden)} rows from row {first_row} on in a batch of {self._rows}")
        for kernel in self._kernels.get(layer, ()):
            tokens = _reached(kernel.positions, prompt, hidden.shape[1])
            if tokens.start < tokens.stop:
                hidden = kernel.edited(hidden, tokens, start, first_row)
        return hidden

    @contextmanager
    def applied(self, blocks: nn.ModuleList, *, prompt: int) -> Iterator[None]:
        """Edit the output of each hooked block, inside the `with` block.

        Args:
            blocks: The model's decoder blocks.
            prompt: How many of the tokens that pass by, in one forward pass or in several, are of the prompt; those
                that follow are generated.
        """
        seen: Counter[int] = Counter()

        def hook(layer: int) -> Any:
            def edit(_module: nn.Module, _inputs: Any, output: Any) -> Any:
                hidden = residual(output)
                start, tokens = seen[layer], hidden.shape[1]
                seen[layer] += tokens
                of_prompt = max(0, min(prompt - start, tokens))
                return with_residual(output, self.edited(layer, hidden, start=start, prompt=of_prompt))

            return edit

        with hooked(blocks, {layer: hook(layer) for layer in self._kernels}):
            yield


def _grouped(interventions: Sequence[Intervention]) -> dict[int, list[list[tuple[int, Edit]]]]:
    """By layer, the edits with their rows in groups that act together, one group after another.

    A row's first edits at a layer stand in groups before those of its second ones, and so on; among the first ones, the
    order of kinds means nothing, as each is of another row. Only additions that follow one another share a turn, as
    their sum.
    """
    groups: dict[int, dict[tuple[Any, ...], list[tuple[int, Edit]]]] = {}
    for row, intervention in enumerate(interventions):
        turn: Counter[int] = Counter()
        before: dict[int, tuple[Any, ...]] = {}
        for edit in intervention:
            layer, kind = edit.layer, kind_of(edit)
            if not isinstance(edit, Add) or before.get(layer) != kind:
                turn[layer] += 1
            before[layer] = kind
            groups.setdefault(layer, {}).setdefault((turn[layer], *kind), []).append((row, edit))
    return {
        layer: [edits for _, edits in sorted(of_layer.items(), key=lambda item: item[0][0])]
        for layer, of_layer in groups.items()
    }


def _reached(positions: Positions, prompt: int, tokens: int) -> slice:
    """Which of some tokens, of which the first `prompt` ones are of the prompt, an edit reaches."""
    return slice(0 if positions != "generated" else prompt, tokens if positions != "prompt" else prompt)
