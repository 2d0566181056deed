from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge, RidgeCV

from steer_eval.errors import SteerEvalError
from steer_eval.transfer.maps import (
    ALPHAS,
    plain_procrustes_from,
    procrustes_from,
    random_from,
    random_rotation,
    ridge_from,
)
from steer_eval.transfer.penalty import left_out_errors


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


@pytest.mark.parametrize(("documents", "d_source"), [(3, 20), (7, 20), (12, 6)])
def test_the_penalty_is_the_one_with_the_least_error_on_documents_left_out_one_by_one(documents, d_source):
    """All errors, by fitting again: fewer rows than dimensions, about as many, and more."""
    few = ALPHAS[::4]
    names = np.repeat(np.arange(documents), np.arange(documents) % 4 + 1)[::-1] * 3
    source = some_rows(len(names), d_source, seed=6)
    for seed in range(4):
        random = np.random.default_rng(seed)
        target = source @ random.standard_normal((d_source, 3)) + 10.0 ** (seed - 1) * random.standard_normal(
            (len(names), 3)
        )
        expected = [left_out_error(source, target, names, alpha) for alpha in few]

        x, y = source - source.mean(axis=0), target - target.mean(axis=0)
        left, singular, _ = np.linalg.svd(x, full_matrices=False)
        errors = left_out_errors(left, [alpha / (singular**2 + alpha) for alpha in few], names)
        assert np.allclose(errors(y, left.T @ y), expected)
        assert ridge_from(source, names, alphas=few)(target).settings == {"alpha": few[int(np.argmin(expected))]}


def left_out_error(source: np.ndarray, target: np.ndarray, documents: np.ndarray, alpha: float) -> float:
    """Sum of squared errors on each document of ridge with an intercept, fitted to all others."""
    error = 0.0
    for name in np.unique(documents):
        others = documents != name
        fitted = Ridge(alpha, solver="svd").fit(source[others], target[others])
        error += ((target[~others] - fitted.predict(source[~others])) ** 2).sum()
    return error


def test_rows_left_out_one_by_one_would_choose_too_small_a_penalty():
    """Why documents are left out: with an offset per document on both sides, other rows of it tell of each."""
    names = np.repeat(np.arange(10), 8)
    random = np.random.default_rng(0)
    source = 3 * random.standard_normal((10, 30))[names] + 0.1 * random.standard_normal((80, 30))
    target = 3 * random.standard_normal((10, 5))[names] + 0.1 * random.standard_normal((80, 5))

    by_row, by_document = (ridge_from(source, each)(target).settings["alpha"] for each in (None, names))

    assert by_document >= 100 * by_row


def test_a_single_document_can_not_be_left_out():
    with pytest.raises(ValueError, match="one document"):
        ridge_from(some_rows(9, 3, seed=0), np.zeros(9, dtype=np.int64))


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


def test_rotation_as_it_stands_is_that_of_scipy():
    source, target = some_rows(50, 8, seed=4), some_rows(50, 8, seed=5)

    assert np.allclose(plain_procrustes_from(source)(target).matrix, orthogonal_procrustes(source, target)[0])


def basis_of(rows: np.ndarray, rank: int) -> np.ndarray:
    return np.linalg.svd(rows, full_matrices=False)[2][:rank].T


@pytest.mark.parametrize(("fitter", "rank"), [(procrustes_from, 11), (plain_procrustes_from, 12)])
def test_of_all_closest_rotations_what_they_have_in_common_is_taken(fitter, rank):
    """SciPy's, which is one of them, cut to the directions that rows have anything in; and it is no closer."""
    source, target = some_rows(12, 30, seed=4), some_rows(12, 30, seed=5)
    centred = fitter is procrustes_from
    x, y = ((each - centred * each.mean(axis=0)) for each in (source, target))
    one, _ = orthogonal_procrustes(x, y)
    shown = basis_of(x, rank)

    fitted = fitter(source)(target)

    rotation = fitted.matrix / fitted.settings["scale"]
    assert fitted.settings["rank"] == rank
    assert np.allclose(rotation, shown @ shown.T @ one)
    assert np.allclose(np.linalg.svd(rotation, compute_uv=False), np.arange(30) < rank)
    assert np.linalg.norm(y - x @ rotation) <= np.linalg.norm(y - x @ one) + 1e-9
    assert np.linalg.norm(rotation) < np.linalg.norm(one)


