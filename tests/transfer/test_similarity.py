from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA

from steer_eval.transfer.heldout import PairedRows, held_out_r2, held_out_r2s, held_out_svcca, splits
from steer_eval.transfer.maps import fit_procrustes, plain_procrustes_from, procrustes_from, random_rotation, ridge_from
from steer_eval.transfer.nulls import cka_test, pairings, r2_test, retrieval_test, sign_flip_test, svcca_test
from steer_eval.transfer.similarity import cosine, debiased_cka, debiased_ckas, retrieval, svcca


def paired(rows: int, d: int, *, seed: int, noise: float, texts: int = 12) -> PairedRows:
    """Rows of which the second side is the first one rotated, with some noise."""
    random = np.random.default_rng(seed)
    source = random.standard_normal((rows, d)) * np.geomspace(1, 4, d) + 7.0
    target = source @ random_rotation(random, d, d) + noise * random.standard_normal((rows, d))
    return PairedRows(source, target, np.arange(rows) % texts)


def unrelated(rows: int, d: int, *, seed: int, texts: int = 12) -> PairedRows:
    random = np.random.default_rng(seed)
    return PairedRows(*random.standard_normal((2, rows, d)), np.arange(rows) % texts)


def test_alignment_of_a_rotation_is_one_and_of_noise_about_zero():
    same = paired(40, 20, seed=0, noise=0.0)
    found = [debiased_cka(rows.source, rows.target) for rows in (unrelated(20, 60, seed=seed) for seed in range(200))]

    assert np.isclose(debiased_cka(same.source, 3 * same.target + 5), 1.0)
    # The biased form would be near 0.75 here.
    assert abs(np.mean(found)) <= 4 * np.std(found) / np.sqrt(len(found))


def test_the_estimate_is_the_sum_over_all_quadruples():
    """Song et al.: unbiased HSIC is a mean over ordered 4-tuples of distinct rows."""
    from itertools import permutations

    rows = unrelated(7, 3, seed=1)
    k, m = (side @ side.T for side in (rows.source, rows.target))

    def hsic(a, b):
        terms = [a[i, j] * (b[i, j] + b[q, r] - 2 * b[i, q]) for i, j, q, r in permutations(range(7), 4)]
        return np.mean(terms)

    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert np.isclose(debiased_cka(rows.source, rows.target), expected)


def test_canonical_correlations_are_those_of_scikit_learn():
    rows = paired(200, 12, seed=2, noise=2.0)
    fit, held_out = rows.of(rows.texts < 8), rows.of(rows.texts >= 8)
    components = [PCA(4).fit(side) for side in fit]
    reduced = [pca.transform(side) for pca, side in zip(components, fit, strict=True)]
    left = [pca.transform(side) for pca, side in zip(components, held_out, strict=True)]
    a, b = CCA(4, max_iter=5000, tol=1e-12).fit(*reduced).transform(*left)
    expected = np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)])

    assert np.isclose(svcca(fit, held_out, rank=4), expected, atol=1e-3)


def test_every_text_is_left_out_once_with_all_its_rows():
    texts = np.array([3, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3])

    folds = np.array(list(splits(texts, seed=0, folds=3)))

    assert folds.sum(axis=0).tolist() == [1] * len(texts)
    for fold in folds:
        assert not set(texts[fold]) & set(texts[~fold])


def test_held_out_variance_of_a_planted_map():
    clean, noisy = paired(60, 8, seed=3, noise=0.0), paired(60, 8, seed=3, noise=1.0)
    total = noisy.target.var(axis=0).sum()

    assert held_out_r2(clean, procrustes_from, seed=0) > 1 - 1e-9
    # Unit noise in 8 dimensions is what no map can explain.
    assert held_out_r2(noisy, procrustes_from, seed=0) == pytest.approx(1 - 8 / total, abs=0.05)
    assert held_out_svcca(clean, rank=4, seed=0) > 1 - 1e-9


def test_nothing_is_explained_where_nothing_is():
    rows = unrelated(60, 40, seed=4)

    assert held_out_r2(rows, ridge_from, seed=0) < 0.02
    assert held_out_r2(rows, partial(ridge_from, alphas=[1e-6]), seed=0) < 0


