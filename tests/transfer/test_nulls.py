from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from steer_eval.transfer.heldout import (
    PairedRows,
    held_out_r2,
    held_out_r2s,
    held_out_svcca,
    held_out_svccas,
    held_out_turned_r2s,
)
from steer_eval.transfer.maps import (
    Floats,
    LinearMap,
    procrustes_from,
    random_from,
    random_rotation,
    ridge_from,
    seeded_rotation,
)
from steer_eval.transfer.nulls import (
    LEVEL,
    beside_null,
    cka_test,
    pairings,
    passes,
    permutation_test,
    r2_test,
    random_r2_test,
    retrieval_test,
    sign_flip_test,
    svcca_test,
)
from steer_eval.transfer.similarity import cosine, debiased_cka, debiased_ckas

OF_ROWS = {
    "cka": cka_test,
    "svcca": partial(svcca_test, rank=2),
    "procrustes": partial(r2_test, fitter=procrustes_from),
    "ridge": partial(r2_test, fitter=partial(ridge_from, alphas=[1.0, 10.0, 100.0])),
}
BY_CHANCE = 18
"""Most of 200 that a test at the 5 % level may find: the 99.5th percentile of a binomial."""


def lengths(random: np.random.Generator) -> np.ndarray:
    """Rows of each of 12 documents, of which some are seven times as long as others."""
    return random.integers(2, 15, 12)


def side(random: np.random.Generator, texts: np.ndarray, *, offset: float, d: int = 4) -> Floats:
    """Rows that know nothing of another side's, those of one document about an offset of their own."""
    return offset * random.standard_normal((texts.max() + 1, d))[texts] + random.standard_normal((len(texts), d))


def unrelated(seed: int, *, offset: float) -> PairedRows:
    random = np.random.default_rng(seed)
    texts = np.repeat(np.arange(12), lengths(random))
    return PairedRows(*(side(random, texts, offset=offset) for _ in range(2)), texts)


def rotated(seed: int, *, offset: float, noise: float) -> PairedRows:
    """The second side is the first one rotated, with some noise."""
    random = np.random.default_rng(seed)
    texts = np.repeat(np.arange(12), lengths(random))
    source = side(random, texts, offset=offset)
    target = 3 * source @ random_rotation(random, 4, 4) + noise * random.standard_normal(source.shape)
    return PairedRows(source, target + 5.0, texts)


def in_turn(values: Sequence[float]) -> list[tuple[float, list[float]]]:
    """Each of some values as the observed one, the others as its null: all roles that exchangeable values can have."""
    return [(value, [*values[:place], *values[place + 1 :]]) for place, value in enumerate(values)]


@pytest.mark.parametrize(("draws", "pass_it"), [(18, 0), (19, 1), (20, 1), (38, 1), (39, 2), (40, 2), (200, 10)])
def test_the_level_is_five_percent_at_most(draws, pass_it):
    """Of exchangeable values each is the observed one as often, so that the share that passes is the level itself."""
    random = np.random.default_rng(draws)
    for _ in range(20):
        roles = [beside_null(value, null) for value, null in in_turn(random.standard_normal(draws + 1).tolist())]
        assert sum(passes(found.p, found.draws) for found in roles) == pass_it <= 0.05 * (draws + 1)
        if draws >= 19:
            assert sum(found.value > found.bound for found in roles) == pass_it


