"""Pairs counted in blocks and threads: always what counting them one by one gives."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from recsys_assets.learn.pairs import frequent_codes, frequent_pairs

rows_of_columns = st.lists(st.sets(st.integers(0, 11), max_size=9), max_size=25)


def matrix_of(rows: list[set[int]], n_columns: int = 12) -> sparse.csr_array:
    dense = np.zeros((len(rows), n_columns), np.int8)
    for number, row in enumerate(rows):
        dense[number, list(row)] = 1
    return sparse.csr_array(dense)


@given(
    rows=rows_of_columns,
    min_rows=st.integers(1, 5),
    block_pairs=st.sampled_from([1, 2, 5, 20, 2**19]),
    threads=st.sampled_from([None, 1, 3]),
)
def test_pairs_are_those_counted_one_by_one(
    rows: list[set[int]], min_rows: int, block_pairs: int, threads: int | None
) -> None:
    pairs, counts = frequent_pairs(
        matrix_of(rows), min_rows, block_pairs=block_pairs, threads=threads
    )
    expected = Counter(pair for row in rows for pair in combinations(sorted(row), 2))
    found = list(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True))
    assert found == sorted((pair, n) for pair, n in expected.items() if n >= min_rows)
    assert pairs.dtype == counts.dtype == np.int32


def test_blocks_and_threads_change_nothing_on_many_columns() -> None:
    random = np.random.default_rng(1)
    columns = np.minimum(random.zipf(1.3, (20_000, 12)), 70_000) - 1
    matrix = sparse.csr_array(
        (np.ones(columns.size, np.int8), (np.repeat(np.arange(20_000), 12), columns.ravel())),
        shape=(20_000, 70_000),
    )
    expected = frequent_pairs(matrix, 2, threads=1)
    for block_pairs, threads in [(2**19, 4), (2**14, 1), (2**14, 2), (500, 2)]:
        found = frequent_pairs(matrix, 2, block_pairs=block_pairs, threads=threads)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_matrix_is_left_as_it_was() -> None:
    matrix = matrix_of([{1, 2, 3}, {2, 3}])
    before = matrix.copy()
    frequent_pairs(matrix, 2)
    assert (matrix.data.tolist(), matrix.indices.tolist(), matrix.indptr.tolist()) == (
        before.data.tolist(),
        before.indices.tolist(),
        before.indptr.tolist(),
    )


@pytest.mark.parametrize("most", [3, 50, 2**32 - 1])
@given(data=st.data(), min_count=st.integers(1, 4))
def test_codes_are_those_numpy_counts(most: int, data: st.DataObject, min_count: int) -> None:
    codes = data.draw(arrays(np.uint32, st.integers(0, 60), elements=st.integers(0, most)))
    values, counts = np.unique(codes, return_counts=True)
    found, found_counts = frequent_codes(codes, min_count)
    assert found.tolist() == values[counts >= min_count].tolist()
    assert found_counts.tolist() == counts[counts >= min_count].tolist()
