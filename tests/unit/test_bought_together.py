"""Bought Together as Redis gets it, from rules worked out by hand."""

import numpy as np
import pytest

from recsys_assets.learn.itemsets import Itemsets
from recsys_assets.learn.rules import BasketRules, rules_from_itemsets, top_consequents
from recsys_assets.publish.bought_together import pairing_lists

BREAD, BUTTER, JAM, MILK = range(4)


def rules(product_ids: np.ndarray) -> BasketRules:
    """Of 20 orders, bread 10, butter 8, jam 4, milk 2; bread and butter 6, bread and jam 3."""
    return rules_from_itemsets(
        Itemsets(
            members=(
                np.array([[BREAD], [BUTTER], [JAM], [MILK]], np.int32),
                np.array([[BREAD, BUTTER], [BREAD, JAM]], np.int32),
            ),
            orders=(np.array([10, 8, 4, 2], np.int32), np.array([6, 3], np.int32)),
            product_ids=product_ids,
            product_orders=np.array([10, 8, 4, 2], np.int32),
            n_orders=20,
            min_orders=2,
        ),
        shrinkage=10,
    )


@pytest.mark.parametrize(
    ("product_ids", "bread", "butter", "jam"),
    [
        (np.array([11, 12, 13, 14], np.int64), "11", "12", "13"),
        (np.array(["bread", "butter", "jam", "milk"], object), "bread", "butter", "jam"),
    ],
)
def test_lists_of_the_products_that_have_rules(
    product_ids: np.ndarray, bread: str, butter: str, jam: str
) -> None:
    found = rules(product_ids)
    # Strength n / (E + 10): bread and butter 6 / (10 * 8 / 20 + 10), bread and jam 3 / (2 + 10).
    assert dict(pairing_lists(found, top_consequents(found, 50))) == {
        f"product:{bread}:bought_together": {butter: 0.428571, jam: 0.25},
        f"product:{butter}:bought_together": {bread: 0.428571},
        f"product:{jam}:bought_together": {bread: 0.25},
    }


def test_a_list_is_as_long_as_asked() -> None:
    found = rules(np.array([11, 12, 13, 14], np.int64))
    lists = dict(pairing_lists(found, top_consequents(found, 1)))
    assert lists["product:11:bought_together"] == {"12": 0.428571}


def test_no_rules_are_no_lists() -> None:
    found = rules(np.array([11, 12, 13, 14], np.int64))
    assert dict(pairing_lists(found, top_consequents(found, 50, min_orders=7))) == {}


def test_products_whose_ids_no_key_can_hold_are_left_out() -> None:
    found = rules(np.array(["", "butter", "j\nam", "milk"], object))
    assert dict(pairing_lists(found, top_consequents(found, 50))) == {}
    found = rules(np.array(["bread", "butter", "j\nam", "milk"], object))
    assert dict(pairing_lists(found, top_consequents(found, 50))) == {
        "product:bread:bought_together": {"butter": 0.428571},
        "product:butter:bought_together": {"bread": 0.428571},
    }