@pytest.mark.parametrize("fitter", [procrustes_from, plain_procrustes_from])
@pytest.mark.parametrize(("rows", "d_source", "d_target"), [(30, 96, 96), (30, 96, 40), (30, 40, 96), (97, 96, 96)])
def test_the_last_bits_of_the_rows_decide_nothing(fitter, rows, d_source, d_target):
    """Rows are residuals, of which another batch gives another last bit; most often there are fewer than dimensions."""
    random = np.random.default_rng(rows + d_source)
    shared = random.standard_normal((rows, 120))
    source, target = (
        (shared @ random.standard_normal((120, d)) + 50 * random.standard_normal(d)).astype(np.float32).astype(float)
        for d in (d_source, d_target)
    )
    other_source, other_target = (each * (1 + 1e-7 * random.standard_normal(each.shape)) for each in (source, target))
    vector = random.standard_normal(d_source)

    one, other = fitter(source)(target), fitter(other_source)(other_target)

    assert np.linalg.norm(one.matrix - other.matrix) < 1e-4 * np.linalg.norm(one.matrix)
    carried = one.direction(vector)
    assert np.linalg.norm(carried - other.direction(vector)) < 1e-4 * np.linalg.norm(carried)


def test_rows_of_one_text_read_twice_are_one_row():
    """They differ by rounding, which is no direction that anything could be said about."""
    source, target = some_rows(9, 20, seed=1), some_rows(9, 20, seed=2)
    twice = np.arange(18) % 9
    maps = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        near = [each[twice] * (1 + 1e-7 * random.standard_normal((18, 20))) for each in (source, target)]
        maps.append(procrustes_from(near[0])(near[1]))

    assert [fitted.settings["rank"] for fitted in maps] == [8, 8]
    assert np.linalg.norm(maps[0].matrix - maps[1].matrix) < 1e-4 * np.linalg.norm(maps[0].matrix)


@given(seed=st.integers(0, 2**32), rows=st.integers(3, 9), wider=st.integers(0, 4), scale=st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_a_planted_rotation_is_recovered_on_what_rows_show(seed, rows, wider, scale):
    """And what no row shows is carried to nothing at all, not to something small."""
    random = np.random.default_rng(seed)
    source = some_rows(rows, 12, seed=seed)
    planted = scale * random_rotation(random, 12, 12 + wider)
    shown = basis_of(source - source.mean(axis=0), rows - 1)

    fitted = procrustes_from(source)(source @ planted + random.standard_normal(12 + wider))

    assert fitted.settings["rank"] == rows - 1
    assert np.allclose(fitted.matrix, shown @ shown.T @ planted, atol=1e-7 * scale)
    unseen = random.standard_normal(12)
    unseen -= shown @ (shown.T @ unseen)
    assert not fitted.direction(unseen).any()
    assert fitted.direction(unseen + shown[:, 0]).any()


def test_sides_that_do_not_move_together_at_all_are_mapped_to_the_mean():
    source = np.repeat([[1.0, 2.0], [3.0, 1.0]], 2, axis=0)
    target = np.tile([[0.0, 5.0, 1.0], [2.0, 1.0, 1.0]], (2, 1))

    fitted = procrustes_from(source)(target)

    assert fitted.settings == {"scale": 0.0, "rank": 0}
    assert np.array_equal(fitted.rows(source), np.tile(target.mean(axis=0), (4, 1)))


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


@pytest.mark.parametrize("fitter", [ridge_from, procrustes_from, plain_procrustes_from])
@pytest.mark.parametrize("side", ["source", "target"])
def test_rows_that_are_all_alike_make_no_map(fitter, side):
    rows = {"source": some_rows(12, 4, seed=0), "target": some_rows(12, 4, seed=1)}
    rows[side] = np.repeat(rows[side][:1], 12, axis=0) * (1 + 1e-8 * np.arange(12))[:, None]

    if fitter is plain_procrustes_from and side == "source":
        assert np.isfinite(fitter(rows["source"])(rows["target"]).matrix).all()
        return
    with pytest.raises(SteerEvalError, match="12 rows to fit a map to are all alike"):
        fitter(rows["source"])(rows["target"])
