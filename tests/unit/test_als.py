"""Implicit ALS: what it must learn, and that it learns the same twice."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix

from recsys_assets.learn.als import AlsModel, AlsParameters, fit_als, nearest_products
from recsys_assets.learn.matrix import Interactions


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
    scores = model.user_factors @ model.product_factors.T
    scores[board] = -np.inf
    assert_array_equal(scores.argmax(axis=1), np.arange(50))


def test_the_model_carries_the_ids_of_its_rows() -> None:
    source = interactions(checkerboard(4)[:, :3])
    model = fit_als(source, AlsParameters(factors=2))
    assert_array_equal(model.user_ids, source.user_ids)
    assert_array_equal(model.product_ids, source.product_ids)
    assert (model.user_factors.shape, model.product_factors.shape) == ((4, 2), (3, 2))
    assert model.user_factors.dtype == model.product_factors.dtype == np.float32


def test_the_same_seed_gives_the_same_factors_and_another_does_not() -> None:
    source = interactions(checkerboard(40))
    first, again, other = (
        fit_als(source, AlsParameters(factors=8, seed=seed)) for seed in (7, 7, 8)
    )
    assert_array_equal(first.user_factors, again.user_factors)
    assert_array_equal(first.product_factors, again.product_factors)
    assert not np.array_equal(first.user_factors, other.user_factors)


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
    factors = np.array([[1, 0], [0, 3], [5, 1], [0, 0], [-1, 0]], np.float32)
    ids = np.arange(5, dtype=np.int64)
    model = AlsModel(np.zeros((1, 2), np.float32), factors, ids[:1], ids)
    # Cosines with the first: 0, 0.98, 0, -1; with the last: -1, 0, -0.98, 0.
    assert nearest_products(model, np.array([0, 4]), 3).tolist() == [[2, 1, 3], [1, 3, 2]]
