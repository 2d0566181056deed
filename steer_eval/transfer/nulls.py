"""What a statistic is where there is nothing to find.

Invariant: a null is made of the same rows by the same computation, with only that drawn at random which the statistic
is to tell of: the pairing, the signs or, for a random map, the map; what is observed is one of the draws. So whatever
inflates the statistic (few rows, a few huge dimensions, rows of one document that resemble each other) inflates its
null alike. What is exchanged is what is independent: documents, never the rows of one. The bound of a null is one of
its draws; from 19 draws on, a value is above it if and only if its p-value is at most `LEVEL`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steer_eval.transfer.heldout import PairedRows, Pairing, held_out_r2s, held_out_svccas, held_out_turned_r2s
from steer_eval.transfer.maps import Fitter, Floats, LinearMap, seeded_rotation
from steer_eval.transfer.similarity import cosines, debiased_ckas, nearest

DRAWS = 200
LEVEL = 0.05
_DIGITS = 12
"""What is left of a cosine's digits once those are dropped that differ by the order of a sum."""


@dataclass(frozen=True)
class Tested:
    """A statistic beside its null.

    Args:
        value: What was found.
        bound: The draw that a value must exceed to pass the test at `LEVEL`: the 95th percentile of the null and the
            observed value together. With too few draws, which no value can pass, the largest.
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


def may_reach(draws: int) -> int:
    """How many of so many draws may reach a value that passes the test at `LEVEL`; -1 below 19, where none can pass.

    The observed value counts as a draw (Phipson and Smyth 2010, Permutation p-values should never be zero, Statistical
    Applications in Genetics and Molecular Biology 9): `(reached + 1) / (draws + 1) <= LEVEL`.

    Args:
        draws: Draws of the null.
    """
    return int(LEVEL * (draws + 1)) - 1


def passes(p: float, draws: int) -> bool:
    """Whether a value is more than its null at `LEVEL`.

    Args:
        p: Its p-value, which may be rounded: what counts is the number of draws that it stands for.
        draws: Draws of the null.
    """
    return round(p * (draws + 1)) - 1 <= may_reach(draws)


def beside_null(value: float, null: list[float]) -> Tested:
    """A statistic beside what was drawn.

    A percentile between two draws would be no bound of a test at this level: of 20 draws, 9 in 100 values that are
    draws themselves lie above `numpy.quantile(null, 0.95)`.

    Args:
        value: What was found.
        null: The draws, at least one.
    """
    count = len(null)
    bound = sorted(null, reverse=True)[max(0, may_reach(count))]
    reached = sum(draw >= value for draw in null)
    return Tested(value, float(bound), (reached + 1) / (count + 1), count)


def pairings(documents: NDArray[np.int64], *, seed: int, draws: int) -> list[Pairing]:
    """The true pairing of some rows, and random ones after it, in which each document goes with another one.

    Rows of one document are no independent draws, so a null that shuffles rows takes whatever two sides have per
    document, be it unrelated, for a relation. Whole blocks of dependent rows are exchangeable (Winkler et al. 2015,
    Multi-level block permutation, NeuroImage 123), here documents: those of the target are permuted, and a row goes
    with the row at its place in its document's new partner. Where documents are equally long, the test is exact. A
    longer partner is cut, a shorter one is read again from its beginning, as only so all rows of a document go with one
    document. Documents laid end to end in random order, with a circular shift, would use each row once; but their
    borders don't meet, so a document is paired with pieces of two or three, the null is too narrow, and three in ten
    unrelated sides with offsets per document pass at the 5 % level.

    A document may keep its partner: the true pairing is one of the permutations, and without those that resemble it a
    test of few documents finds too much (Hemerik and Goeman 2018, arXiv:1411.7565). One document per draw does so on
    average; most of six do in 2 % of draws, most of 60 never.

    Args:
        documents: Document of each row, int64 `[rows]`; a document's rows are in order, but need not be adjacent. Rows
            that are independent are documents of their own.
        seed: Decides the draws.
        draws: How many random ones.
    """
    random = np.random.Generator(np.random.Philox(seed))
    _, first = np.unique(np.sort(documents), return_index=True)
    blocks = np.split(np.argsort(documents, kind="stable"), first[1:])
    return [
        np.arange(len(documents)),
        *(_exchanged(blocks, random.permutation(len(blocks))) for _ in range(draws)),
    ]


def _exchanged(blocks: Sequence[Pairing], order: Pairing) -> Pairing:
    pairing = np.empty(sum(map(len, blocks)), dtype=np.intp)
    for block, partner in zip(blocks, order, strict=True):
        pairing[block] = np.resize(blocks[partner], len(block))  # which cuts, or repeats
    return pairing


def permutation_test(
    statistics: Callable[[Sequence[Pairing]], Sequence[float]],
    documents: NDArray[np.int64],
    *,
    seed: int,
    draws: int = DRAWS,
) -> Tested:
    """A statistic of paired rows against the same rows with their documents paired at random.

    Args:
        statistics: The statistic under each of some pairings; larger means more alike.
        documents: Document of each row, int64 `[rows]`.
        seed: Decides the draws.
        draws: How many.
    """
    value, *null = statistics(pairings(documents, seed=seed, draws=draws))
    return beside_null(value, null)


def r2_test(
    rows: PairedRows, fitter: Fitter, *, seed: int, draws: int = DRAWS, on_fits: Callable[[int], None] = lambda _n: None
) -> Tested:
    """Held-out R2 of a map, refitted to every random pairing of the documents.

    Args:
        rows: The rows.
        fitter: How the map is fitted.
        seed: Decides the folds and the draws.
        draws: How many draws.
        on_fits: Called with the number of maps just fitted, `folds * (draws + 1)` in all.
    """

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return held_out_r2s(rows, fitter, each, seed=seed, on_fits=on_fits)

    return permutation_test(statistics, rows.texts, seed=seed, draws=draws)


def random_r2_test(
    rows: PairedRows, *, seed: int, draws: int = DRAWS, on_fits: Callable[[int], None] = lambda _n: None
) -> Tested:
    """Held-out R2 of a random map, against those of the random maps of the next seeds.

    To documents paired at random a random map can't be held: its scale is fitted, and between sides that are related
    any rotation has more to fit than between unrelated ones. That tells of the sides, and it passes in one case of
    three. Among other random maps, each with its own scale, it is a draw like any other, so that `p` is uniform: what
    is above this bound is luck, and a map that was learnt must be above it too.

    Args:
        rows: The rows.
        seed: Decides the folds and the map that is tested.
        draws: How many other maps.
        on_fits: Called with the number of scales just fitted, `folds * (draws + 1)` in all.
    """
    widths = rows.source.shape[1], rows.target.shape[1]
    rotations = (seeded_rotation(each, *widths) for each in range(seed, seed + draws + 1))
    value, *null = held_out_turned_r2s(rows, rotations, seed=seed, on_fits=on_fits)
    return beside_null(value, null)


def cka_test(rows: PairedRows, *, seed: int, draws: int = DRAWS) -> Tested:
    """Debiased CKA against random pairings of the documents."""

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return debiased_ckas(rows.source, rows.target, each)

    return permutation_test(statistics, rows.texts, seed=seed, draws=draws)


def svcca_test(
    rows: PairedRows, *, rank: int, seed: int, draws: int = DRAWS, on_fits: Callable[[int], None] = lambda _n: None
) -> Tested:
    """Held-out SVCCA against random pairings of the documents.

    Args:
        rows: The rows.
        rank: Principal components of each side, which are those of the rows that are fitted on.
        seed: Decides the folds and the draws.
        draws: How many draws.
        on_fits: Called with the number of fits just made, `folds * (draws + 1)` in all.
    """

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return held_out_svccas(rows, each, rank=rank, seed=seed, on_fits=on_fits)

    return permutation_test(statistics, rows.texts, seed=seed, draws=draws)


def retrieval_test(carried: Floats, native: Floats, *, seed: int, draws: int = DRAWS) -> Tested:
    """Share of carried pairs that are nearest to their own native one, against shuffled native ones.

    Contrast pairs are written one by one, so each is exchanged by itself.
    """
    found = nearest(carried, native)

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return [float((found == pairing).mean()) for pairing in each]

    return permutation_test(statistics, np.arange(len(carried)), seed=seed, draws=draws)


def sign_flip_test(carry: LinearMap, source: Floats, target: Floats, *, seed: int, draws: int = DRAWS) -> Tested:
    """Cosine of a carried steering vector to the native one, against vectors of pairs with random signs.

    A steering vector is a mean over contrast pairs. With the sign of each source pair drawn at random, the mean keeps
    its spread and loses its meaning; a map that sends everything into a few long dimensions then shows itself.

    Value and null have their signs: a vector that is carried to the opposite of the native one is not carried, so the
    test has one side. With n pairs one sign pattern in 2^n is the observed one, below which p does not come.

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
    signs = np.vstack([np.ones(len(source)), signs])
    # Equal signs make equal vectors but for rounding, and must count as equal.
    value, *null = np.round(cosines(signs @ carried, native), _DIGITS).tolist()
    return beside_null(value, null)
