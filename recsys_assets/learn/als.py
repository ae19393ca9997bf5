"""Implicit ALS on the interactions: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit
Feedback Datasets" (ICDM 2008), as the library `implicit` solves it (conjugate gradients).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_assets.learn.matrix import Ids, Interactions

Progress = Callable[[int], object]
UserSolver = Callable[[csr_matrix], NDArray[np.float32]]


@dataclass(frozen=True)
class AlsParameters:
    """Hyper-parameters: confidence is ``alpha * weight``, the regularisation is not scaled."""

    factors: int = 128
    alpha: float = 1.0
    regularization: float = 10.0
    iterations: int = 15
    seed: int = 7


@dataclass(frozen=True)
class AlsModel:
    """What was learnt of the products, from which any user's factors follow (:func:`fold_in`).

    ``product_factors`` is float32, products x f, with the ids of its rows. ``popularity`` is one
    number for each product, here the sum of its weights; ``user_count`` the number of users that it
    was learnt from.
    """

    product_factors: NDArray[np.float32]
    product_ids: Ids
    popularity: NDArray[np.float32]
    user_count: int
    alpha: float
    regularization: float


def nearest_products(model: AlsModel, products: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The ``n`` products nearest to each of ``products`` by cosine of factors, nearest first.

    Positions in, positions out, queries x n; a product is not among its own. ``n`` is less than the
    number of products.
    """
    norms = np.linalg.norm(model.product_factors, axis=1, keepdims=True)
    directions = model.product_factors / np.where(norms > 0, norms, 1)
    cosines = directions[products] @ directions.T
    cosines[np.arange(len(products)), products] = -np.inf
    return np.argsort(-cosines, axis=1, kind="stable")[:, :n]


def fit_als(
    interactions: Interactions,
    parameters: AlsParameters,
    progress: Progress = lambda _: None,
) -> AlsModel:
    """Train on all cores; the same interactions and seed give the same factors.

    ``progress`` is told the number of iterations done. Raises ValueError when there
    are no interactions; implicit's ModelFitError when the factors are no longer numbers.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    if interactions.matrix.nnz == 0:
        raise ValueError(
            "there are no interactions to learn from: materialize user_product_interactions, and"
            " check RECSYS_PURCHASE_STATUSES if the shop has orders"
        )
    # implicit runs its own threads over users; BLAS threads below them only get in their way.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=parameters.factors,
            alpha=parameters.alpha,
            regularization=parameters.regularization,
            iterations=parameters.iterations,
            random_state=parameters.seed,
        )
        model.fit(
            interactions.matrix,
            show_progress=False,
            callback=lambda iteration, _seconds, _loss: progress(iteration + 1),
        )
    return AlsModel(
        product_factors=model.item_factors,
        product_ids=interactions.product_ids,
        popularity=np.asarray(interactions.matrix.sum(axis=0), np.float32).ravel(),
        user_count=len(interactions.user_ids),
        alpha=parameters.alpha,
        regularization=parameters.regularization,
    )


def fold_in(model: AlsModel, weights: csr_matrix) -> NDArray[np.float32]:
    """The factors of users, users x f, from all of their interactions with the model's products.

    ``weights`` is users x products of the model. This is the step of ALS that solves for the users,
    exactly: factors depend on nobody else's, and are zero without interactions.
    """
    return user_solver(model)(weights)


def user_solver(model: AlsModel) -> UserSolver:
    """:func:`fold_in` for one model: what does not depend on the users is computed only once."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(user_api="blas")
    with blas.limit(limits=1):
        solver = AlternatingLeastSquares(
            factors=model.product_factors.shape[1],
            alpha=model.alpha,
            regularization=model.regularization,
        )
    solver.item_factors = model.product_factors

    def solve(weights: csr_matrix) -> NDArray[np.float32]:
        with blas.limit(limits=1):
            factors: NDArray[np.float32] = solver.recalculate_user(
                np.arange(weights.shape[0]), weights
            )
        return factors

    return solve
