"""What a statistic is where there is nothing to find.

Invariant: a null is made of the same rows by the same computation, with only the pairing or the signs drawn at random;
so whatever inflates the statistic (few rows, a few huge dimensions) inflates its null alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from steer_eval.transfer.heldout import PairedRows
from steer_eval.transfer.maps import Floats, LinearMap
from steer_eval.transfer.similarity import cosine

DRAWS = 200
LEVEL = 0.05


@dataclass(frozen=True)
class Tested:
    """A statistic beside its null.

    Args:
        value: What was found.
        bound: 95th percentile of the null.
        p: Share of draws, the observed one among them, that reach the value.
        draws: How many draws the null has.
    """

    value: float
    bound: float
    p: float
    draws: int

    def to_json(self) -> dict[str, float | int]:
        """As a JSON object."""
        return {"value": self.value, "null_95": self.bound, "p": self.p, "draws": self.draws}


def _tested(value: float, null: list[float]) -> Tested:
    reached = sum(draw >= value for draw in null)
    return Tested(value, float(np.quantile(null, 1 - LEVEL)), (reached + 1) / (len(null) + 1), len(null))


def permutation_test(
    statistic: Callable[[PairedRows], float], rows: PairedRows, *, seed: int, draws: int = DRAWS
) -> Tested:
    """A statistic of paired rows against the same rows with their pairing shuffled.

    Args:
        statistic: Larger means more alike.
        rows: The rows.
        seed: Decides the draws.
        draws: How many.
    """
    random = np.random.Generator(np.random.Philox(seed))
    return _tested(statistic(rows), [statistic(rows.shuffled(random)) for _ in range(draws)])


def sign_flip_test(carry: LinearMap, source: Floats, target: Floats, *, seed: int, draws: int = DRAWS) -> Tested:
    """Cosine of a carried steering vector to the native one, against vectors of pairs with random signs.

    A steering vector is a mean over contrast pairs. With the sign of each source pair drawn at random, the mean keeps
    its spread and loses its meaning; a map that sends everything into a few long dimensions then shows itself.

    Args:
        carry: The map.
        source: Differences of the source's contrast pairs, `[pairs, d_source]`.
        target: Those of the target, `[pairs, d_target]`.
        seed: Decides the signs.
        draws: How many draws.
    """
    native = target.mean(axis=0)
    carried = carry.direction(source)
    random = np.random.Generator(np.random.Philox(seed))
    signs = random.choice([-1.0, 1.0], size=(draws, len(source)))
    # A direction and its opposite are the same axis, so the null has no side.
    null = [abs(cosine(row @ carried, native)) for row in signs]
    return _tested(cosine(carried.mean(axis=0), native), null)
