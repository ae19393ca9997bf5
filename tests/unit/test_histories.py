"""Histories of users, whose arrays stand beside one another as the rows of the table did."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from recsys_assets.learn.matrix import Histories, histories_from_arrow

START = datetime(2025, 1, 1, tzinfo=UTC)


def table(rows: list[tuple[int, int]]) -> pa.Table:
    """A table of these users and products; all else tells which row it was."""
    times = [START + timedelta(days=number) for number in range(len(rows))]
    moments = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in rows], pa.int64()),
            "product_id": pa.array([product for _, product in rows], pa.int64()),
            "weight": pa.array([number + 0.5 for number in range(len(rows))], pa.float32()),
            "purchase_count": pa.array(range(1, len(rows) + 1), pa.int32()),
            "first_purchased_at": pa.array(times, moments),
            "last_purchased_at": pa.array([t + timedelta(hours=1) for t in times], moments),
        }
    )


def rows_of(histories: Histories) -> dict[tuple[int, int], int]:
    """By user and product the number of the table's row; all arrays have to agree about it."""
    weights = histories.weights.tocoo()
    number = np.round(weights.data - 0.5).astype(int)
    start = np.datetime64(START.replace(tzinfo=None))
    assert_array_equal(histories.counts, number + 1)
    assert_array_equal(histories.first, start + number * np.timedelta64(1, "D"))
    assert_array_equal(histories.last - histories.first, np.timedelta64(1, "h"))
    pairs = zip(
        histories.user_ids[weights.row].tolist(),
        histories.product_ids[weights.col].tolist(),
        strict=True,
    )
    return dict(zip(pairs, number.tolist(), strict=True))


PAIRS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), unique=True)


@settings(deadline=None)
@given(PAIRS, st.one_of(st.none(), st.sets(st.integers(0, 8))))
def test_nothing_is_mixed_up(pairs: list[tuple[int, int]], known: set[int] | None) -> None:
    product_ids = None if known is None else np.array(sorted(known), np.int64)
    histories = histories_from_arrow(table(pairs), product_ids)
    assert rows_of(histories) == {pair: number for number, pair in enumerate(pairs)}
    assert histories.weights.has_sorted_indices
    if product_ids is not None:
        assert_array_equal(histories.product_ids[: len(product_ids)], product_ids)


@settings(deadline=None)
@given(PAIRS, st.data())
def test_the_histories_of_some_users(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    histories = histories_from_arrow(table(pairs))
    rows = data.draw(st.permutations(range(len(histories.user_ids))).map(lambda rows: rows[:2]))
    some = histories.rows(np.array(rows, np.int64))
    assert some.user_ids.tolist() == histories.user_ids[rows].tolist()
    assert rows_of(some) == {
        pair: number for number, pair in enumerate(pairs) if pair[0] in some.user_ids
    }
