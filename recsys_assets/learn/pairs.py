"""Pairs of columns that many rows of a sparse matrix share: counted exactly, in bounded memory.

Here belongs the counting alone; what rows and columns mean is `baskets`' affair.

Columns are renumbered from the rarest up, as *items*, and a pair within a row is met once, at its
rarer item: that keeps the pairs per item even. A *block* is a run of items with so many pairs
that they can be written down: one number per meeting, counted by `frequent_codes`. Blocks are
independent, so that threads can share them.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_assets.cores import available_cores

Ints = NDArray[np.int32]
Codes = NDArray[np.uint32]
Positions = NDArray[np.intp]

BLOCK_PAIRS = 2**19
"""Meetings counted at a time by one thread, in about 15 MB."""


def column_counts(matrix: Any) -> Ints:
    """Rows that have each column of a CSR matrix, int32 [columns]."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.int32)


def frequent_pairs(
    matrix: Any,
    min_rows: int,
    *,
    block_pairs: int = BLOCK_PAIRS,
    threads: int | None = None,
) -> tuple[Ints, Ints]:
    """All pairs of columns that at least ``min_rows`` rows share, and how many rows do.

    Time grows with the meetings of frequent columns in rows, not with the number of columns.
    Memory is that of the matrix a few times over, a block per thread, and the result.

    Args:
        matrix: CSR, an entry where the row has the column; indices sorted and unique in a row.
        min_rows: at least 1.
        block_pairs: meetings per block, at most. A single item with more is counted otherwise.
        threads: blocks counted at a time; by default, the processor cores this process may use.
            The result does not depend on it.

    Returns:
        Pairs, int32 [S, 2], the smaller column first, rows in lexicographic order; and the rows
        that share each, int32 [S].
    """
    counts = column_counts(matrix)
    columns = np.flatnonzero(counts >= min_rows).astype(np.int32)
    columns = columns[np.argsort(counts[columns], kind="stable")]
    kept = matrix[:, columns]
    kept.sort_indices()
    items = kept.indices.astype(np.uint32)
    n_items = len(columns)

    def counted(block: _Block) -> tuple[Ints, Ints, Ints]:
        if block.partners.sum() > block_pairs:
            other, shared = _frequent_partners(items, block, min_rows)
            return columns[np.full_like(other, block.first_item)], columns[other], shared
        codes, shared = frequent_codes(_pair_codes(items, block, n_items), min_rows)
        rarer, other = np.divmod(codes.astype(np.intp), n_items)
        return columns[block.first_item + rarer], columns[other], shared

    with ThreadPoolExecutor(threads or available_cores()) as pool:
        blocks = _blocks(items, kept.indptr, counts[columns], block_pairs)
        return _in_order(pool.map(counted, blocks), matrix.shape[1])


def frequent_codes(codes: Codes, min_count: int) -> tuple[Codes, Ints]:
    """Values that occur at least ``min_count`` times, ascending, and how often each occurs.

    Equals ``np.unique`` with counts, filtered; but most rare values never reach the sort. Values
    are first counted by a hash into about as many buckets as there are values, and dropped where
    the whole bucket holds fewer than ``min_count``: the pair filter of Park, Chen and Yu (1995).
    What is left is sorted and counted exactly.

    Args:
        codes: uint32 [n], in any order.
        min_count: at least 1.
    """
    bits = max(len(codes) - 1, 1).bit_length()
    # Fibonacci hashing (Knuth, vol. 3, 6.4): multiply by 2**32 / golden ratio, keep the high bits.
    bucket = ((codes * np.uint32(2654435769)) >> np.uint32(32 - bits)).astype(np.intp)
    enough = np.bincount(bucket) >= min_count
    left = np.sort(codes[np.flatnonzero(enough[bucket])])
    starts = np.flatnonzero(np.diff(left, prepend=~left[:1]))
    counts = np.diff(starts, append=len(left)).astype(np.int32)
    frequent = counts >= min_count
    return left[starts[frequent]], counts[frequent]


