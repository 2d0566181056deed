"""How values enter and leave decoder blocks.

Invariant: every context manager here leaves the model exactly as it found it, also after an exception. Only the output
of whole decoder blocks is touched, so it works for any architecture whose blocks return the residual stream, alone or
as the first element of a tuple.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from torch import Tensor, nn


def residual(output: Any) -> Tensor:
    """The residual stream in a block's output, `[rows, tokens, hidden_size]`."""
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor):
        raise TypeError(f"a decoder block returned {type(hidden).__name__}, not the residual stream")
    return hidden


def with_residual(output: Any, hidden: Tensor) -> Any:
    """A block's output with another residual stream."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


@contextmanager
def hooked(blocks: nn.ModuleList, hooks: Mapping[int, Any]) -> Iterator[None]:
    """Forward hooks on some blocks, all removed at the end, also if one of the blocks does not exist."""
    with ExitStack() as registered:
        for layer, hook in hooks.items():
            registered.callback(blocks[layer].register_forward_hook(hook).remove)
        yield


class _LastBlockReached(Exception):  # noqa: N818 - control flow, not an error
    """Ends a forward pass once the last wanted block has run."""


@contextmanager
def captured(blocks: nn.ModuleList, layers: Collection[int], *, stop: bool) -> Iterator[dict[int, Any]]:
    """Collect the outputs of some blocks from the forward pass inside the `with` block.

    Args:
        blocks: The model's decoder blocks.
        layers: Which blocks.
        stop: End the pass after the last of them: the blocks above and the LM head never run, and the `with` block is
            left at that point.

    Yields:
        A dict that the pass fills with the outputs as the blocks return them, by layer.
    """
    outputs: dict[int, Any] = {}
    last = max(layers, default=None)

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[layer] = output
            if stop and layer == last:
                raise _LastBlockReached

        return hook

    with suppress(_LastBlockReached), hooked(blocks, {layer: keep(layer) for layer in layers}):
        yield outputs


class _StandIn(nn.Module):
    """Takes a module's place without computing, and answers for its attributes."""

    original: nn.Module

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        # Past nn.Module's bookkeeping: registered as a submodule, its parameters would change their names.
        self.__dict__["original"] = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["original"], name)


class _PassThrough(_StandIn):
    """A block below the entry: what it returns is thrown away, so its input is as good."""

    def __init__(self, original: nn.Module, *, as_tuple: bool) -> None:
        super().__init__(original)
        self.__dict__["as_tuple"] = as_tuple

    def forward(self, hidden: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden,) if self.as_tuple else hidden


class _Given(_StandIn):
    """A module whose output is already known."""

    def __init__(self, original: nn.Module, output: Any) -> None:
        super().__init__(original)
        self.__dict__["output"] = output
        self.__dict__["asked"] = False

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        self.__dict__["asked"] = True
        return self.output


@contextmanager
def entered_at(blocks: nn.ModuleList, layer: int, output: Any) -> Iterator[None]:
    """Enter the model above a block: inside the `with` block, block `layer` returns `output` and none below it runs.

    The list keeps its length, so layer types and cache indices stay right. Entering through `inputs_embeds` instead
    would be wrong where the model adds positions to its inputs or scales them (GPT-2, OPT, Granite, Gemma).

    Args:
        blocks: The model's decoder blocks.
        layer: The block whose output is given.
        output: What it returns, in the form that it returns by itself (see `captured` and `with_residual`).
    """
    if layer not in range(len(blocks)):
        raise IndexError(f"layer {layer} of a model with {len(blocks)} decoder blocks")
    originals = list(blocks[: layer + 1])
    try:
        for index in range(layer):
            blocks[index] = _PassThrough(originals[index], as_tuple=isinstance(output, tuple))
        blocks[layer] = _Given(originals[layer], output)
        yield
    finally:
        for index, block in enumerate(originals):
            blocks[index] = block


@contextmanager
def replaced(parent: nn.Module, name: str, output: Any) -> Iterator[Any]:
    """Let the child `name` of a module return `output` without computing, inside the `with` block.

    Yields:
        What stands in for it; its attribute `asked` says whether anybody wanted the output.
    """
    original = parent.get_submodule(name)
    given = _Given(original, output)
    try:
        setattr(parent, name, given)
        yield given
    finally:
        setattr(parent, name, original)
