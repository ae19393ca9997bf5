"""Products that share orders: baskets, frequent itemsets, and the rules between products.

Here belongs the mining behind Bought Together, from two columns of order lines to a ranked list
per product; counting pairs fast is in `pairs`. It knows arrays and ids only: no Dagster, no
database, no Redis, no files, no clock.

A *basket* is the set of distinct products of one order. An *itemset* is frequent when at least
``min_orders`` baskets contain all of it. A *rule* says: orders with the antecedents tend to have
the consequent. With ``n`` the orders that have all products of a rule, ``n_a`` those with the
antecedents, ``n_c`` those with the consequent, and ``N`` all baskets:

- support ``n / N``, confidence ``n / n_a`` (Agrawal, Imielinski and Swami, 1993);
- lift ``n / E`` with ``E = n_a * n_c / N``, the orders that chance alone would give (Brin, Motwani,
  Ullman and Tsur, 1997, who call it interest);
- strength ``n / (E + k)``, the lift shrunk towards 0 where ``E`` is small beside ``k``, as in the
  gamma-Poisson model of DuMouchel (1999). Raw lift puts pairs first that met once by accident;
  strength does not.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from mlxtend.frequent_patterns import fpgrowth
from numpy.typing import NDArray
from scipy import sparse

from recsys_assets.learn.matrix import Ids, encode_ids
from recsys_assets.learn.pairs import column_counts, frequent_pairs

Engine = Literal["sparse", "mlxtend"]

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]


# --- Baskets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baskets:
    """The distinct products of each order.

    Attributes:
        matrix: CSR, orders x products, int8, 1 where the order has the product; indices sorted
            and unique within a row.
        product_ids: int64 or str (object dtype), one per column, ascending.
    """

    matrix: Any
    product_ids: Ids

    def __post_init__(self) -> None:
        if self.matrix.shape[1] != len(self.product_ids):
            raise ValueError(
                f"{self.matrix.shape[1]} columns for {len(self.product_ids)} product ids"
            )
        if not self.matrix.has_canonical_format:
            raise ValueError("the products of a basket must be sorted and unique")

    @property
    def n_orders(self) -> int:
        """Number of baskets, ``N`` of every formula here."""
        return int(self.matrix.shape[0])


@dataclass(frozen=True)
class BasketCounts:
    """What became of the order lines, for people to read. All numbers are counts."""

    lines: int
    repeated_lines: int
    orders: int
    baskets: int
    too_small: int
    too_large: int


def baskets_from_lines(
    order_ids: Any,
    product_ids: Any,
    *,
    min_products: int = 2,
    max_products: int = 100,
) -> tuple[Baskets, BasketCounts]:
    """Gather order lines into baskets of ``min_products`` to ``max_products`` distinct products.

    Args:
        order_ids: order of each line; a pyarrow or numpy column of integers or text.
        product_ids: product of each line, parallel to ``order_ids``. Lines may come in any order
            and repeat.
        min_products: orders with fewer distinct products are left out and counted.
        max_products: orders with more distinct products are left out and counted.

    Returns:
        The baskets, whose columns are all products seen (also those of orders left out), and the
        counts.

    Raises:
        ValueError: columns of different lengths, a missing id, or an empty range of sizes.
    """
    if not 0 <= min_products <= max_products:
        raise ValueError(f"no basket has {min_products} to {max_products} products")
    order_column = _column(order_ids, "order id")
    product_column = _column(product_ids, "product id")
    if len(order_column) != len(product_column):
        raise ValueError(f"{len(order_column)} order ids for {len(product_column)} product ids")

    order_index, n_orders = _row_numbers(order_column)
    product_index, products = encode_ids(product_column)
    ones = np.ones(len(order_index), np.int8)
    shape = (n_orders, len(products))
    matrix = sparse.csr_array((ones, (order_index, product_index)), shape=shape)
    matrix.data[:] = 1  # repeated lines were summed

    size = np.diff(matrix.indptr)
    fits = (min_products <= size) & (size <= max_products)
    counts = BasketCounts(
        lines=len(order_index),
        repeated_lines=len(order_index) - int(matrix.nnz),
        orders=n_orders,
        baskets=int(fits.sum()),
        too_small=int((size < min_products).sum()),
        too_large=int((size > max_products).sum()),
    )
    return Baskets(matrix[fits], products), counts


def _column(values: Any, name: str) -> Any:
    """A complete pyarrow column (ChunkedArray) of what may be an array of numpy or pyarrow."""
    column = values
    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([column if isinstance(column, pa.Array) else pa.array(column)])
    if column.null_count:
        raise ValueError(f"{column.null_count} lines have no {name}")
    return column


def _row_numbers(column: Any) -> tuple[Ints, int]:
    """Each value's number, int32, in order of first appearance, and how many there are."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(), len(encoded.dictionary)


# --- Frequent itemsets ----------------------------------------------------------------------------


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


