"""Which purchases an ALS score comes from: Hu, Koren and Volinsky (ICDM 2008), section 5.

A user's factors are linear in what they bought, and so is the score of product i for user u:

    x_u . y_i  =  sum over purchases j of  c_uj * y_i' W_u y_j,   W_u = (Y' C_u Y + r I)^-1

with ``c_uj = alpha * weight`` the confidence of a purchase and 1 elsewhere, as `implicit` has it.
Each term is what one purchase contributes; the terms of a product add up to its score. Some of them
can be below zero: what speaks against the product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix

from recsys_assets.learn.als import AlsModel

Positions = NDArray[np.int64]
Floats = NDArray[np.float64]
UserExplainer = Callable[[csr_matrix, Positions], "TopContributions"]


@dataclass(frozen=True)
class TopContributions:
    """The purchases that contribute most to the scores of users' listed products.

    Attributes:
        purchases: int64 users x N x top, positions of purchased products, the largest contribution
            first; -1 where no further one is above zero.
        contributions: float64 users x N x top, above zero; 0 where there is no purchase.
        support: float64 users x N, all that speaks for the listed product: the sum of the
            contributions above zero, of all purchases but of the product itself.
        scores: float64 users x N, the ALS score of the listed product: the sum of its contributions
            by all purchases; 0 where there is nothing to explain.
    """

    purchases: Positions
    contributions: Floats
    support: Floats
    scores: Floats


def explain(
    model: AlsModel, weights: csr_matrix, products: Positions, top: int = 3
) -> TopContributions:
    """The ``top`` purchases that contribute most to each listed product's ALS score.

    ``weights`` is users x products of the model, as for ``fold_in``; ``products`` int64, users x N,
    positions of the listed products: -1, and positions that the model does not know, have no
    explanation. A product is never the explanation of itself. One user is solved at a time, from
    their own row alone, in float64; memory beside the result is a few copies of (factors + N) x
    purchases. Runs on the caller's thread and wants BLAS limited to one.

    Raises ValueError where the shapes do not fit.
    """
    return user_explainer(model, top)(weights, products)


def user_explainer(model: AlsModel, top: int = 3) -> UserExplainer:
    """:func:`explain` for one model: what does not depend on the users is computed only once."""
    factors = model.product_factors
    gram = _gram(factors)
    gram[np.diag_indices_from(gram)] += model.regularization

    def explained(weights: csr_matrix, products: Positions) -> TopContributions:
        if weights.shape != (len(products), len(factors)):
            raise ValueError(
                f"weights of {weights.shape} for the lists of {len(products)} users and a model of"
                f" {len(factors)} products"
            )
        shape = (*products.shape, top)
        purchases, contributions = np.full(shape, -1, np.int64), np.zeros(shape)
        support, scores = np.zeros(products.shape), np.zeros(products.shape)
        known = (products >= 0) & (products < len(factors))
        for user, (start, end) in enumerate(pairwise(weights.indptr)):
            listed = np.flatnonzero(known[user])
            if start == end or len(listed) == 0:
                continue
            wanted, bought = products[user, listed], weights.indices[start:end]
            confidence = model.alpha * weights.data[start:end].astype(np.float64)
            terms = _terms(gram, factors[wanted], factors[bought], confidence)
            scores[user, listed] = terms.sum(axis=1)
            terms[wanted[:, np.newaxis] == bought] = 0
            positive = np.maximum(terms, 0)
            support[user, listed] = positive.sum(axis=1)
            best, contributions[user, listed] = _largest(positive, top)
            purchases[user, listed] = np.where(best >= 0, bought[best], -1)
        return TopContributions(purchases, contributions, support, scores)

    return explained


def _gram(factors: NDArray[np.float32], rows: int = 8192) -> Floats:
    """``Y' Y`` in float64, without a copy of all factors in it."""
    blocks = (factors[row : row + rows].astype(np.float64) for row in range(0, len(factors), rows))
    return sum((block.T @ block for block in blocks), np.zeros((factors.shape[1],) * 2))


def _terms(
    gram: Floats, wanted: NDArray[np.float32], bought: NDArray[np.float32], confidence: Floats
) -> Floats:
    """``c_j * y_i' W y_j`` of N wanted and K bought products, N x K, from their factors.

    ``gram`` is ``Y' Y + r I``, in which every product still has a confidence of 1.
    """
    their = bought.astype(np.float64)
    inverse = gram + (their.T * (confidence - 1)) @ their
    factorized = cho_factor(inverse, overwrite_a=True, check_finite=False)
    solved = cho_solve(factorized, wanted.T.astype(np.float64), check_finite=False)
    return np.asarray((solved.T @ their.T) * confidence)


def _largest(positive: Floats, n: int) -> tuple[Positions, Floats]:
    """The ``n`` largest of each row that are above zero: columns, else -1, and values, else 0."""
    left = positive.copy()
    row = np.arange(len(left))
    columns, values = np.full((len(left), n), -1, np.int64), np.zeros((len(left), n))
    for place in range(min(n, left.shape[1])):
        best = left.argmax(axis=1)
        values[:, place] = left[row, best]
        columns[:, place] = np.where(values[:, place] > 0, best, -1)
        left[row, best] = 0
    return columns, values
