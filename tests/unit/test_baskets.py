"""Baskets from order lines, worked out by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_assets.learn.baskets import Baskets, baskets_from_lines
from tests.breakfasts import BREAKFASTS, gathered


def test_lines_become_baskets_of_distinct_products() -> None:
    orders = pa.chunked_array([[7, 7, 7, 9], [9, 8, 7, 5, 5, 5]])
    products = pa.chunked_array([["b", "a", "b", "c"], ["a", "a", "b", "a", "b", "c"]])

    baskets, counts = baskets_from_lines(orders, products, min_products=2, max_products=2)

    assert baskets.product_ids.tolist() == ["a", "b", "c"]
    assert baskets.matrix.toarray().tolist() == [[1, 1, 0], [1, 0, 1]]
    assert baskets.matrix.dtype == np.int8
    assert (counts.lines, counts.repeated_lines) == (10, 2)
    assert (counts.orders, counts.baskets, counts.too_small, counts.too_large) == (4, 2, 1, 1)


@pytest.mark.parametrize(
    "ids",
    [
        np.array([30, 10, 30, 20]),
        pa.array([30, 10, 30, 20]),
        np.array(["y", "é", "y", "x"]),
        np.array(["y", "é", "y", "x"], dtype=object),
        pa.array(["y", "é", "y", "x"]),
        pa.array(["y", "é", "y", "x"], pa.large_string()),
    ],
    ids=lambda ids: f"{type(ids).__module__}-{getattr(ids, 'dtype', None) or ids.type}",
)
def test_ids_come_back_as_they_went_in(ids: Any) -> None:
    baskets, _ = baskets_from_lines(np.array([1, 1, 2, 2]), ids)
    expected = [10, 20, 30] if baskets.product_ids.dtype == np.int64 else ["x", "y", "é"]
    assert baskets.product_ids.tolist() == expected


def test_text_order_ids_group_lines_too() -> None:
    baskets, _ = baskets_from_lines(pa.array(["o2", "o1", "o2"]), np.array([1, 1, 2]))
    assert baskets.matrix.toarray().tolist() == [[1, 1]]


def test_more_repeats_of_a_line_than_an_int8_holds_are_one_product() -> None:
    baskets, counts = baskets_from_lines(np.ones(513, np.int64), np.r_[np.full(512, 4), 6])
    assert baskets.matrix.toarray().tolist() == [[1, 1]]
    assert counts.repeated_lines == 511


@pytest.mark.parametrize(
    ("orders", "products", "sizes", "message"),
    [
        ([1, 2], [1], {}, "2 order ids for 1 product ids"),
        ([1, None], [1, 2], {}, "1 lines have no order id"),
        ([1, 1], [None, None], {}, "2 lines have no product id"),
        ([1, 1], [1, 2], {"min_products": 3, "max_products": 2}, "no basket has 3 to 2 products"),
    ],
)
def test_bad_lines_are_named(
    orders: list[int], products: list[int], sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        baskets_from_lines(pa.array(orders), pa.array(products), **sizes)


def test_baskets_check_their_matrix() -> None:
    matrix = gathered(BREAKFASTS).matrix
    with pytest.raises(ValueError, match="4 columns for 3 product ids"):
        Baskets(matrix, np.arange(3))