# --- Rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BasketRules:
    """Rules "orders with the antecedents have the consequent", columnar: one row per rule.

    Attributes:
        product_ids: int64 or str [P]; products elsewhere are indices into this.
        product_orders: int32 [P], orders with each product.
        n_orders: all orders, ``N``.
        shrinkage: ``k`` of the strength, in orders.
        antecedents: int32 [R, A], ascending within a row; -1 where a rule has fewer than ``A``.
        consequent: int32 [R].
        orders: int32 [R], orders with the antecedents and the consequent, ``n``.
        support: float64 [R], ``n / N``.
        confidence: float64 [R], ``n / n_a``.
        lift: float64 [R], ``n / E``, ``E = n_a * n_c / N``.
        strength: float64 [R], ``n / (E + k)``.
    """

    product_ids: Ids
    product_orders: Ints
    n_orders: int
    shrinkage: float
    antecedents: Ints
    consequent: Ints
    orders: Ints
    support: Floats
    confidence: Floats
    lift: Floats
    strength: Floats


def rules_from_itemsets(itemsets: Itemsets, shrinkage: float = 10.0) -> BasketRules:
    """Every rule with one consequent: from an itemset of size s, s rules.

    Args:
        itemsets: frequent itemsets, with all their subsets (as ``frequent_itemsets`` returns).
        shrinkage: ``k`` of the strength, in orders, 0 or more; 0 gives the raw lift.

    Raises:
        ValueError: a negative shrinkage.
    """
    if shrinkage < 0:
        raise ValueError(f"shrinkage is {shrinkage}; it is a number of orders, 0 or more")
    antecedents, consequent, orders, antecedent_orders = (
        np.concatenate(columns) for columns in zip(*_rule_columns(itemsets), strict=True)
    )
    by_chance = (
        antecedent_orders.astype(np.float64)
        * itemsets.product_orders[consequent]
        / max(itemsets.n_orders, 1)
    )
    return BasketRules(
        product_ids=itemsets.product_ids,
        product_orders=itemsets.product_orders,
        n_orders=itemsets.n_orders,
        shrinkage=shrinkage,
        antecedents=antecedents,
        consequent=consequent,
        orders=orders,
        support=orders / max(itemsets.n_orders, 1),
        confidence=orders / antecedent_orders,
        lift=orders / by_chance,
        strength=orders / (by_chance + shrinkage),
    )


def _rule_columns(itemsets: Itemsets) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """Antecedents, consequent, orders with all and orders with the antecedents, in parts."""
    width = max(len(itemsets.members) - 1, 1)
    none = np.empty(0, np.int32)
    yield np.empty((0, width), np.int32), none, none, none
    for size in range(2, len(itemsets.members) + 1):
        members, orders = itemsets.members[size - 1], itemsets.orders[size - 1]
        for place in range(size):
            antecedents = np.delete(members, place, axis=1)
            antecedent_orders = itemsets.orders[size - 2][_row_of(itemsets, antecedents)]
            padding = ((0, 0), (0, width - antecedents.shape[1]))
            padded = np.pad(antecedents, padding, constant_values=-1)
            yield padded, members[:, place], orders, antecedent_orders


def _row_of(itemsets: Itemsets, sets: Ints) -> NDArray[np.int64]:
    """Row of each set, int32 [Q, size], among the frequent itemsets of its size.

    A set is found from its prefix: (row of the first size - 1 members, last member) is one number
    and these numbers ascend, since rows are in lexicographic order.
    """
    n_products = len(itemsets.product_ids)

    def codes(prefix_rows: Any, members: Ints) -> Any:
        return prefix_rows * np.int64(n_products) + members[:, -1]

    if sets.shape[1] == 0:
        return np.zeros(len(sets), np.int64)
    members = itemsets.members[sets.shape[1] - 1]
    haystack = codes(_row_of(itemsets, members[:, :-1]), members)
    rows: NDArray[np.int64] = np.searchsorted(
        haystack, codes(_row_of(itemsets, sets[:, :-1]), sets)
    )
    return rows


# --- Lists ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TopConsequents:
    """A short list per product, as CSR: product p's are rows ``indptr[p]:indptr[p + 1]``.

    Attributes:
        indptr: int64 [P + 1].
        consequents: int32 [L], product indices, the strongest of each product first.
        strengths: float64 [L].
        rules: int64 [L], the row of each in the ``BasketRules`` it came from, for its evidence.
    """

    indptr: NDArray[np.int64]
    consequents: Ints
    strengths: Floats
    rules: NDArray[np.int64]


def top_consequents(rules: BasketRules, top_n: int, min_orders: int = 1) -> TopConsequents:
    """The ``top_n`` strongest consequents of each product, by rules with one antecedent.

    Args:
        rules: mined rules; those with several antecedents are passed over.
        top_n: length of a list, at most.
        min_orders: orders that a rule rests on, at least. Below the minimum of the mining it
            changes nothing.

    Returns:
        Lists by falling strength; equal strengths by more orders, then by product index.
    """
    one_antecedent = (rules.antecedents[:, 1:] == -1).all(axis=1)
    rows = np.flatnonzero(one_antecedent & (rules.orders >= min_orders))
    antecedent = rules.antecedents[rows, 0]
    order = np.lexsort(
        (rules.consequent[rows], -rules.orders[rows], -rules.strength[rows], antecedent)
    )
    n_products = len(rules.product_ids)
    antecedent = antecedent[order]
    starts = np.searchsorted(antecedent, np.arange(n_products))
    place = np.arange(len(order)) - starts[antecedent]
    kept = rows[order[place < top_n]]
    lengths = np.bincount(rules.antecedents[kept, 0], minlength=n_products)
    return TopConsequents(
        indptr=np.concatenate([[0], np.cumsum(lengths)]),
        consequents=rules.consequent[kept],
        strengths=rules.strength[kept],
        rules=kept,
    )
