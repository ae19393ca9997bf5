"""Frequent itemsets, worked out by hand and against mlxtend."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.learn.itemsets import Engine, frequent_itemsets
from tests.breakfasts import BREAD, BREAKFASTS, BUTTER, JAM, MILK, PAIR_ORDERS, as_dict, gathered


@pytest.mark.parametrize("engine", get_args(Engine))
def test_pairs_of_the_breakfasts(engine: Engine) -> None:
    found = frequent_itemsets(gathered(BREAKFASTS), min_orders=1, engine=engine)
    assert as_dict(found) == {(BREAD,): 4, (BUTTER,): 4, (JAM,): 2, (MILK,): 2, **PAIR_ORDERS}
    assert found.product_orders.tolist() == [4, 4, 2, 2]
    assert found.n_orders == 5
    assert all(members.dtype == np.int32 for members in (*found.members, *found.orders))


@given(
    orders=st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=25),
    min_orders=st.integers(1, 5),
    max_size=st.integers(1, 2),
)
def test_both_engines_find_the_same(
    orders: list[list[int]], min_orders: int, max_size: int
) -> None:
    baskets = gathered(orders, min_products=0)  # repeated lines and empty results are among them

    def found(engine: Engine) -> dict[tuple[int, ...], int]:
        return as_dict(
            frequent_itemsets(
                baskets, min_orders=min_orders, engine=engine, max_itemset_size=max_size
            )
        )

    assert found("sparse") == found("mlxtend")


@pytest.mark.parametrize(
    ("n_orders", "min_support", "least"),
    [(100, 0.07, 7), (100, 0.071, 8), (3, 1.0, 3), (3, 1e-9, 1), (3, 1 / 3, 1), (3, 0.34, 2)],
)
def test_min_support_is_the_least_count_with_that_share(
    n_orders: int, min_support: float, least: int
) -> None:
    baskets = gathered([[1, 2]] * n_orders)
    assert frequent_itemsets(baskets, min_support=min_support).min_orders == least


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_itemset_size": 2}, "exactly one of min_orders"),
        ({"min_orders": 1, "min_support": 0.5}, "exactly one of min_orders"),
        ({"min_orders": 0}, "min_orders is 0"),
        ({"min_support": 0.0}, "min_support is 0.0"),
        ({"min_support": 1.5}, "min_support is 1.5"),
        ({"min_orders": 1, "max_itemset_size": 0}, "max_itemset_size is 0"),
        ({"min_orders": 1, "max_itemset_size": 3}, 'engine="mlxtend" does'),
        ({"min_orders": 1, "engine": "spark"}, "engine is 'spark'; there are sparse, mlxtend"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frequent_itemsets(gathered(BREAKFASTS), **arguments)  # type: ignore[arg-type]
