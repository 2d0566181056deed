from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge, RidgeCV

from steer_eval.transfer.maps import ALPHAS, procrustes_from, random_from, random_rotation, ridge_from


def some_rows(rows: int, d: int, *, seed: int) -> np.ndarray:
    """Rows far from the origin, as residuals are."""
    random = np.random.default_rng(seed)
    return random.standard_normal((rows, d)) * np.geomspace(1, 5, d) + 10 * random.standard_normal(d)


@pytest.mark.parametrize(("rows", "d_source", "d_target"), [(12, 30, 7), (80, 9, 11), (40, 40, 40)])
def test_ridge_is_that_of_scikit_learn(rows, d_source, d_target):
    source, target = some_rows(rows, d_source, seed=0), some_rows(rows, d_target, seed=1)
    expected = Ridge(alpha=3.0, solver="svd").fit(source, target)

    fitted = ridge_from(source, alphas=[3.0])(target)

    assert np.allclose(fitted.matrix, expected.coef_.T, atol=1e-8)
    assert np.allclose(fitted.rows(source), expected.predict(source))


@pytest.mark.parametrize("noise", [0.1, 3.0, 30.0])
@pytest.mark.parametrize(("rows", "d_source"), [(25, 40), (100, 12)])
def test_the_penalty_is_the_one_that_leave_one_out_chooses(rows, d_source, noise):
    source = some_rows(rows, d_source, seed=2)
    random = np.random.default_rng(3)
    target = source @ random.standard_normal((d_source, 5)) + noise * random.standard_normal((rows, 5))
    expected = RidgeCV(ALPHAS, scoring="neg_mean_squared_error").fit(source, target)

    assert ridge_from(source)(target).settings == {"alpha": expected.alpha_}


@pytest.mark.parametrize(("rows", "d_source"), [(9, 20), (21, 20), (40, 20)])
def test_the_penalty_is_the_one_with_the_least_error_on_rows_left_out_one_by_one(rows, d_source):
    few = ALPHAS[::4]
    source = some_rows(rows, d_source, seed=6)
    for seed in range(4):
        random = np.random.default_rng(seed)
        target = source @ random.standard_normal((d_source, 3)) + 10.0 ** (seed - 1) * random.standard_normal((rows, 3))
        errors = {alpha: left_out_error(source, target, alpha) for alpha in few}

        assert ridge_from(source, alphas=few)(target).settings == {"alpha": min(errors, key=errors.__getitem__)}


def left_out_error(source: np.ndarray, target: np.ndarray, alpha: float) -> float:
    """Sum of squared errors on each row of ridge with an intercept, fitted to all others."""
    error = 0.0
    for row in range(len(source)):
        others = np.arange(len(source)) != row
        fitted = Ridge(alpha, solver="svd").fit(source[others], target[others])
        error += ((target[row] - fitted.predict(source[row : row + 1])[0]) ** 2).sum()
    return error


def test_rotation_is_that_of_scipy():
    source, target = some_rows(50, 8, seed=4), some_rows(50, 8, seed=5)
    rotation, sums = orthogonal_procrustes(source - source.mean(axis=0), target - target.mean(axis=0))
    scale = sums / ((source - source.mean(axis=0)) ** 2).sum()

    assert np.allclose(procrustes_from(source)(target).matrix, scale * rotation)


@given(seed=st.integers(0, 2**32), d=st.integers(2, 8), wider=st.integers(0, 4), scale=st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_a_planted_rotation_is_recovered(seed, d, wider, scale):
    random = np.random.default_rng(seed)
    source = some_rows(4 * d, d, seed=seed)
    planted = scale * random_rotation(random, d, d + wider)

    fitted = procrustes_from(source)(source @ planted + random.standard_normal(d + wider))

    assert np.allclose(fitted.matrix, planted, atol=1e-8 * scale)
    assert np.isclose(fitted.settings["scale"], scale)


@given(d_source=st.integers(1, 9), d_target=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_random_rotations_are_orthonormal_on_the_narrow_side(d_source, d_target, seed):
    rotation = random_rotation(np.random.default_rng(seed), d_source, d_target)

    product = rotation @ rotation.T if d_source <= d_target else rotation.T @ rotation
    assert rotation.shape == (d_source, d_target)
    assert np.allclose(product, np.eye(min(d_source, d_target)))


def test_random_maps_are_seeded_and_scaled_to_fit():
    source, target = some_rows(30, 6, seed=6), some_rows(30, 4, seed=7)

    one = random_from(source, seed=1)(target)

    assert np.array_equal(one.matrix, random_from(source, seed=1)(target).matrix)
    assert not np.allclose(one.matrix, random_from(source, seed=2)(target).matrix)
    errors = [
        ((target - one.target_mean - factor * (source - one.source_mean) @ one.matrix) ** 2).sum()
        for factor in (0.9, 1.0, 1.1)
    ]
    assert errors[1] == min(errors)


def test_a_direction_is_carried_without_the_means():
    source, target = some_rows(30, 6, seed=8), some_rows(30, 4, seed=9)
    fitted = ridge_from(source, alphas=[1.0])(target)

    assert np.allclose(
        fitted.direction(source[0] - source[1]), fitted.rows(source[:1])[0] - fitted.rows(source[1:2])[0]
    )


def test_one_pair_of_rows_makes_no_map():
    with pytest.raises(ValueError, match="1 rows; a map needs two"):
        ridge_from(np.zeros((1, 3)))(np.zeros((1, 3)))
