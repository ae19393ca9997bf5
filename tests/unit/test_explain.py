"""What an ALS score comes from: by hand, against `implicit`, and that the terms add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from implicit.cpu.als import AlternatingLeastSquares
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix, random_array
from threadpoolctl import threadpool_limits

from recsys_assets.learn.als import AlsParameters, fit_als, fold_in
from recsys_assets.learn.explain import explain, user_explainer
from recsys_assets.learn.matrix import Interactions
from tests.made_models import model_of


def some_weights(users: int, products: int, *, density: float = 0.3) -> csr_matrix:
    """Weights of 0 to 5."""
    weights = 5 * random_array((users, products), density=density, rng=np.random.default_rng(3))
    return csr_matrix(weights, dtype=np.float32)


# Factors (1, 0), (0, 1), (1, 1) and (-1, 0), regularisation 1: Y'Y + I = [[4, 1], [1, 3]].
BY_HAND = model_of(np.array([[1, 0], [0, 1], [1, 1], [-1, 0]]), regularization=1)


def test_contributions_worked_out_by_hand() -> None:
    # Bought: product 0 with confidence 1, product 1 with confidence 3. A = [[4, 1], [1, 5]], its
    # determinant 19, its inverse W = [[5, -1], [-1, 4]] / 19.
    weights = csr_matrix(np.array([[1, 3, 0, 0]], np.float32))
    found = explain(BY_HAND, weights, np.array([[2, 3, 0]]))
    # Product 2: y'W = (4, 3) / 19; by product 0 4/19, by product 1 3 * 3/19.
    # Product 3: y'W = (-5, 1) / 19; by product 0 -5/19, by product 1 3 * 1/19.
    # Product 0: y'W = (5, -1) / 19; by itself 5/19, by product 1 -3/19.
    assert_allclose(found.scores, [[13 / 19, -2 / 19, 2 / 19]])
    assert found.purchases.tolist() == [[[1, 0, -1], [1, -1, -1], [-1, -1, -1]]]
    assert_allclose(found.contributions, [[[9 / 19, 4 / 19, 0], [3 / 19, 0, 0], [0, 0, 0]]])
    assert_allclose(found.support, [[13 / 19, 3 / 19, 0]])


def test_alpha_makes_confidence_of_weights() -> None:
    weights = csr_matrix(np.array([[1, 3, 0, 0]], np.float32))
    half = model_of(BY_HAND.product_factors, alpha=0.5, regularization=1)
    one, other = (
        explain(model, row, np.array([[2, 3, 0]]))
        for model, row in [(BY_HAND, weights), (half, 2 * weights)]
    )
    assert_array_equal(one.purchases, other.purchases)
    assert_allclose(one.contributions, other.contributions)


@pytest.mark.parametrize(("alpha", "regularization"), [(1, 10), (1, 0.1), (40, 10)])
def test_implicit_explains_the_same(alpha: float, regularization: float) -> None:
    factors = np.random.default_rng(2).normal(0, 0.3, (60, 8))
    model, weights = (
        model_of(factors, alpha=alpha, regularization=regularization),
        some_weights(9, 60),
    )
    listed = np.random.default_rng(4).integers(0, 60, (9, 12))
    found = explain(model, weights, listed)
    with threadpool_limits(1, "blas"):  # it warns otherwise
        oracle = AlternatingLeastSquares(factors=8, alpha=alpha, regularization=regularization)
    oracle.item_factors = model.product_factors
    for user, row in enumerate(listed.tolist()):
        for place, product in enumerate(row):
            score, top, _ = oracle.explain(user, weights, product, N=60)
            theirs = [(p, c) for p, c in top if c > 1e-6 and p != product][:3]
            ours = [p for p in found.purchases[user, place].tolist() if p >= 0][: len(theirs)]
            assert ours == [p for p, _ in theirs]
            assert_allclose(found.scores[user, place], score, rtol=1e-4, atol=1e-5)
            assert_allclose(
                found.contributions[user, place, : len(theirs)], [c for _, c in theirs], rtol=1e-3
            )


@settings(max_examples=60, deadline=None)
@given(
    factors=arrays(np.float32, (7, 3), elements=st.floats(-2, 2, width=16)),
    weights=arrays(np.float32, (4, 7), elements=st.sampled_from([0, 0, 0.125, 1, 2.5, 9])),
    alpha=st.sampled_from([0.5, 1.0, 8.0]),
    regularization=st.sampled_from([1.0, 10.0]),
)
def test_the_contributions_add_up_to_the_score(
    factors: np.ndarray, weights: np.ndarray, alpha: float, regularization: float
) -> None:
    """With all purchases asked for, what is positive, and what is left out, is the score."""
    model, rows = model_of(factors, alpha=alpha, regularization=regularization), csr_matrix(weights)
    everything = np.tile(np.arange(7), (4, 1))
    found = explain(model, rows, everything, top=7)
    assert_allclose(found.scores, fold_in(model, rows) @ factors.T, rtol=1e-3, atol=1e-3)
    # The other half: what one purchase adds, from the equation of the paper.
    y = factors.astype(np.float64)
    for user, row in enumerate(weights.astype(np.float64)):
        confidence = np.where(row > 0, alpha * row, 1)
        left = y.T @ (confidence[:, None] * y) + regularization * np.eye(3)
        terms = y @ np.linalg.solve(left, y.T) * (alpha * row)
        assert_allclose(found.scores[user], terms.sum(axis=1), atol=1e-9)
        np.fill_diagonal(terms, 0)
        positive = np.sort(np.maximum(terms, 0), axis=1)[:, ::-1]
        assert_allclose(found.contributions[user], positive, atol=1e-9)
        assert_allclose(found.support[user], positive.sum(axis=1), atol=1e-9)
        by = found.purchases[user]
        of = np.where(by >= 0, np.take_along_axis(terms, np.maximum(by, 0), axis=1), 0)
        assert_allclose(of, found.contributions[user], atol=1e-9)


def test_a_trained_model_explains_within_the_cluster_that_was_bought() -> None:
    """Two kinds of shoppers: what is recommended of a kind is explained by purchases of it."""
    bought = np.kron(np.eye(2), np.ones((20, 10)))
    bought[np.arange(40), np.r_[np.arange(20) % 10, 10 + np.arange(20) % 10]] = 0
    source = Interactions(
        csr_matrix(bought.astype(np.float32)),
        np.arange(40, dtype=np.int64),
        np.arange(20, dtype=np.int64),
    )
    model = fit_als(source, AlsParameters(factors=4, regularization=0.1))
    missing = np.r_[np.arange(20) % 10, 10 + np.arange(20) % 10][:, np.newaxis]
    found = explain(model, source.matrix, missing)
    assert_array_equal(found.purchases[:20] < 10, True)
    assert_array_equal(found.purchases[20:] >= 10, True)
    assert (found.scores > 0.5).all()


def test_what_the_model_does_not_know_has_no_explanation() -> None:
    weights = csr_matrix(np.array([[1, 3, 0, 0], [0, 0, 0, 0]], np.float32))
    found = explain(BY_HAND, weights, np.array([[-1, 4, 2], [2, 1, 0]]))
    assert found.purchases.tolist() == [[[-1] * 3, [-1] * 3, [1, 0, -1]], [[-1] * 3] * 3]
    assert_array_equal(found.scores[0, :2], 0)
    assert_array_equal(found.scores[1], 0)
    assert_array_equal(found.contributions[1], 0)


def test_a_user_explained_alone_has_the_same_explanation_bit_for_bit() -> None:
    model = model_of(np.random.default_rng(1).normal(size=(300, 32)))
    weights, listed = some_weights(20, 300), np.random.default_rng(2).integers(-1, 300, (20, 30))
    explained = user_explainer(model, top=2)
    together = explained(weights, listed)
    alone = [explained(weights[user], listed[[user]]) for user in range(20)]
    for name in ("purchases", "contributions", "support", "scores"):
        assert_array_equal(
            np.vstack([getattr(one, name) for one in alone]), getattr(together, name)
        )
    assert together.purchases.shape == (20, 30, 2)


def test_no_users_and_no_products_are_no_explanations() -> None:
    assert explain(BY_HAND, csr_matrix((0, 4)), np.empty((0, 5), np.int64)).purchases.shape == (
        0,
        5,
        3,
    )
    one = csr_matrix(np.array([[1, 3, 0, 0]], np.float32))
    assert explain(BY_HAND, one, np.empty((1, 0), np.int64)).scores.shape == (1, 0)


@pytest.mark.parametrize("shape", [(2, 4), (1, 5)])
def test_weights_of_other_users_or_products_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="the lists of 1 users and a model of 4 products"):
        explain(BY_HAND, csr_matrix(shape), np.array([[0]]))


def test_explaining_leaves_its_arguments_alone() -> None:
    factors = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    model, weights = model_of(factors.copy(), alpha=7), some_weights(10, 20)
    listed = np.tile(np.arange(20), (10, 1))
    before = weights.copy()
    explain(model, weights, listed)
    assert_array_equal(model.product_factors, factors)
    assert (weights != before).nnz == 0
    assert_array_equal(listed, np.tile(np.arange(20), (10, 1)))
