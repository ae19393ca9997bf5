"""Personal Top Buys: ALS blended with the user's own decayed purchases, the exact top N.

The blended score of a product for a user is ``als + weight * own / max(own)``, where ``als`` is the
product of the two factors, ``own`` the user's decayed number of purchases of it and ``max(own)``
that of the user's most bought product. Whoever the model does not know has own purchases alone.
Equal scores are ordered by popularity, and what then is left of a list is filled by it.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_assets.cores import available_cores
from recsys_assets.learn.matrix import Ids, positions
from recsys_assets.publish.redis_writer import Edition
from serving import contract
from serving.contract import ScoredProduct, TopBuys

Floats = NDArray[np.float32]

_BLOCK_BYTES = 16 * 2**20
_SAMPLE = 4096


@dataclass(frozen=True)
class TopLists:
    """Lists of rows ``first_row ..``, best first: product positions and scores, rows x N."""

    first_row: int
    products: NDArray[np.int64]
    scores: Floats


def blended_top_n(
    user_factors: Floats,
    product_factors: Floats,
    purchases: csr_matrix,
    popularity: Floats,
    *,
    own_weight: float,
    n: int,
    block_bytes: int = _BLOCK_BYTES,
    threads: int | None = None,
) -> Iterator[TopLists]:
    """The exact top ``n`` products of every user, in blocks of users in ascending order.

    ``user_factors`` is users x f (a row of zeros for a user the model does not know),
    ``product_factors`` products x f (zeros likewise), ``purchases`` users x products with positive
    decayed counts, ``popularity`` one number per product. Memory is bounded by ``threads`` x
    ``block_bytes`` for the scores of a block of users, whatever the number of users.
    """
    # Columns in the order of popularity: equal scores then come out right from a stable sort, and
    # the first columns hold most of every list.
    order = np.argsort(-popularity, kind="stable")
    factors = np.ascontiguousarray(product_factors[order].T)
    purchases = scaled_by_maximum(purchases)[:, order]
    n = min(n, len(order))
    users = len(user_factors)
    rows = max(1, block_bytes // (4 * max(1, len(order))))
    threads = threads or available_cores()

    def block(start: int) -> TopLists:
        scores = user_factors[start : start + rows] @ factors
        own = purchases[start : start + rows]
        row = np.repeat(np.arange(own.shape[0]), np.diff(own.indptr))
        scores[row, own.indices] += np.float32(own_weight) * own.data
        products, best = top_n(scores, n)
        return TopLists(start, order[products], best)

    from threadpoolctl import threadpool_limits

    # One block per thread, and BLAS within it single: the passes over a block parallelise as well
    # as the product does.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        starts = range(0, users, rows)
        for wave in range(0, len(starts), 2 * threads):
            yield from pool.map(block, starts[wave : wave + 2 * threads])


def top_n(scores: Floats, n: int) -> tuple[NDArray[np.int64], Floats]:
    """The ``n`` largest of each row, descending, equal ones by column: columns and scores.

    ``scores`` is rows x columns, n <= columns. The n-th largest of a row's first columns bounds the
    row's n-th largest from below, so that only the few scores above it need sorting; later columns
    that equal the bound come after n others.
    """
    rows, columns = scores.shape
    head = scores[:, : max(n, min(_SAMPLE, columns))]
    width = head.shape[1]
    bound = np.partition(head, width - n, axis=1)[:, [width - n]]
    candidate = scores > bound
    candidate[:, :width] |= head == bound
    flat = np.flatnonzero(candidate)
    row, column = np.divmod(flat, columns)
    value = scores.ravel()[flat]
    ranked = np.lexsort((-value, row))  # stable: equal scores stay in the order of columns
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


def factors_of(ids: Ids, model_ids: Ids, model_factors: Floats) -> Floats:
    """The model's factors of ``ids``, a row of zeros for each that the model does not know."""
    position = positions(model_ids, ids)
    factors = np.zeros((len(ids), model_factors.shape[1]), np.float32)
    known = position >= 0
    factors[known] = model_factors[position[known]]
    return factors


def personal_lists(
    lists: Iterable[TopLists],
    user_ids: Ids,
    product_ids: Ids,
    edition: Edition,
) -> Iterator[tuple[str, bytes]]:
    """Redis keys and values of the users' lists; users whose ids no key can hold are left out."""
    for block in lists:
        users = user_ids[block.first_row : block.first_row + len(block.products)].tolist()
        products = product_ids[block.products].tolist()
        scores = np.round(block.scores.astype(np.float64), 6).tolist()
        for user, user_products, user_scores in zip(users, products, scores, strict=True):
            if not contract.is_id(user):
                continue
            value = TopBuys(
                source="personal",
                model_version=edition.model_version,
                generated_at=edition.generated_at,
                orders_through=edition.orders_through,
                products=list(map(ScoredProduct, user_products, user_scores)),
            )
            yield contract.user_top_buys_key(user), contract.encode_top_buys(value)
