"""Products that share orders: baskets, frequent itemsets, and the rules between products.

Here belongs the mining behind Bought Together, from two columns of order lines to a ranked list
per product. It knows arrays and ids only: no Dagster, no database, no Redis, no files, no clock.

A *basket* is the set of distinct products of one order. An *itemset* is frequent when at least
``min_orders`` baskets contain all of it. A *rule* says: orders with the antecedents tend to have
the consequent. With ``n`` the orders that have all products of a rule, ``n_a`` those with the
antecedents, ``n_c`` those with the consequent, and ``N`` all baskets:

- support ``n / N``, confidence ``n / n_a`` (Agrawal, Imielinski and Swami, 1993);
- lift ``n / E`` with ``E = n_a * n_c / N``, the orders that chance alone would give (Brin, Motwani,
  Ullman and Tsur, 1997, who call it interest);
- strength ``n / (E + k)``, the lift shrunk towards 0 where ``E`` is small beside ``k``: the
  posterior mean of a gamma-Poisson model up to its prior's numerator (DuMouchel, 1999). Raw lift
  ranks pairs that met once by accident first; strength does not.
"""

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
import pandas as pd
import pyarrow as pa
from mlxtend.frequent_patterns import fpgrowth
from numpy.typing import NDArray
from scipy import sparse

from recsys_assets.learn.matrix import Ids, encode_ids

Engine = Literal["sparse", "mlxtend"]

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]

BLOCK_PAIRS = 2**19
"""Pairs counted at a time by one thread, about 15 MB; 2**18 .. 2**21 measured equal within 20 %."""


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
        ValueError: both or neither minimum, one out of range, or a size that the engine
            does not mine.
    """
    least = _least_orders(baskets.n_orders, min_orders, min_support)
    if max_itemset_size < 1:
        raise ValueError(f"max_itemset_size is {max_itemset_size}; the smallest itemset has 1")
    match engine:
        case "sparse":
            mine = _sparse_itemsets
        case "mlxtend":
            mine = _mlxtend_itemsets
        case _:
            assert_never(engine)
    product_orders = _column_counts(baskets.matrix)
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
        return max(1, math.ceil(min_support * n_orders))
    raise ValueError("give exactly one of min_orders (a count) and min_support (a fraction)")


Level = tuple[Ints, Ints]
"""Itemsets of one size: members [S, size] and orders [S]."""


def _sparse_itemsets(matrix: Any, min_orders: int, max_size: int) -> Iterator[Level]:
    if max_size > 2:
        raise ValueError(
            f'engine "sparse" mines itemsets of 1 and 2 products, not of {max_size}: '
            'engine="mlxtend" does'
        )
    product_orders = _column_counts(matrix)
    frequent = np.flatnonzero(product_orders >= min_orders).astype(np.int32)
    yield frequent[:, np.newaxis], product_orders[frequent]
    if max_size == 2:
        yield frequent_pairs(matrix, min_orders)


def _mlxtend_itemsets(matrix: Any, min_orders: int, max_size: int) -> Iterator[Level]:
    frequent = np.flatnonzero(_column_counts(matrix) >= min_orders).astype(np.int32)
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


def _column_counts(matrix: Any) -> Ints:
    """Rows that have each column, int32 [columns]."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.int32)


# --- Counting pairs -------------------------------------------------------------------------------


