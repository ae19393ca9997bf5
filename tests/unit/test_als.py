"""Implicit ALS: what it must learn, that it learns the same twice, and users folded in."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix, random_array

from recsys_assets.learn.als import AlsParameters, fit_als, fold_in, nearest_products
from recsys_assets.learn.matrix import Interactions
from tests.made_models import model_of


def interactions(dense: np.ndarray) -> Interactions:
    users, products = dense.shape
    return Interactions(
        csr_matrix(dense.astype(np.float32)),
        np.arange(users, dtype=np.int64) + 100,
        np.arange(products, dtype=np.int64) + 500,
    )


def checkerboard(size: int) -> np.ndarray:
    """Everyone has the products of their own colour but for one: the test of `implicit` itself."""
    row, column = np.indices((size, size))
    return ((row + column) % 2 == 0) & (row != column)


def test_the_one_withheld_product_ranks_first() -> None:
    board = checkerboard(50)
    model = fit_als(interactions(board), AlsParameters(factors=2, regularization=0.01))
    scores = fold_in(model, interactions(board).matrix) @ model.product_factors.T
    scores[board] = -np.inf
    assert_array_equal(scores.argmax(axis=1), np.arange(50))


def test_the_model_carries_what_lists_are_made_from() -> None:
    board = 3 * checkerboard(4)[:, :3]
    source = interactions(board)
    model = fit_als(source, AlsParameters(factors=2, alpha=0.5, regularization=4))
    assert_array_equal(model.product_ids, source.product_ids)
    assert (model.product_factors.shape, model.product_factors.dtype) == ((3, 2), np.float32)
    assert_array_equal(model.popularity, board.sum(axis=0))
    assert (model.user_count, model.alpha, model.regularization) == (4, 0.5, 4)


def test_the_same_seed_gives_the_same_factors_and_another_does_not() -> None:
    source = interactions(checkerboard(40))
    first, again, other = (
        fit_als(source, AlsParameters(factors=8, seed=seed)) for seed in (7, 7, 8)
    )
    assert_array_equal(first.product_factors, again.product_factors)
    assert not np.array_equal(first.product_factors, other.product_factors)


def test_training_leaves_the_interactions_alone() -> None:
    source = interactions(checkerboard(10))
    before = source.matrix.copy()
    fit_als(source, AlsParameters(factors=2, alpha=3))
    assert (source.matrix != before).nnz == 0


def test_every_iteration_is_reported() -> None:
    reported: list[int] = []
    fit_als(interactions(checkerboard(6)), AlsParameters(factors=2, iterations=4), reported.append)
    assert reported == [1, 2, 3, 4]


def test_nothing_to_learn_from_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="materialize user_product_interactions"):
        fit_als(interactions(np.zeros((2, 3))), AlsParameters())


def test_the_nearest_products_point_the_same_way() -> None:
    model = model_of(np.array([[1, 0], [0, 3], [5, 1], [0, 0], [-1, 0]]))
    # Cosines with the first: 0, 0.98, 0, -1; with the last: -1, 0, -0.98, 0.
    assert nearest_products(model, np.array([0, 4]), 3).tolist() == [[2, 1, 3], [1, 3, 2]]


# --- Folding in


def some_weights(users: int, products: int) -> csr_matrix:
    """A tenth of all pairs, with weights of 0 to 5."""
    weights = 5 * random_array((users, products), density=0.1, rng=np.random.default_rng(3))
    return csr_matrix(weights, dtype=np.float32)


@pytest.mark.parametrize(("alpha", "regularization"), [(1, 10), (1, 0.5), (20, 10)])
def test_folded_in_users_solve_the_equation_of_the_paper(
    alpha: float, regularization: float
) -> None:
    products = np.random.default_rng(2).normal(0, 0.3, (60, 8))
    weights = some_weights(30, 60)
    model = model_of(products, alpha=alpha, regularization=regularization)
    # x = (Y'CY + rI)^-1 Y'Cp with confidences C = alpha * weight, 1 where there is none. What is
    # not bought is preferred with 0.
    y = model.product_factors.astype(np.float64)
    solutions = []
    for row in weights.toarray().astype(np.float64):
        confidence = np.where(row > 0, alpha * row, 1)
        left = y.T @ (confidence[:, None] * y) + regularization * np.eye(8)
        solutions.append(np.linalg.solve(left, y.T @ (confidence * (row > 0))))
    folded = fold_in(model, weights)
    assert folded.dtype == np.float32
    assert_allclose(folded, solutions, rtol=1e-5, atol=1e-5)


def test_a_user_folded_in_alone_has_the_same_factors_bit_for_bit() -> None:
    model = model_of(np.random.default_rng(1).normal(size=(500, 64)))
    weights = some_weights(100, 500)
    together = fold_in(model, weights)
    alone = [fold_in(model, weights[user]) for user in range(100)]
    assert_array_equal(np.vstack(alone), together)


def test_a_user_without_interactions_has_factors_of_zero() -> None:
    model = model_of(np.random.default_rng(1).normal(size=(3, 2)))
    weights = csr_matrix(np.array([[0, 0, 0], [0, 1, 0]], np.float32))
    nobody, somebody = fold_in(model, weights)
    assert_array_equal(nobody, [0, 0])
    assert np.all(somebody != 0)
    assert fold_in(model, weights[:0]).shape == (0, 2)


def test_folding_in_leaves_model_and_weights_alone() -> None:
    factors = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    model, weights = model_of(factors.copy(), alpha=7), some_weights(10, 20)
    before = weights.copy()
    fold_in(model, weights)
    assert_array_equal(model.product_factors, factors)
    assert (weights != before).nnz == 0
