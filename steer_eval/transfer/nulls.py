"""What a statistic is where there is nothing to find.

Invariant: a null is made of the same rows by the same computation, with only the pairing or the signs drawn at random;
so whatever inflates the statistic (few rows, a few huge dimensions) inflates its null alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from steer_eval.transfer.heldout import PairedRows, Pairing, held_out_r2s, held_out_svcca
from steer_eval.transfer.maps import Fitter, Floats, LinearMap
from steer_eval.transfer.similarity import cosine, debiased_ckas, nearest

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


def pairings(rows: int, *, seed: int, draws: int) -> list[Pairing]:
    """The true pairing of some rows, and random ones after it.

    Args:
        rows: How many rows.
        seed: Decides the draws.
        draws: How many random ones.
    """
    random = np.random.Generator(np.random.Philox(seed))
    return [np.arange(rows), *(random.permutation(rows) for _ in range(draws))]


def permutation_test(
    statistics: Callable[[Sequence[Pairing]], Sequence[float]], rows: int, *, seed: int, draws: int = DRAWS
) -> Tested:
    """A statistic of paired rows against the same rows with their pairing shuffled.

    Args:
        statistics: The statistic under each of some pairings; larger means more alike.
        rows: How many rows.
        seed: Decides the draws.
        draws: How many.
    """
    value, *null = statistics(pairings(rows, seed=seed, draws=draws))
    return _tested(value, null)


def r2_test(
    rows: PairedRows, fitter: Fitter, *, seed: int, draws: int = DRAWS, on_fits: Callable[[int], None] = lambda _n: None
) -> Tested:
    """Held-out R2 of a map, refitted to every shuffled pairing.

    Args:
        rows: The rows.
        fitter: How the map is fitted.
        seed: Decides the folds and the draws.
        draws: How many draws.
        on_fits: Called with the number of maps just fitted, `folds * (draws + 1)` in all.
    """

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return held_out_r2s(rows, fitter, each, seed=seed, on_fits=on_fits)

    return permutation_test(statistics, len(rows.texts), seed=seed, draws=draws)


def cka_test(rows: PairedRows, *, seed: int, draws: int = DRAWS) -> Tested:
    """Debiased CKA against shuffled pairings."""

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return debiased_ckas(rows.source, rows.target, each)

    return permutation_test(statistics, len(rows.texts), seed=seed, draws=draws)


def svcca_test(rows: PairedRows, *, rank: int, seed: int, draws: int = DRAWS) -> Tested:
    """Held-out SVCCA against shuffled pairings.

    The principal components are those of all rows of a side: they know nothing of the pairing, so that the null keeps
    them.
    """
    reduced = rows.reduced(rank)

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return [held_out_svcca(reduced.paired(pairing), rank=rank, seed=seed) for pairing in each]

    return permutation_test(statistics, len(rows.texts), seed=seed, draws=draws)


def retrieval_test(carried: Floats, native: Floats, *, seed: int, draws: int = DRAWS) -> Tested:
    """Share of carried pairs that are nearest to their own native one, against shuffled native ones."""
    found = nearest(carried, native)

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return [float((found == pairing).mean()) for pairing in each]

    return permutation_test(statistics, len(carried), seed=seed, draws=draws)


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