def frequent_pairs(
    matrix: Any,
    min_orders: int,
    *,
    block_pairs: int = BLOCK_PAIRS,
    threads: int | None = None,
) -> Level:
    """All pairs of columns that at least ``min_orders`` rows share, and how many rows do.

    Frequent products are renumbered from the rarest up, and each pair in a basket is met once, at
    its rarer product: that evens out the pairs per product. A block is a run of products with
    about ``block_pairs`` pairs; blocks are independent and share the threads. Memory is that of
    the matrix a few times over, plus ``threads`` blocks, plus the result, however many products
    there are.

    Args:
        matrix: CSR, orders x products, canonical (``Baskets.matrix``).
        min_orders: rows that share a pair, at least 1.
        block_pairs: pairs met per block, at most - a single product with more is counted by
            itself, in pieces.
        threads: blocks counted at a time; by default, the processor cores this process may use.
            The result does not depend on it.

    Returns:
        Pairs, int32 [S, 2], the smaller column first, rows in lexicographic order; and orders,
        int32 [S].
    """
    product_orders = _column_counts(matrix)
    frequent = np.flatnonzero(product_orders >= min_orders)
    frequent = frequent[np.argsort(product_orders[frequent], kind="stable")].astype(np.int32)
    n_items = len(frequent)
    kept = matrix[:, frequent]
    kept.sort_indices()
    items = kept.indices.astype(np.uint32)

    # An item at position p of a basket pairs with those after it: `later` of them.
    later = np.repeat(kept.indptr[1:], np.diff(kept.indptr)) - np.arange(1, kept.nnz + 1)
    pairs_of_item = np.bincount(items, weights=later, minlength=n_items).astype(np.int64)
    first_items = _block_starts(pairs_of_item, block_pairs, max_items=2**32 // max(n_items, 1))
    block_of_item = np.repeat(np.arange(len(first_items) - 1), np.diff(first_items))
    block = block_of_item[items]
    by_block = np.lexsort((_narrowed(later.max(initial=0) - later), _narrowed(block)))
    position_starts = np.searchsorted(block[by_block], np.arange(len(first_items)))

    def counted(block: int) -> tuple[Any, Any, Ints]:
        first = first_items[block]
        positions = by_block[position_starts[block] : position_starts[block + 1]]
        most = later[positions[0]]
        partners = np.searchsorted(-later[positions], -np.arange(1, most + 1), side="right")
        if partners.sum() > block_pairs:
            other, orders = _frequent_partners(items, positions, partners, min_orders)
            rarer = np.full_like(other, first)
        else:
            codes = _pair_codes(items, positions, partners, first, n_items)
            codes, orders = frequent_codes(codes, min_orders)
            rarer, other = np.divmod(codes.astype(np.intp), n_items)
            rarer += first
        return frequent[rarer], frequent[other], orders

    with ThreadPoolExecutor(threads or _available_cores()) as pool:
        return _sorted_pairs(pool.map(counted, range(len(first_items) - 1)), matrix.shape[1])


def _block_starts(pairs_of_item: NDArray[np.int64], block_pairs: int, max_items: int) -> Any:
    """First item of each run of items with up to ``block_pairs`` pairs, and the end, [blocks + 1].

    An item with more pairs than that is a block of its own.
    """
    before = np.concatenate([[0], np.cumsum(pairs_of_item)])
    n_items = len(pairs_of_item)
    starts = [0]
    while starts[-1] < n_items:
        first = starts[-1]
        end = int(np.searchsorted(before, before[first] + block_pairs, side="right")) - 1
        starts.append(min(max(end, first + 1), first + max_items, n_items))
    return np.array(starts)


def _pair_codes(
    items: NDArray[np.uint32], positions: Any, partners: Any, first_item: int, n_items: int
) -> NDArray[np.uint32]:
    """One code per pair: ``(item - first_item) * n_items + partner``, uint32.

    Args:
        items: item at each position, basket after basket.
        positions: of the block's items, those with the most partners first.
        partners: how many of the positions have a partner 1, 2, ... places further on.
        first_item: lowest item of the block.
        n_items: all items.
    """
    codes = np.empty(partners.sum(), np.uint32)
    row = (items[positions] - np.uint32(first_item)) * np.uint32(n_items)
    end = 0
    for distance, count in enumerate(partners.tolist(), start=1):
        start, end = end, end + count
        np.add(row[:count], items[positions[:count] + distance], out=codes[start:end])
    return codes


def _frequent_partners(
    items: NDArray[np.uint32], positions: Any, partners: Any, min_orders: int
) -> tuple[NDArray[np.intp], Ints]:
    """Partners of a single item, given as to ``_pair_codes``, without a code for each pair."""
    orders = np.zeros(items.max() + 1, np.int64)
    for distance, count in enumerate(partners.tolist(), start=1):
        np.add.at(orders, items[positions[:count] + distance], 1)
    frequent = np.flatnonzero(orders >= min_orders)
    return frequent, orders[frequent].astype(np.int32)


def frequent_codes(codes: NDArray[np.uint32], min_count: int) -> tuple[NDArray[np.uint32], Ints]:
    """Values that occur at least ``min_count`` times, ascending, and how often each occurs.

    Equals ``np.unique`` with counts, filtered; but most rare values never reach the sort. Values
    are first counted by a hash into as many buckets as there are values, and dropped where the
    whole bucket holds fewer than ``min_count``: the pair filter of Park, Chen and Yu (1995). What
    is left is sorted and counted exactly.

    Args:
        codes: uint32 [n], in any order.
        min_count: at least 1.
    """
    bits = max(len(codes) - 1, 1).bit_length()
    # Fibonacci hashing (Knuth, vol. 3, 6.4): multiply by 2**32 / golden ratio, keep the high bits.
    bucket = ((codes * np.uint32(2654435769)) >> np.uint32(32 - bits)).astype(np.intp)
    enough = np.bincount(bucket) >= min_count
    left = np.sort(codes[np.flatnonzero(enough[bucket])])
    starts = np.flatnonzero(np.concatenate([[True], left[1:] != left[:-1]])[: len(left)])
    counts = np.diff(starts, append=len(left))
    frequent = counts >= min_count
    return left[starts[frequent]], counts[frequent].astype(np.int32)


def _sorted_pairs(counted: Iterable[tuple[Ints, Ints, Ints]], n_columns: int) -> Level:
    """Pairs of all blocks in lexicographic order, the smaller column first, and their orders."""
    none = np.empty(0, np.int32)
    one, other, orders = (
        np.concatenate(columns) for columns in zip((none, none, none), *counted, strict=True)
    )
    low, high = np.minimum(one, other), np.maximum(one, other)
    order = np.argsort(low.astype(np.int64) * n_columns + high)
    return np.stack([low[order], high[order]], axis=1), orders[order]


def _narrowed(values: Any) -> Any:
    """Non-negative integers in the smallest type: NumPy sorts those of 8 and 16 bits by radix."""
    return values.astype(np.min_scalar_type(values.max(initial=0)))


def _available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    width = max(len(itemsets.members) - 1, 1)
    parts: list[tuple[Ints, Ints, Ints, Ints]] = [
        (np.empty((0, width), np.int32), *(np.empty(0, np.int32),) * 3)
    ]
    for members, orders in list(zip(itemsets.members, itemsets.orders, strict=True))[1:]:
        size = members.shape[1]
        for place in range(size):
            antecedents = np.delete(members, place, axis=1)
            antecedent_orders = itemsets.orders[size - 2][_row_of(itemsets, antecedents)]
            padding = ((0, 0), (0, width - antecedents.shape[1]))
            antecedents = np.pad(antecedents, padding, constant_values=-1)
            parts.append((antecedents, members[:, place], orders, antecedent_orders))
    antecedents, consequent, orders, antecedent_orders = (
        np.concatenate(columns) for columns in zip(*parts, strict=True)
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