@pytest.mark.parametrize(
    "test",
    [
        cka_test,
        partial(r2_test, fitter=procrustes_from),
        partial(svcca_test, rank=2),
        lambda rows, **how: retrieval_test(rows.source, rows.target, **how),
    ],
    ids=["cka", "r2", "svcca", "retrieval"],
)
def test_a_null_stays_null(test):
    """At most 18 of 200: the 99.5th percentile of a binomial with p = 0.05."""
    found = [test(unrelated(18, 6, seed=seed, texts=3), seed=seed, draws=19).p <= 0.05 for seed in range(200)]

    assert sum(found) <= 18


def test_a_planted_map_is_no_null():
    rows = paired(40, 10, seed=5, noise=1.0)

    assert cka_test(rows, seed=0, draws=99).p == 0.01
    assert r2_test(rows, procrustes_from, seed=0, draws=99).p == 0.01
    assert svcca_test(rows, rank=3, seed=0, draws=99).p == 0.01
    assert retrieval_test(fit_procrustes(rows.source, rows.target).rows(rows.source), rows.target, seed=0).value == 1.0


def test_a_statistic_under_many_pairings_is_that_of_each():
    """What is shared between pairings must not change what is found under one."""
    rows = paired(24, 5, seed=10, noise=1.0)
    each = pairings(24, seed=3, draws=4)

    assert each[0].tolist() == list(range(24))
    shuffled = [PairedRows(rows.source, rows.target[pairing], rows.texts) for pairing in each]
    assert held_out_r2s(rows, ridge_from, each, seed=1) == [held_out_r2(one, ridge_from, seed=1) for one in shuffled]
    assert np.allclose(
        debiased_ckas(rows.source, rows.target, each), [debiased_cka(one.source, one.target) for one in shuffled]
    )


def test_a_rotation_without_centring_spends_itself_on_the_mean():
    """The known fault of the plain protocol: off the origin it explains less than the mean alone."""
    random = np.random.default_rng(11)
    source = random.standard_normal((30, 8)) + 50 * np.eye(8)[0]
    rows = PairedRows(source, (source - source.mean(axis=0)) @ random_rotation(random, 8, 8) + 9.0, np.arange(30) % 6)

    assert held_out_r2(rows, procrustes_from, seed=0) > 1 - 1e-9
    assert held_out_r2(rows, plain_procrustes_from, seed=0) < 0


def differences(*, seed: int, strength: float, pairs: int = 80, d: int = 12) -> np.ndarray:
    """Differences of contrast pairs: a common direction, and noise with one huge dimension."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((pairs, d))
    noise[:, 0] *= 8
    return noise + strength * np.eye(d)[1]


def test_a_carried_vector_is_held_to_vectors_of_random_signs():
    source = differences(seed=6, strength=8.0)
    rows = paired(60, 12, seed=7, noise=0.1)
    carry = fit_procrustes(rows.source, rows.target)
    native = carry.direction(differences(seed=8, strength=8.0))

    found = sign_flip_test(carry, source, native, seed=0)

    assert found.value == pytest.approx(cosine(carry.direction(source.mean(axis=0)), native.mean(axis=0)))
    assert found.bound > 0.3  # the huge dimension alone
    assert found.p <= 0.05 < sign_flip_test(carry, differences(seed=6, strength=0.0), native, seed=0).p


def test_vectors_without_a_direction_stay_null():
    rows = paired(60, 12, seed=9, noise=0.1)
    carry = fit_procrustes(rows.source, rows.target)
    found = [
        sign_flip_test(
            carry, differences(seed=seed, strength=0.0), differences(seed=seed + 500, strength=3.0), seed=seed, draws=99
        ).p
        <= 0.05
        for seed in range(200)
    ]

    assert sum(found) <= 18


def test_retrieval_counts_own_pairs():
    native = np.eye(4)

    assert retrieval(5 * native, native) == 1.0
    assert retrieval(native[[1, 0, 2, 3]], native) == 0.5
