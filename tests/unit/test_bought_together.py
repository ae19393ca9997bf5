"""Bought Together as Redis gets it, from rules worked out by hand."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recsys_assets.learn.itemsets import Itemsets
from recsys_assets.learn.rules import BasketRules, rules_from_itemsets
from recsys_assets.publish.bought_together import lists_from_rules, pairing_lists
from recsys_assets.publish.merchandising import Action, Rule, Scope
from recsys_assets.publish.selection import Assortment
from tests.assortments import assortment
from tests.breakfasts import rules_of

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


def lists(
    found: BasketRules,
    length: int = 50,
    *,
    min_orders: int = 1,
    wanted: Assortment | None = None,
) -> Iterator[tuple[str, dict[str, float]]]:
    made = lists_from_rules(found, wanted or assortment(), length=length, min_orders=min_orders)
    return pairing_lists(made)


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
    assert dict(lists(found)) == {
        f"product:{bread}:bought_together": {butter: 0.428571, jam: 0.25},
        f"product:{butter}:bought_together": {bread: 0.428571},
        f"product:{jam}:bought_together": {bread: 0.25},
    }


def test_a_list_is_as_long_as_asked() -> None:
    found = rules(np.array([11, 12, 13, 14], np.int64))
    of = dict(lists(found, 1))
    assert of["product:11:bought_together"] == {"12": 0.428571}


def test_no_rules_are_no_lists() -> None:
    found = rules(np.array([11, 12, 13, 14], np.int64))
    assert dict(lists(found, min_orders=7)) == {}


def test_products_whose_ids_no_key_can_hold_are_left_out() -> None:
    found = rules(np.array(["", "butter", "j\nam", "milk"], object))
    assert dict(lists(found)) == {}
    found = rules(np.array(["bread", "butter", "j\nam", "milk"], object))
    assert dict(lists(found)) == {
        "product:bread:bought_together": {"butter": 0.428571},
        "product:butter:bought_together": {"bread": 0.428571},
    }


def test_lists_are_as_the_shop_wants_them_and_milk_borrows_from_its_category() -> None:
    found = rules(np.array([11, 12, 13, 14], np.int64))
    wanted = assortment(
        Rule(Scope.BOUGHT_TOGETHER, 12, 13, Action.PIN, 1.0),
        Rule(Scope.BOUGHT_TOGETHER, None, 13, Action.BOOST, 2.0),
        unavailable=(),
        categories={12: 0, 14: 0},
    )
    made = lists_from_rules(found, wanted, length=50, min_orders=1)
    assert dict(pairing_lists(made)) == {
        "product:11:bought_together": {"13": 0.5, "12": 0.428571},
        "product:12:bought_together": {"13": 1.428571, "11": 0.428571},
        "product:13:bought_together": {"11": 0.25},
        "product:14:bought_together": {"11": 0.428571},
    }
    assert made.product_ids[made.borrowed].tolist() == [14]


BISCUITS, CRISPS = 0, 1
BLOCK_6 = Rule(Scope.BOUGHT_TOGETHER, 2, 6, Action.BLOCK, 0.0)
BOOST_3 = Rule(Scope.BOUGHT_TOGETHER, None, 3, Action.BOOST, 9.0)


@pytest.mark.parametrize(
    ("wanted", "borrowed"),
    [
        pytest.param({}, [7, 6, 5], id="the best"),
        pytest.param({"unavailable": (7, 5, 4)}, [6, 3], id="unavailable"),
        pytest.param({"rules": (BLOCK_6,)}, [7, 5, 4], id="blocked in its own list"),
        pytest.param({"rules": (BOOST_3,)}, [3, 7, 6], id="boosted"),
        pytest.param({"most_per_category": 1}, [7, 4], id="capped"),
        pytest.param({"most_per_category": 1, "unavailable": (7,)}, [6, 4], id="capped as well"),
    ],
)
def test_a_borrowed_list_is_as_long_as_asked_after_what_is_left_out(
    wanted: dict[str, Any], borrowed: list[int]
) -> None:
    """Product 1 is bought with 7, 6, 5 and so on down to 3; 2 is of its category, and bought with
    9 once.
    """
    orders = [[1, other] for other in range(3, 8) for _ in range(other)]
    kinds = {1: BISCUITS, 2: BISCUITS, 3: CRISPS, 4: CRISPS} | dict.fromkeys((5, 6, 7), 2)
    found = rules_of([*orders, [2, 9]])
    made = lists_from_rules(
        found,
        assortment(*wanted.pop("rules", ()), categories=kinds, **wanted),
        length=3,
        min_orders=2,
    )
    assert made.product_ids[made.borrowed].tolist() == [2]
    assert list(map(int, dict(pairing_lists(made))["product:2:bought_together"])) == borrowed


def test_borrowed_lists_are_full_though_most_of_the_category_lists_are_unavailable() -> None:
    orders = [[1, 1000 - n] for n in range(100) for _ in range(102 - n)]
    found = rules_of([*orders, [2, 9]])
    wanted = assortment(unavailable=tuple(range(906, 1001)), categories={1: 0, 2: 0})
    made = lists_from_rules(found, wanted, length=3, min_orders=2)
    assert list(dict(pairing_lists(made))["product:2:bought_together"]) == ["905", "904", "903"]
