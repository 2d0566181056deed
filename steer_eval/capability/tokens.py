"""Texts that know their tokens.

Invariant: a `Tokens` is its text to whoever takes it for a string, so that any model of lm-eval can be asked about it;
our own model type reads the ids and never tokenises it again.
"""

from __future__ import annotations

from collections.abc import Sequence


class Tokens(str):
    """A text and the token ids that it stands for.

    Attributes:
        ids: The tokens.
    """

    __slots__ = ("ids",)
    ids: tuple[int, ...]

    def __new__(cls, text: str, ids: Sequence[int]) -> Tokens:
        """A text with its tokens."""
        made = super().__new__(cls, text)
        made.ids = tuple(ids)
        return made
