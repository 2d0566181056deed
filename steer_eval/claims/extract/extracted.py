"""What extraction finds in a text.

Invariant: an `Extracted` stands for one number (or one statement without a number) at one place; it is either a claim
that can be looked up, or carries the reason why it is none.
"""

from __future__ import annotations

from dataclasses import dataclass

from steer_eval.claims.claim import Claim

NOT_UNDERSTOOD = "not understood"
SAYS_WHERE = "it says where, and is not a result"


@dataclass(frozen=True)
class Extracted:
    """One number of a text and what it is taken to say.

    Args:
        claim: The claim; its measure is empty where there is none.
        line: Line in the text, from 1.
        start: Column of its first character, from 0.
        end: Column after its last character.
        reason: Why it is no claim; empty for a claim.
        noun: What the words say that it is counted over, where that matters: `tokens`, `prompts`, `each` file, or the
            `total` of several.
        bound: `<` or `>` where the number is stated as a bound.
        inferred: How names in the claim were understood.
    """

    claim: Claim
    line: int
    start: int
    end: int
    reason: str = ""
    noun: str = ""
    bound: str = ""
    inferred: str = ""
