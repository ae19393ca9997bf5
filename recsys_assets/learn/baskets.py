"""Baskets: the distinct products of each order, as one sparse matrix.

What is found in them is in `itemsets` and `rules`. Here, as there: arrays and ids only, no Dagster,
no database, no Redis, no files, no clock.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recsys_assets.learn.matrix import Ids, encode_ids

Ints = NDArray[np.int32]


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
