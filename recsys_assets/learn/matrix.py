"""A sparse matrix together with the ids of its rows and columns.

Columns come from PostgreSQL as Arrow; nothing here knows where they were read from.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Ids = NDArray[np.int64] | NDArray[np.object_]
"""Distinct ids in ascending order: int64, or str objects for uuid and text."""


@dataclass(frozen=True)
class Interactions:
    """Users x products, float32: the decayed number of purchases at one date.

    ``matrix`` is CSR with sorted indices; row i is user ``user_ids[i]``, column j product
    ``product_ids[j]``.
    """

    matrix: csr_matrix
    user_ids: Ids
    product_ids: Ids

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.user_ids), len(self.product_ids)):
            raise ValueError(
                f"a matrix of {self.matrix.shape} with {len(self.user_ids)} user ids and"
                f" {len(self.product_ids)} product ids"
            )


def interactions_from_arrow(table: pa.Table) -> Interactions:
    """The matrix of a table of (user_id, product_id, weight), one row per pair."""
    rows, user_ids = encode_ids(table["user_id"])
    columns, product_ids = encode_ids(table["product_id"])
    matrix = csr_matrix(
        (table["weight"].to_numpy().astype(np.float32, copy=False), (rows, columns)),
        shape=(len(user_ids), len(product_ids)),
    )
    matrix.sort_indices()
    return Interactions(matrix, user_ids, product_ids)


def beside(interactions: Interactions, product_ids: Ids) -> tuple[csr_matrix, Ids]:
    """The matrix with the columns of ``product_ids``, then those of all other products; their ids.

    ``product_ids`` are ascending, and so are the others among themselves.
    """
    column = positions(product_ids, interactions.product_ids)
    other = column < 0
    column[other] = len(product_ids) + np.arange(other.sum())
    old = interactions.matrix
    ids = np.concatenate([product_ids, interactions.product_ids[other]])
    shape = (old.shape[0], len(ids))
    matrix = csr_matrix((old.data.copy(), column[old.indices], old.indptr), shape=shape)
    matrix.sort_indices()  # in place, data and indices
    return matrix, ids


@dataclass(frozen=True)
class Histories:
    """What users have bought, users x products: how much it weighs, how often and when.

    ``weights`` is CSR, float32, with sorted indices. ``counts`` (integers), ``first`` and ``last``
    (datetime64, UTC) are aligned with its data: the number of purchases, the first and the last.
    Row i is user ``user_ids[i]``, ascending, column j product ``product_ids[j]``.
    """

    weights: csr_matrix
    counts: NDArray[np.int32]
    first: NDArray[np.datetime64]
    last: NDArray[np.datetime64]
    user_ids: Ids
    product_ids: Ids

    def rows(self, users: slice | NDArray[np.int64]) -> "Histories":
        """The histories of some users, in this order."""
        lines = csr_matrix(
            (np.arange(self.weights.nnz), self.weights.indices, self.weights.indptr),
            shape=self.weights.shape,
        )[users]
        line = lines.data
        return Histories(
            csr_matrix((self.weights.data[line], lines.indices, lines.indptr), shape=lines.shape),
            self.counts[line],
            self.first[line],
            self.last[line],
            self.user_ids[users],
            self.product_ids,
        )


def histories_from_arrow(table: pa.Table, product_ids: Ids | None = None) -> Histories:
    """The histories of a table with the columns of :func:`recsys_assets.tables.weights`.

    Columns are those of ``product_ids``, which are ascending, then those of all other products,
    ascending among themselves.
    """
    rows, user_ids = encode_ids(table["user_id"])
    columns, bought_ids = encode_ids(table["product_id"])
    line = csr_matrix(
        (np.arange(len(rows)), (rows, columns)), shape=(len(user_ids), len(bought_ids))
    )
    known = bought_ids if product_ids is None else product_ids
    lines, ids = beside(Interactions(line, user_ids, bought_ids), known)
    weights = table["weight"].to_numpy().astype(np.float32, copy=False)[lines.data]
    return Histories(
        csr_matrix((weights, lines.indices, lines.indptr), shape=lines.shape),
        table["purchase_count"].to_numpy()[lines.data],
        table["first_purchased_at"].to_numpy()[lines.data],
        table["last_purchased_at"].to_numpy()[lines.data],
        user_ids,
        ids,
    )


def encode_ids(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], Ids]:
    """Positions of a column's values among its distinct values, and those in ascending order."""
    if len(column) == 0:
        return np.empty(0, np.int32), as_ids(pa.array([], column.type))
    # Chunks are joined once they are numbers: texts of more than 2 GB are no single array.
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    distinct = as_ids(encoded.dictionary)
    order = np.argsort(distinct)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[encoded.indices.to_numpy()], distinct[order]


def as_ids(values: pa.Array) -> Ids:
    """Arrow ids as int64 or str objects."""
    if pa.types.is_integer(values.type):
        integers: NDArray[np.int64] = values.to_numpy(zero_copy_only=False).astype(np.int64)
        return integers
    return np.array(values.to_pylist(), dtype=object)


def positions(ids: Ids, wanted: Ids) -> NDArray[np.int64]:
    """Where each of ``wanted`` stands in the ascending ``ids``; -1 where it does not."""
    if len(ids) == 0 or len(wanted) == 0:
        return np.full(len(wanted), -1, np.int64)
    if ids.dtype != wanted.dtype:
        raise ValueError(f"ids of type {ids.dtype} cannot be looked up among {wanted.dtype}")
    found = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[found] == wanted, found, -1)
