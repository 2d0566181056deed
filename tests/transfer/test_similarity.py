from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA

from steer_eval.errors import SteerEvalError
from steer_eval.transfer.heldout import PairedRows, held_out_r2, held_out_svcca, splits
from steer_eval.transfer.maps import plain_procrustes_from, procrustes_from, random_rotation, ridge_from
from steer_eval.transfer.similarity import cosine, debiased_cka, leading_components, nearest, svcca


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


def test_components_and_directions_are_those_of_the_rows_that_are_fitted_on():
    rows = paired(120, 9, seed=13, noise=1.0)
    each = [svcca(rows.of(~out), rows.of(out), rank=3) for out in splits(rows.texts, seed=5)]

    assert held_out_svcca(rows, rank=3, seed=5) == pytest.approx(np.mean(each))


@pytest.mark.parametrize(("rows", "d"), [(90, 70), (70, 90), (30, 20)])
def test_leading_components_are_those_of_scikit_learn_however_they_are_found(rows, d):
    """Iterated where there are hundreds of dimensions for a few components, by a whole decomposition elsewhere."""
    random = np.random.default_rng(rows)
    values = random.standard_normal((rows, d)) * np.geomspace(1, 9, d) + 5
    others = random.standard_normal((11, d))
    pca = PCA(8, svd_solver="full", whiten=True).fit(values)

    found = leading_components(values, rank=8)(others) * np.sqrt(rows - 1)

    assert np.allclose(np.abs(found), np.abs(pca.transform(others)), rtol=1e-6, atol=1e-8)


def test_what_does_not_vary_correlates_with_nothing():
    """One held-out row, or copies of one, have no correlation; neither have directions that one side lacks."""
    rows = paired(60, 6, seed=12, noise=0.0)
    fit = rows.of(rows.texts < 8)
    copies = np.repeat(rows.target[:1], 7, axis=0)
    narrow = np.outer(fit[1][:, 0], np.ones(6))

    assert svcca(fit, (rows.source[:7], copies), rank=3) == 0.0
    assert svcca(fit, (rows.source[:1], rows.target[:1]), rank=3) == 0.0
    assert 0 < svcca((fit[0], narrow), (fit[0], narrow), rank=3) <= 1


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


def test_a_rotation_without_centring_spends_itself_on_the_mean():
    """The known fault of the plain protocol: off the origin it explains less than the mean alone."""
    random = np.random.default_rng(11)
    source = random.standard_normal((30, 8)) + 50 * np.eye(8)[0]
    rows = PairedRows(source, (source - source.mean(axis=0)) @ random_rotation(random, 8, 8) + 9.0, np.arange(30) % 6)

    assert held_out_r2(rows, procrustes_from, seed=0) > 1 - 1e-9
    assert held_out_r2(rows, plain_procrustes_from, seed=0) < 0


def test_what_is_nearest_is_so_by_cosine():
    native = np.diag([1.0, 2.0, 3.0, 4.0])

    assert nearest(5 * native, native).tolist() == [0, 1, 2, 3]
    assert nearest(native[[1, 0, 2, 3]] + 0.1, native).tolist() == [1, 0, 2, 3]


def test_a_vector_that_is_zero_has_no_direction():
    native = np.diag([1.0, 2.0, 3.0])

    assert nearest(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), native).tolist() == [1, -1, 2]
    assert cosine(np.zeros(3), native[0]) == 0.0 == cosine(native[0], np.zeros(3))


@pytest.mark.parametrize("odd", [0, 1])
def test_rows_that_are_all_alike_have_no_alignment(odd):
    """So have rows of which all but one are equal, once the bias is taken out."""
    rows = paired(12, 5, seed=14, noise=1.0)
    alike = np.repeat(rows.target[:1], 12, axis=0)
    alike[:odd] += 1.0

    with pytest.raises(SteerEvalError, match="12 rows of the target are all alike"):
        debiased_cka(rows.source, alike)
