"""What a statistic is where there is nothing to find.

Invariant: a null is made of the same rows by the same computation, with only the pairing or the signs drawn at random;
so whatever inflates the statistic (few rows, a few huge dimensions, rows of one document that resemble each other)
inflates its null alike. What is exchanged is what is independent: documents, never the rows of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    return _tested(value, null)


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


def cka_test(rows: PairedRows, *, seed: int, draws: int = DRAWS) -> Tested:
    """Debiased CKA against random pairings of the documents."""

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return debiased_ckas(rows.source, rows.target, each)

    return permutation_test(statistics, rows.texts, seed=seed, draws=draws)


def svcca_test(rows: PairedRows, *, rank: int, seed: int, draws: int = DRAWS) -> Tested:
    """Held-out SVCCA against random pairings of the documents.

    The principal components are those of all rows of a side: they know nothing of the pairing, so that the null keeps
    them.
    """
    reduced = rows.reduced(rank)

    def statistics(each: Sequence[Pairing]) -> list[float]:
        return [held_out_svcca(reduced.paired(pairing), rank=rank, seed=seed) for pairing in each]

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
