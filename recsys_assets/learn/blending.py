"""Personal Top Buys: ALS blended with the user's own decayed purchases, the exact top N.

The blended score of a product for a user is ``als + weight * own / max(own)``, where ``als`` is the
product of the two factors, ``own`` the user's decayed number of purchases of it and ``max(own)``
that of the user's most bought product. Whoever the model knows nothing of has own purchases alone.
Equal scores are ordered by popularity, and what then is left of a list is filled by it.

A list is a function of the model and of this user's interactions alone, bit by bit: it does not
depend on whose lists are computed beside it, or when.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import ThreadpoolController

from recsys_assets.cores import available_cores
from recsys_assets.learn.als import AlsModel, UserSolver, user_solver
from recsys_assets.learn.matrix import Histories

Floats = NDArray[np.float32]
Repeats = Literal["blend", "exclude", "only"]
"""What becomes of products that the user has bought: ranked with all others, left out, or alone."""

Select = Callable[[Floats, int, NDArray[np.int64]], tuple[NDArray[np.int64], Floats]]
"""Takes lists of n from scores, rows x columns, which it may change; as :func:`top_n` does."""

_BLOCK_BYTES = 16 * 2**20
_BLOCK_ROWS = 1024
_SAMPLE = 4096


@dataclass(frozen=True)
class TopLists:
    """Lists of rows ``first_row ..``, best first: product positions and scores, rows x N."""

    first_row: int
    products: NDArray[np.int64]
    scores: Floats


@dataclass(frozen=True)
class Blend:
    """How ALS and own purchases make one list."""

    own_weight: float = 2.0
    repeats: Repeats = "blend"


def top_lists(
    model: AlsModel,
    blend: Blend,
    histories: Histories,
    *,
    n: int,
    solver: UserSolver | None = None,
    select: Select | None = None,
) -> Iterator[TopLists]:
    """The lists of all users of ``histories``, whose first columns are the model's products.

    The users are folded in, by ``solver`` where there is one for the model. ``select`` takes the
    lists from the scores, the best ones by default.
    """
    known = len(model.product_ids)
    return blended_top_n(
        (solver or user_solver(model))(histories.weights[:, :known]),
        model.product_factors,
        histories.weights,
        model.popularity,
        own_weight=blend.own_weight,
        repeats=blend.repeats,
        n=n,
        select=select,
    )


def blended_top_n(
    user_factors: Floats,
    product_factors: Floats,
    purchases: csr_matrix,
    popularity: Floats,
    *,
    own_weight: float,
    n: int,
    repeats: Repeats = "blend",
    select: Select | None = None,
    block_bytes: int = _BLOCK_BYTES,
    threads: int | None = None,
) -> Iterator[TopLists]:
    """The exact top ``n`` products of every user, in blocks of users in ascending order.

    ``user_factors`` is users x f (a row of zeros for a user the model knows nothing of),
    ``product_factors`` products x f, ``popularity`` one number for each of these products.
    ``purchases`` is users x columns with positive decayed counts: columns beyond those products are
    of products that the model does not know, which only their buyers can have. A list that cannot
    be filled ends in scores of minus infinity. ``select`` takes the lists from the scores. Memory
    is bounded by ``threads`` x ``block_bytes`` for the scores of a block of users, whatever the
    number of users.
    """
    known, columns = len(product_factors), purchases.shape[1]
    order = np.r_[np.argsort(-popularity, kind="stable"), known:columns]
    purchases = scaled_by_maximum(purchases)
    n = min(n, columns)
    users = len(user_factors)
    rows = min(_BLOCK_ROWS, max(1, block_bytes // (4 * max(1, known))))
    threads = threads or available_cores()
    select = select or top_n

    def block(start: int) -> TopLists:
        own = purchases[start : start + rows]
        scores = _products_of(user_factors[start : start + rows], product_factors, rows, columns)
        row = np.repeat(np.arange(own.shape[0]), np.diff(own.indptr))
        gain = np.float32(own_weight) * own.data
        scores[row, own.indices] = np.where(
            own.indices < known, scores[row, own.indices] + gain, gain
        )
        scores = _with_repeats(scores, row, own.indices, repeats)
        return TopLists(start, *select(scores, n, order))

    # One block per thread, and BLAS within it single: the passes over a block parallelise as well
    # as the product does.
    with _blas().limit(limits=1), ThreadPoolExecutor(threads) as pool:
        starts = range(0, users, rows)
        for wave in range(0, len(starts), 2 * threads):
            yield from pool.map(block, starts[wave : wave + 2 * threads])


def _with_repeats(
    scores: Floats, row: NDArray[np.int64], column: NDArray[np.int32], repeats: Repeats
) -> Floats:
    """The scores, minus infinity where a product is left out for having been bought, or for not."""
    if repeats == "blend":
        return scores
    if repeats == "only":
        own = np.full_like(scores, -np.inf)
        own[row, column] = scores[row, column]
        return own
    scores[row, column] = -np.inf
    return scores


@cache
def _blas() -> ThreadpoolController:
    """The libraries of BLAS; to find them takes longer than to make a few lists."""
    return ThreadpoolController().select(user_api="blas")


def _products_of(user_factors: Floats, product_factors: Floats, rows: int, columns: int) -> Floats:
    """The factors' products, users x ``columns``; minus infinity beyond the known products.

    Always computed for ``rows`` users: of two matrices of the same shapes BLAS adds up in the same
    order whoever the other users are, while a few rows alone may take another way.
    """
    users = len(user_factors)
    padded = np.zeros((rows, product_factors.shape[1]), np.float32)
    padded[:users] = user_factors
    scores = (padded @ product_factors.T)[:users]
    new = columns - len(product_factors)
    if not new:
        return scores
    return np.hstack([scores, np.full((users, new), -np.inf, np.float32)])


def top_n(
    scores: Floats, n: int, order: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], Floats]:
    """The ``n`` largest of each row, descending: columns and scores.

    ``scores`` is rows x columns, n <= columns. Equal scores are in the ``order`` of columns that is
    given, by default that of their numbers. The n-th largest of the columns that come first in it
    bounds a row's n-th largest from below, so that only the few scores above it need sorting; later
    columns that equal the bound come after n others.
    """
    rows, columns = scores.shape
    order = np.arange(columns) if order is None else order
    rank = np.empty(columns, np.int64)
    rank[order] = np.arange(columns)
    head = order[: max(n, _SAMPLE)]
    in_head = scores[:, head]
    bound = np.partition(in_head, len(head) - n, axis=1)[:, [len(head) - n]]
    candidate = scores > bound
    tied_row, tied = np.nonzero(in_head == bound)
    candidate[tied_row, head[tied]] = True
    flat = np.flatnonzero(candidate)
    row, column = np.divmod(flat, columns)
    value = scores.ravel()[flat]
    ranked = np.lexsort((rank[column], -value, row))
    first = np.searchsorted(row, np.arange(rows))
    best = ranked[first[:, None] + np.arange(n)]
    return column[best], value[best]


def scaled_by_maximum(purchases: csr_matrix) -> csr_matrix:
    """Each row divided by its maximum, so that every user's most bought product counts 1."""
    if purchases.nnz == 0:  # of which scipy knows no maximum
        return purchases
    maximum = purchases.max(axis=1).toarray().ravel()
    scaled = purchases.copy()
    scaled.data /= np.repeat(maximum, np.diff(purchases.indptr))
    return scaled
