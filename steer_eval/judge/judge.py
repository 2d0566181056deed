"""What a judge is.

Invariant: a judge gives back one judgement per question, in the order of the questions, whatever happens to it on the
way; it says what it is well enough for others to use the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from steer_eval.judge.rubric import Rubric
from steer_eval.judge.subjects import Ask, Judgement, ProtocolName


class Judge(Protocol):
    """Somebody, or something, that scores texts."""

    name: str
    """What files and tables call it: lower case, no underscore."""
    checked: bool
    """Whether canaries and duplicates tell anything about it."""

    def identity(self) -> dict[str, Any]:
        """What it is: kind, model, revision, settings."""

    def judge(
        self, asks: Sequence[Ask], rubric: Rubric, protocol: ProtocolName, advance: Callable[[int], None]
    ) -> list[Judgement]:
        """Answer questions.

        Args:
            asks: The questions.
            rubric: The rubric.
            protocol: How they are put.
            advance: Takes the number of questions that were just answered.
        """
