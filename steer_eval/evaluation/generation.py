"""What a greedy generation is, whoever makes it.

Invariant: decoding is greedy and ends at an end-of-sequence token or after `max_new_tokens`. The gap between the two
largest logits is kept for each token, because a text is only determined up to the first near-tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from steer_eval.errors import SteerEvalError
from steer_eval.steering.interventions import Intervention, check_prompt

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


def check_request(request: Request, max_new_tokens: int) -> None:
    """Check that a row can be generated.

    Raises:
        SteerEvalError: Its prompt has no tokens, or none are asked for.
        ValueError: A patch reaches beyond its prompt.
    """
    if max_new_tokens < 1:
        raise SteerEvalError(f"a text of at most {max_new_tokens} tokens", "ask for at least one")
    if not request.ids:
        raise SteerEvalError(
            "a prompt has no tokens, so there is nothing to continue", "write a prompt, or mend the chat template"
        )
    check_prompt(request.intervention, len(request.ids))


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
