"""What judging will cost, before it does, and the limit that it may not cross.

Invariant: a call is only made if it fits the limits at its worst case, calls in flight included; prices come from the
user, because no table of prices stays true.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steer_eval.judge.protocol import Prompt

CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly; the endpoint's own count is what is paid for, and is recorded."""
TURN_TOKENS = 8
"""Of the marks around a turn."""


@dataclass(frozen=True)
class Price:
    """What a million tokens cost, in a currency of the user's.

    Args:
        tokens_in: Of prompts.
        tokens_out: Of replies.
    """

    tokens_in: float
    tokens_out: float

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """What some tokens cost."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What is about to be asked.

    Args:
        asks: Questions.
        calls: Questions whose reply is not in the log.
        tokens_in: Tokens of their prompts, roughly.
        tokens_out: Tokens of their replies at most.
        cost: What that costs at most; None without a price.
    """

    asks: int
    calls: int
    tokens_in: int
    tokens_out: int
    cost: float | None

    def __str__(self) -> str:
        price = "" if self.cost is None else f", at most {self.cost:.4g} at the given price"
        return (
            f"{self.asks} questions, {self.calls} of them new calls: about {self.tokens_in} tokens in, at most "
            f"{self.tokens_out} out{price}"
        )


def prompt_tokens(prompt: Prompt) -> int:
    """Tokens of a prompt, roughly, and rather too many than too few."""
    return sum(len(turn) // CHARACTERS_PER_TOKEN + TURN_TOKENS for turn in (prompt.system, prompt.user))


def estimate(asks: int, missing: Iterable[Prompt], *, max_tokens: int, price: Price | None) -> Estimate:
    """Estimate what is still to be asked.

    Args:
        asks: All questions.
        missing: Prompts of those whose reply is not in the log.
        max_tokens: Longest reply.
        price: What tokens cost, if known.
    """
    sizes = [prompt_tokens(prompt) for prompt in missing]
    tokens_in, tokens_out = sum(sizes), len(sizes) * max_tokens
    return Estimate(asks, len(sizes), tokens_in, tokens_out, price.of(tokens_in, tokens_out) if price else None)


class Budget:
    """What may still be spent.

    Args:
        max_calls: Calls that may be made; None for any number.
        max_cost: What they may cost; None for any amount.
        price: What tokens cost; needed for `max_cost`.
    """

    def __init__(self, *, max_calls: int | None = None, max_cost: float | None = None, price: Price | None = None):
        self.max_calls = max_calls
        self.max_cost = max_cost
        self.price = price
        self.calls = 0
        self.tokens_in = 0
        self.tokens_out = 0
        self._in_flight = 0.0

    @property
    def cost(self) -> float | None:
        """What was spent, by the endpoint's own counts."""
        return None if self.price is None else self.price.of(self.tokens_in, self.tokens_out)

    def reserve(self, tokens_in: int, tokens_out: int) -> float | None:
        """Set aside what a call costs at worst.

        Returns:
            The amount, for `settle`; None if the call does not fit the limits.
        """
        worst = self.price.of(tokens_in, tokens_out) if self.price else 0.0
        if self.max_calls is not None and self.calls >= self.max_calls:
            return None
        if self.max_cost is not None and (self.cost or 0.0) + self._in_flight + worst > self.max_cost:
            return None
        self.calls += 1
        self._in_flight += worst
        return worst

    def settle(self, reserved: float, tokens_in: int, tokens_out: int) -> None:
        """Put what a call did cost in place of what was set aside."""
        self._in_flight -= reserved
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
