"""Contrast pairs.

Invariant: a pair is three texts; the digest of pairs changes with any of their texts and with their order, and with
nothing else, so that a vector can say which pairs it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steer_eval.digest import sha256_value


@dataclass(frozen=True)
class ContrastPair:
    """Two replies to one scenario.

    Args:
        scenario: The user's turn.
        positive: The reply in the persona.
        negative: The reference reply.
    """

    scenario: str
    positive: str
    negative: str


def pairs_digest(pairs: Sequence[ContrastPair]) -> str:
    """SHA-256 over the texts of contrast pairs, in order."""
    return sha256_value([[pair.scenario, pair.positive, pair.negative] for pair in pairs])


def folded(text: str) -> str:
    """A text without its case and the width of its white space; texts with equal forms are the same to a reader."""
    return " ".join(text.split()).casefold()
