"""What a greedy generation is, whoever makes it.

Invariant: decoding is greedy and ends at an end-of-sequence token or after `max_new_tokens`. The gap between the two
largest logits is kept for each token, because a text is only determined up to the first near-tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from steer_eval.steering.interventions import Intervention

TIE_GAP = 1e-4
"""Gap between the two largest logits below which float32 rounding may decide the token."""


@dataclass(frozen=True, eq=False)
class Request:
    """One row to generate.

    Args:
        ids: Prompt tokens.
        intervention: How the row is steered.
    """

    ids: tuple[int, ...]
    intervention: Intervention


@dataclass(frozen=True)
class Generation:
    """One greedy continuation.

    Args:
        ids: Generated tokens, the end-of-sequence token left out.
        gaps: For each generated token (and for the end-of-sequence token where there is one) the gap between the two
            largest logits.
        stop: Why it ended.
    """

    ids: tuple[int, ...]
    gaps: tuple[float, ...]
    stop: Literal["eos", "length"]

    @property
    def tie_at(self) -> int | None:
        """Position of the first near-tie, or None; tokens before it are determined."""
        return next((position for position, gap in enumerate(self.gaps) if gap < TIE_GAP), None)

    def agrees_with(self, ids: Sequence[int]) -> bool:
        """Whether other tokens are the same text: identical up to the first near-tie of this generation."""
        tie = self.tie_at
        return tuple(ids) == self.ids if tie is None else tuple(ids[:tie]) == self.ids[:tie]
