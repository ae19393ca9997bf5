"""Five orders small enough to count by hand, and how tests of mining build and read them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from recsys_assets.learn.baskets import Baskets, baskets_from_lines
from recsys_assets.learn.itemsets import Itemsets, frequent_itemsets
from recsys_assets.learn.rules import BasketRules, rules_from_itemsets

# Five orders. Orders per product: bread 4, butter 4, jam 2, milk 2.
BREAKFASTS = [
    ["bread", "butter"],
    ["jam", "bread", "butter"],
    ["jam", "bread"],
    ["milk", "butter"],
    ["milk", "bread", "butter"],
]
BREAD, BUTTER, JAM, MILK = range(4)
PAIR_ORDERS: dict[tuple[int, ...], int] = {
    (BREAD, BUTTER): 3,
    (BREAD, JAM): 2,
    (BREAD, MILK): 1,
    (BUTTER, JAM): 1,
    (BUTTER, MILK): 2,
}


def gathered(orders: Sequence[Sequence[str | int]], **sizes: int) -> Baskets:
    lines = [(number, product) for number, order in enumerate(orders) for product in order]
    order_ids = np.array([number for number, _ in lines], np.int64)
    product_ids = pa.array([product for _, product in lines], None if lines else pa.int64())
    return baskets_from_lines(order_ids, product_ids, **sizes)[0]


def rules_of(
    orders: Sequence[Sequence[str | int]], *, size: int = 2, min_orders: int = 1, k: float = 10
) -> BasketRules:
    """The rules of these orders; by mlxtend where itemsets have more than two products."""
    itemsets = frequent_itemsets(
        gathered(orders),
        min_orders=min_orders,
        engine="sparse" if size == 2 else "mlxtend",
        max_itemset_size=size,
    )
    return rules_from_itemsets(itemsets, k)


def as_dict(itemsets: Itemsets) -> dict[tuple[int, ...], int]:
    return {
        tuple(row): count
        for members, orders in zip(itemsets.members, itemsets.orders, strict=True)
        for row, count in zip(members.tolist(), orders.tolist(), strict=True)
    }