@pytest.mark.parametrize("draws", [20, 40, 200])
def test_values_that_are_draws_themselves_pass_in_one_case_of_twenty(draws):
    random, cases = np.random.default_rng(draws), 4000
    drawn = random.standard_normal((cases, draws + 1)).tolist()
    above = sum(found.value > found.bound for found in (beside_null(value, null) for value, *null in drawn))

    share = ((draws + 1) // 20) / (draws + 1)
    assert binom.ppf(0.0005, cases, share) <= above <= binom.ppf(0.9995, cases, share)


def test_a_percentile_between_draws_would_be_another_level():
    """Why the bound is a draw: 9 in 100 exchangeable values lie above an interpolated percentile of 20."""
    random = np.random.default_rng(0)
    drawn = random.standard_normal((4000, 21))

    assert (drawn[:, 0] > np.quantile(drawn[:, 1:], 1 - LEVEL, axis=1)).mean() > 0.08


@given(
    value=st.integers(-3, 3), null=st.lists(st.integers(-3, 3), min_size=1, max_size=130), decimals=st.integers(4, 9)
)
def test_bound_and_p_value_say_the_same_of_ties_too(value, null, decimals):
    found = beside_null(value, null)

    assert found.bound in null
    assert found.p == (1 + sum(draw >= value for draw in null)) / (1 + len(null))
    assert passes(round(found.p, decimals), found.draws) is (found.p <= LEVEL)
    if len(null) >= 19:
        assert (found.value > found.bound) is (found.p <= LEVEL)
    else:
        assert found.bound == max(null)
        assert found.p > LEVEL


@given(values=st.lists(st.integers(0, 6), min_size=20, max_size=130))
def test_ties_never_pass_more_often(values):
    found = [beside_null(value, null) for value, null in in_turn(values)]

    assert sum(each.p <= LEVEL for each in found) <= 0.05 * len(values)


@pytest.mark.parametrize("offset", [0.0, 3.0], ids=["rows alone", "rows of documents"])
@pytest.mark.parametrize("statistic", OF_ROWS)
def test_a_null_stays_null(statistic, offset):
    found = [OF_ROWS[statistic](unrelated(seed, offset=offset), seed=seed, draws=19).p <= 0.05 for seed in range(200)]

    assert sum(found) <= BY_CHANCE


@pytest.mark.parametrize("sides", [rotated, unrelated], ids=["related", "unrelated"])
def test_a_random_map_stays_null_whether_sides_are_related_or_not(sides):
    """The control of the other maps: it is told apart from other random maps in one case of twenty."""
    noise = {"noise": 1.0} if sides is rotated else {}
    found = [random_r2_test(sides(seed, offset=2.0, **noise), seed=seed, draws=19).p for seed in range(200)]

    assert sum(p <= 0.05 for p in found) <= BY_CHANCE
    assert np.mean(found) == pytest.approx(0.525, abs=0.06)  # uniform over 1/20, 2/20, ... 1


def test_documents_paired_at_random_are_no_null_of_a_random_map():
    """Why it has one of its own: between related sides its one scale has something to fit."""
    found = [
        r2_test(rotated(seed, offset=2.0, noise=1.0), partial(random_from, seed=seed + 7), seed=seed, draws=19).p
        for seed in range(60)
    ]

    assert sum(p <= 0.05 for p in found) > 3 * 0.05 * len(found)


@pytest.mark.parametrize(("d_source", "d_target"), [(4, 4), (3, 5), (5, 3)])
def test_a_random_map_is_measured_like_any_other(d_source, d_target):
    random = np.random.default_rng(d_source)
    rows = PairedRows(*(random.standard_normal((40, d)) + 4 for d in (d_source, d_target)), np.arange(40) % 8)
    values = [held_out_r2(rows, partial(random_from, seed=each), seed=2) for each in range(2, 7)]

    turned = [seeded_rotation(each, d_source, d_target) for each in range(2, 7)]
    assert np.allclose(held_out_turned_r2s(rows, turned, seed=2), values)
    found = random_r2_test(rows, seed=2, draws=4)
    assert found.value == pytest.approx(values[0])
    assert found.p == (1 + sum(value >= values[0] for value in values[1:])) / 5


def test_pairs_that_are_unrelated_are_not_retrieved():
    random = np.random.default_rng(0)
    found = [retrieval_test(*random.standard_normal((2, 20, 6)), seed=seed, draws=19).p <= 0.05 for seed in range(200)]

    assert sum(found) <= BY_CHANCE


def test_rows_that_are_exchanged_one_by_one_would_find_what_is_not_there():
    """Why documents are exchanged: the same test takes two unrelated offsets per document for a relation."""

    def test(rows: PairedRows, *, seed: int) -> float:
        def statistics(each):
            return debiased_ckas(rows.source, rows.target, each)

        return permutation_test(statistics, np.arange(len(rows.texts)), seed=seed, draws=19).p

    assert sum(test(unrelated(seed, offset=3.0), seed=seed) <= 0.05 for seed in range(40)) >= 30


@pytest.mark.parametrize("test", OF_ROWS.values(), ids=OF_ROWS.keys())
def test_a_planted_map_is_found(test):
    for seed in range(40):
        assert test(rotated(seed, offset=2.0, noise=1.0), seed=seed, draws=19).p == 0.05


def test_a_planted_map_retrieves_its_pairs():
    rows = rotated(0, offset=0.0, noise=0.1)
    found = retrieval_test(procrustes_from(rows.source)(rows.target).rows(rows.source), rows.target, seed=0)

    assert found.value > 0.5 > found.bound
    assert found.p == 1 / 201


@given(documents=st.lists(st.integers(0, 5), min_size=1, max_size=30), seed=st.integers(0, 2**32))
def test_each_document_goes_with_one_document_place_by_place(documents, seed):
    documents = np.array(documents)
    true, *drawn = pairings(documents, seed=seed, draws=5)
    assert true.tolist() == list(range(len(documents)))
    for pairing in drawn:
        partners = {}
        for name in np.unique(documents):
            own = pairing[documents == name]
            (partner,) = set(documents[own].tolist())
            theirs = np.flatnonzero(documents == partner)
            assert own.tolist() == [theirs[place % len(theirs)] for place in range(len(own))]
            partners[int(name)] = partner
        assert sorted(partners.values()) == sorted(partners)


@given(rows=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_independent_rows_are_shuffled(rows, seed):
    for pairing in pairings(np.arange(rows), seed=seed, draws=3):
        assert sorted(pairing.tolist()) == list(range(rows))


def test_few_documents_stay_with_their_own():
    """60 documents: about one per draw keeps its partner, and none of 200 draws is near the true pairing."""
    documents = np.repeat(np.arange(60), 11)
    kept = [(documents[pairing] == documents).mean() for pairing in pairings(documents, seed=0, draws=200)[1:]]

    assert max(kept) <= 0.1
    assert np.mean(kept) == pytest.approx(1 / 60, rel=0.3)


def test_a_statistic_under_many_pairings_is_that_of_each():
    """What is shared between pairings must not change what is found under one."""
    random = np.random.default_rng(10)
    texts = np.arange(24) % 12
    source = side(random, texts, offset=1.0)
    rows = PairedRows(source, source @ random_rotation(random, 4, 4) + random.standard_normal((24, 4)), texts)
    each = pairings(texts, seed=3, draws=4)

    shuffled = [rows.paired(pairing) for pairing in each]
    assert held_out_r2s(rows, ridge_from, each, seed=1) == [held_out_r2(one, ridge_from, seed=1) for one in shuffled]
    assert np.allclose(
        debiased_ckas(rows.source, rows.target, each), [debiased_cka(one.source, one.target) for one in shuffled]
    )
    correlations = [held_out_svcca(one, rank=2, seed=1) for one in shuffled]
    assert np.allclose(held_out_svccas(rows, each, rank=2, seed=1), correlations)
    assert svcca_test(rows, rank=2, seed=1, draws=4).value == correlations[0]


def differences(*, seed: int, strength: float, pairs: int = 80, d: int = 12) -> np.ndarray:
    """Differences of contrast pairs: a common direction, and noise with one huge dimension."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((pairs, d))
    noise[:, 0] *= 8
    return noise + strength * np.eye(d)[1]


def planted(*, seed: int) -> LinearMap:
    """A rotation, fitted to rows with little noise."""
    random = np.random.default_rng(seed)
    source = random.standard_normal((60, 12)) * np.geomspace(1, 4, 12) + 7.0
    target = source @ random_rotation(random, 12, 12) + 0.1 * random.standard_normal((60, 12))
    return procrustes_from(source)(target)


def test_a_carried_vector_is_held_to_vectors_of_random_signs():
    source = differences(seed=6, strength=8.0)
    carry = planted(seed=7)
    native = carry.direction(differences(seed=8, strength=8.0))

    found = sign_flip_test(carry, source, native, seed=0)

    assert found.value == pytest.approx(cosine(carry.direction(source.mean(axis=0)), native.mean(axis=0)))
    assert found.bound > 0.3  # the huge dimension alone
    assert found.p <= 0.05 < sign_flip_test(carry, differences(seed=6, strength=0.0), native, seed=0).p


def test_vectors_without_a_direction_pass_in_one_case_of_twenty():
    """Neither more nor fewer: a signed value beside the sizes of its null would pass in one of forty."""
    carry, cases = planted(seed=9), 2000
    found = [
        sign_flip_test(
            carry,
            differences(seed=seed, strength=0.0),
            differences(seed=seed + 5000, strength=3.0),
            seed=seed,
            draws=99,
        ).p
        <= 0.05
        for seed in range(cases)
    ]

    assert sum(found[:200]) <= BY_CHANCE
    assert binom.ppf(0.0005, cases, 0.05) <= sum(found) <= binom.ppf(0.9995, cases, 0.05)


def test_a_vector_that_is_carried_to_the_opposite_is_not_carried():
    source, carry = differences(seed=6, strength=8.0), planted(seed=7)

    found = sign_flip_test(carry, source, -carry.direction(differences(seed=8, strength=8.0)), seed=0)

    assert found.value < -0.5
    assert found.p > 0.9


@pytest.mark.parametrize("pairs", [3, 5])
def test_few_pairs_have_few_signs(pairs):
    """One pattern in 2^n is the observed one, so that p stays about that whatever the number of draws."""
    source, carry = differences(seed=1, strength=40.0, pairs=pairs), planted(seed=2)

    found = sign_flip_test(carry, source, carry.direction(source), seed=0, draws=4000)

    assert found.value == pytest.approx(1.0)
    assert found.p == pytest.approx(2.0**-pairs, rel=0.25)


def test_pairs_that_cancel_have_no_direction():
    source = np.array([[1.0, 2.0], [1.0, 2.0]])
    carry = LinearMap(np.eye(2), np.zeros(2), np.zeros(2), {})

    found = sign_flip_test(carry, source, source, seed=0, draws=20)

    assert np.isfinite(found.bound)
    assert found.value == pytest.approx(1.0)