class _Block(NamedTuple):
    """A run of items, and where these have partners.

    Attributes:
        first_item: the lowest item of the run.
        positions: of the run's items, int [p], those with the most partners first.
        partners: how many of the positions have a partner 1, 2, ... places further on, int [d].
    """

    first_item: int
    positions: Positions
    partners: Positions


def _blocks(items: Codes, indptr: Any, item_counts: Ints, block_pairs: int) -> Iterator[_Block]:
    """Cut all items into blocks of up to ``block_pairs`` meetings.

    Args:
        items: item at each position, row after row, ascending within a row.
        indptr: where each row starts, and the end.
        item_counts: rows that have each item.
        block_pairs: an item with more than these is a block of its own.
    """
    n_items = len(item_counts)
    # The partners of an item are those after it in the row.
    later = np.repeat(indptr[1:], np.diff(indptr)) - np.arange(1, len(items) + 1)
    meetings = np.bincount(items, weights=later, minlength=n_items).astype(np.int64)
    most_items = 2**32 // max(n_items, 1)  # a code, at most most_items * n_items - 1, fits uint32
    firsts = _run_starts(meetings, block_pairs, most_items)
    block = np.repeat(_narrowed(np.arange(len(firsts) - 1)), np.diff(firsts))
    by_block = np.lexsort((_narrowed(later.max(initial=0) - later), block[items]))
    ends = np.concatenate([[0], np.cumsum(item_counts, dtype=np.int64)])[firsts]
    for first_item, start, end in zip(firsts[:-1], ends[:-1], ends[1:], strict=True):
        positions = by_block[start:end]
        fewer = -later[positions]
        partners = np.searchsorted(fewer, -np.arange(1, 1 - fewer[0]), side="right")
        yield _Block(int(first_item), positions, partners)


def _run_starts(sizes: NDArray[np.int64], most_size: int, most_items: int) -> NDArray[np.int64]:
    """First item of each run of sizes that add up to ``most_size`` at most, and the end."""
    before = np.concatenate([[0], np.cumsum(sizes)])
    starts = [0]
    while starts[-1] < len(sizes):
        first = starts[-1]
        end = int(np.searchsorted(before, before[first] + most_size, side="right")) - 1
        starts.append(min(max(end, first + 1), first + most_items))
    return np.array(starts)


def _narrowed(values: Any) -> Any:
    """Non-negative integers in the smallest type: NumPy sorts those of 8 and 16 bits by radix."""
    return values.astype(np.min_scalar_type(values.max(initial=0)))


def _pair_codes(items: Codes, block: _Block, n_items: int) -> Codes:
    """``(item - first_item) * n_items + partner`` of each meeting in a block."""
    codes = np.empty(block.partners.sum(), np.uint32)
    rows = (items[block.positions] - np.uint32(block.first_item)) * np.uint32(n_items)
    end = 0
    for distance, count in enumerate(block.partners.tolist(), start=1):
        start, end = end, end + count
        np.add(rows[:count], items[block.positions[:count] + distance], out=codes[start:end])
    return codes


def _frequent_partners(items: Codes, block: _Block, min_rows: int) -> tuple[Positions, Ints]:
    """Partners that a block's only item meets often, and how often, without writing meetings."""
    met = np.zeros(items.max() + 1, np.int64)
    for distance, count in enumerate(block.partners.tolist(), start=1):
        np.add.at(met, items[block.positions[:count] + distance], 1)
    frequent = np.flatnonzero(met >= min_rows)
    return frequent, met[frequent].astype(np.int32)


def _in_order(counted: Iterable[tuple[Ints, Ints, Ints]], n_columns: int) -> tuple[Ints, Ints]:
    """Pairs of all blocks in lexicographic order, the smaller column first, and their counts."""
    none = np.empty(0, np.int32)
    one, other, counts = (
        np.concatenate(parts) for parts in zip((none, none, none), *counted, strict=True)
    )
    low, high = np.minimum(one, other), np.maximum(one, other)
    order = np.argsort(low.astype(np.int64) * n_columns + high)
    return np.stack([low[order], high[order]], axis=1), counts[order]
