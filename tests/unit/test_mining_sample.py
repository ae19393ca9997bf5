"""Mining the sample shop: 1.46 million real order lines, mlxtend as the oracle."""

import numpy as np
import pyarrow.compute as pc
import pytest

from recsys_assets.learn.baskets import Baskets, baskets_from_lines
from recsys_assets.learn.itemsets import frequent_itemsets
from recsys_assets.learn.rules import rules_from_itemsets, top_consequents
from recsys_assets.local.sample_shop import sample_lines


@pytest.fixture(scope="module")
def baskets() -> Baskets:
    lines = sample_lines()
    lines = lines.filter(pc.greater(lines["quantity"], 0))
    found, counts = baskets_from_lines(lines["basket_id"], lines["product_id"])
    assert (counts.lines, counts.repeated_lines) == (1_460_438, 0)
    assert (counts.baskets, counts.too_small, counts.too_large) == (121_722, 33_725, 71)
    return found


def test_mlxtend_finds_the_same_itemsets(baskets: Baskets) -> None:
    ours = frequent_itemsets(baskets, min_orders=78)
    theirs = frequent_itemsets(baskets, min_orders=78, engine="mlxtend")
    assert [len(orders) for orders in ours.orders] == [3737, 2183]
    for one, other in zip(
        (*ours.members, *ours.orders), (*theirs.members, *theirs.orders), strict=True
    ):
        assert np.array_equal(one, other)


def test_ten_orders_give_lists_for_most_products_that_sell(baskets: Baskets) -> None:
    rules = rules_from_itemsets(frequent_itemsets(baskets, min_orders=10))
    lists = top_consequents(rules, top_n=20)
    assert len(rules.orders) == 2 * 96_430
    assert (np.diff(lists.indptr) > 0).sum() == 9_543
    assert np.diff(lists.indptr).max() == 20
