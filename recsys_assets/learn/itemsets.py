"""Frequent itemsets: products that at least ``min_orders`` baskets contain all of.

Two engines find the same sets: ours counts pairs exactly in bounded memory (see `pairs`), mlxtend's
FP-Growth (Han, Pei and Yin, 2000) finds sets of any size.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_assets.learn.baskets import Baskets
from recsys_assets.learn.matrix import Ids
from recsys_assets.learn.pairs import column_counts, frequent_pairs

Engine = Literal["sparse", "mlxtend"]

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Itemsets:
    """Frequent itemsets, by size.

    Attributes:
        product_ids: int64 or str [P].
        product_orders: int32 [P], orders with each product, frequent or not.
        n_orders: all orders, ``N``.
        min_orders: orders that an itemset of this collection has at least.
        members: of each size 1, 2, ..., product indices, int32 [S, size]. A row ascends; rows are
            in lexicographic order.
        orders: of each size, orders with all members, int32 [S].
    """

    product_ids: Ids
    product_orders: Ints
    n_orders: int
    min_orders: int
    members: tuple[Ints, ...]
    orders: tuple[Ints, ...]


def frequent_itemsets(
    baskets: Baskets,
    *,
    min_orders: int | None = None,
    min_support: float | None = None,
    engine: Engine = "sparse",
    max_itemset_size: int = 2,
) -> Itemsets:
    """All sets of up to ``max_itemset_size`` products that enough orders share. Exact.

    Args:
        baskets: the orders.
        min_orders: orders that share a set, at least; a count.
        min_support: the same as a fraction of all orders, 0 < min_support <= 1. Give one of both.
        engine: ``sparse`` counts single products and pairs, in bounded memory; ``mlxtend`` runs
            that library's FP-Growth for sets of any size. Both return the same sets.
        max_itemset_size: products of a set, at most.

    Raises:
        ValueError: both or neither minimum, one out of range, an unknown engine, or a size that
            the engine does not mine.
    """
    least = _least_orders(baskets.n_orders, min_orders, min_support)
    if max_itemset_size < 1:
        raise ValueError(f"max_itemset_size is {max_itemset_size}; the smallest itemset has 1")
    if engine not in _ENGINES:
        raise ValueError(f"engine is {engine!r}; there are {', '.join(_ENGINES)}")
    mine = _ENGINES[engine]
    product_orders = column_counts(baskets.matrix)
    members, orders = zip(*mine(baskets.matrix, least, max_itemset_size), strict=True)
    return Itemsets(baskets.product_ids, product_orders, baskets.n_orders, least, members, orders)


def _least_orders(n_orders: int, min_orders: int | None, min_support: float | None) -> int:
    """The minimum as a count of orders, however it was given."""
    if min_orders is not None and min_support is None:
        if min_orders < 1:
            raise ValueError(f"min_orders is {min_orders}; the smallest is 1")
        return min_orders
    if min_support is not None and min_orders is None:
        if not 0 < min_support <= 1:
            raise ValueError(f"min_support is {min_support}; it is a fraction, above 0 and up to 1")
        least = max(1, math.ceil(min_support * n_orders))
        rounded_up = least > 1 and (least - 1) / n_orders >= min_support  # 0.07 * 100 > 7
        return least - 1 if rounded_up else least
    raise ValueError("give exactly one of min_orders (a count) and min_support (a fraction)")


Level = tuple[Ints, Ints]
"""Itemsets of one size: members [S, size] and orders [S]."""


def _sparse_itemsets(matrix: Any, min_orders: int, max_size: int) -> Iterator[Level]:
    if max_size > 2:
        raise ValueError(
            f'engine "sparse" mines itemsets of 1 and 2 products, not of {max_size}: '
            'engine="mlxtend" does'
        )
    product_orders = column_counts(matrix)
    frequent = np.flatnonzero(product_orders >= min_orders).astype(np.int32)
    yield frequent[:, np.newaxis], product_orders[frequent]
    if max_size == 2:
        yield frequent_pairs(matrix, min_orders)


def _mlxtend_itemsets(matrix: Any, min_orders: int, max_size: int) -> Iterator[Level]:
    import pandas as pd
    from mlxtend.frequent_patterns import fpgrowth

    frequent = np.flatnonzero(column_counts(matrix) >= min_orders).astype(np.int32)
    n_orders = matrix.shape[0]
    found = pd.DataFrame({"support": [], "itemsets": []})
    if len(frequent):
        table = pd.DataFrame.sparse.from_spmatrix(
            sparse.csr_matrix(matrix[:, frequent], dtype=bool)
        )
        # mlxtend rounds the fraction up to a count: half an order less than the count is safe.
        found = fpgrowth(table, min_support=(min_orders - 0.5) / n_orders, max_len=max_size)
    sizes = found["itemsets"].map(len).to_numpy()
    for size in range(1, max_size + 1):
        of_size = found[sizes == size]
        sets = np.array([sorted(s) for s in of_size["itemsets"]], np.intp).reshape(-1, size)
        order = np.lexsort(sets.T[::-1])
        orders = np.rint(of_size["support"].to_numpy(float) * n_orders).astype(np.int32)
        yield frequent[sets[order]], orders[order]


_ENGINES: Mapping[Engine, Callable[[Any, int, int], Iterator[Level]]] = {
    "sparse": _sparse_itemsets,
    "mlxtend": _mlxtend_itemsets,
}
"""Each takes the matrix, the least orders and the largest size, and yields size after size."""
