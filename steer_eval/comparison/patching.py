"""Patching a conversation with the residuals that it has under a system prompt.

Invariant: residuals go from a token to the same token: only the tail that both conversations share is patched, the
user's turn and the header of the reply. The first token of a text stays as it is in any case: attention sinks there
(`sae/sinks.py`), and in the other conversation the same token stands elsewhere and is no sink. Generated tokens are
never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from steer_eval.comparison.controls import random_changes
from steer_eval.steering.interventions import Patch
from steer_eval.treatment import EditKey, PromptEdit

if TYPE_CHECKING:
    from torch import Tensor

    from steer_eval.model import LanguageModel

Source = Literal["anchor", "prompt", "random"]
"""Where the residuals come from: the anchored conversation, the patched one itself, or a random change as large."""


@dataclass(frozen=True, eq=False)
class Shared:
    """What two conversations have in common.

    Args:
        at: Tokens of the plain one, counted from its beginning.
        plain: Their residuals there, `[tokens, hidden_size]`.
        anchored: Those of the same tokens in the anchored one.
    """

    at: tuple[int, ...]
    plain: Tensor
    anchored: Tensor


class Conversations:
    """Prompts with and without a system prompt, as a model reads them at one layer; each is read once.

    Args:
        lm: The model; None where a patch is only described.
        layer: Index of the decoder block whose output is taken, from 0.
        anchor: The system prompt.
    """

    def __init__(self, lm: LanguageModel | None, layer: int, anchor: str) -> None:
        self.layer = layer
        self.anchor = anchor
        self._lm = lm
        self._known: dict[str, Shared] = {}

    def shared(self, prompt: str) -> Shared:
        """What a prompt's two conversations have in common.

        Raises:
            ValueError: There is no model to read them.
        """
        if self._lm is None:
            raise ValueError("conversations that no model reads have no residuals")
        if prompt not in self._known:
            lm = self._lm
            plain, anchored = lm.chat_ids(prompt), lm.chat_ids(prompt, system=self.anchor)
            tail = min(shared_tail(plain, anchored), len(plain) - 1)
            at = tuple(range(len(plain) - tail, len(plain)))
            tails = [residuals_of(lm, ids, self.layer)[len(ids) - tail :].clone() for ids in (plain, anchored)]
            self._known[prompt] = Shared(at, *tails)
        return self._known[prompt]


def residuals_of(lm: LanguageModel, ids: Sequence[int], layer: int) -> Tensor:
    """The residuals of an unsteered text at one layer, `[tokens, hidden_size]`.

    Args:
        lm: The model.
        ids: Tokens of the text.
        layer: Index of the decoder block whose output is taken, from 0.
    """
    import torch

    from steer_eval.steering.hooks import captured, residual

    with torch.no_grad(), captured(lm.blocks, [layer], stop=True) as outputs:
        lm.final_hidden(torch.tensor([list(ids)]))
    found: Tensor = residual(outputs[layer])[0]
    return found


def shared_tail(first: Sequence[int], second: Sequence[int]) -> int:
    """How many of their last tokens two texts have in common."""
    length = 0
    while length < min(len(first), len(second)) and first[-1 - length] == second[-1 - length]:
        length += 1
    return length


@dataclass(frozen=True, eq=False)
class ConversationPatch(PromptEdit):
    """A patch of the tail of a prompt's conversation.

    Args:
        conversations: The prompt with and without the anchor.
        source: Where the residuals come from.
        seed: Decides random changes.
    """

    conversations: Conversations
    source: Source
    seed: int = 0

    def of(self, prompt: str) -> Patch:
        """The patch of a row whose user says this."""
        shared = self.conversations.shared(prompt)
        return Patch(self.conversations.layer, self._residuals(shared, prompt), shared.at)

    def key(self) -> EditKey:
        """What decides it beside the prompt: not the residuals, which are known only once the model has run."""
        drawn = [self.seed] if self.source == "random" else []
        return ("patch", self.conversations.layer, self.source, self.conversations.anchor, *drawn)

    def to_json(self) -> dict[str, Any]:
        """It as a row of a table describes it."""
        return {"kind": "patch", "layer": self.conversations.layer, "positions": "prompt", "source": self.source}

    def _residuals(self, shared: Shared, prompt: str) -> Tensor:
        match self.source:
            case "anchor":
                return shared.anchored
            case "prompt":
                return shared.plain
            case "random":
                plain = shared.plain.float()
                norms = (shared.anchored.float() - plain).double().norm(dim=1).cpu().numpy().astype(np.float64)
                change = random_changes(norms, plain.shape[1], seed=self.seed, prompt=prompt)
                return plain + plain.new_tensor(change)
