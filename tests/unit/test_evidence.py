"""The counts behind Bought Together, counted again from the orders, and what pairs lead to."""

import json
from collections import Counter
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.learn.rules import BasketRules, TopConsequents, top_consequents
from recsys_assets.publish.bought_together import lists_from_rules, pairing_lists
from recsys_assets.publish.evidence import also_values, evidence_values
from recsys_assets.publish.merchandising import Action, Rule, Scope
from serving.contract import Pairing, also_key_and_field, decode_also, decode_evidence
from tests.assortments import assortment
from tests.breakfasts import BREAKFASTS, JAM, rules_of


def evidence(rules: BasketRules, length: int = 50, **options: Any) -> dict[str, Any]:
    values = evidence_values(rules, top_consequents(rules, length), "v1", **options)
    return {key: json.loads(value) for key, value in values}


def also(rules: BasketRules, **options: Any) -> dict[str, dict[str, list[Pairing]]]:
    return {
        key: {field: decode_also(value) for field, value in values.items()}
        for key, values in also_values(rules, **options)
    }


def test_the_counts_of_the_breakfasts() -> None:
    found = evidence(rules_of(BREAKFASTS), length=2)
    # Of 5 orders 2 have jam, 4 bread and 4 butter; both of the orders with jam have bread too, one
    # has butter.
    assert found["product:jam:bought_together_evidence"] == {
        "schema": 1,
        "model_version": "v1",
        "baskets": 5,
        "orders": 2,
        "products": [
            {"product_id": "bread", "orders": 2, "product_orders": 4},
            {"product_id": "butter", "orders": 1, "product_orders": 4},
        ],
        "borrowed": False,
    }
    assert set(found) == {
        f"product:{name}:bought_together_evidence" for name in ("bread", "butter", "jam", "milk")
    }


def some_orders() -> st.SearchStrategy[list[list[int]]]:
    """Orders of two products or more, with ids of one and of two digits."""
    products = st.lists(st.integers(7, 13), min_size=2, max_size=5, unique=True)
    return st.lists(products, min_size=1, max_size=25)


@settings(max_examples=100, deadline=None)
@given(orders=some_orders(), min_orders=st.integers(1, 3), length=st.integers(1, 4))
def test_the_counts_are_those_of_the_orders_and_the_products_those_of_the_list(
    orders: list[list[int]], min_orders: int, length: int
) -> None:
    rules = rules_of(orders, min_orders=min_orders)
    top = top_consequents(rules, length)
    found = {key: decode_evidence(value) for key, value in evidence_values(rules, top, "v1")}
    lists = dict(pairing_lists(lists_from_rules(rules, assortment(), length=length, min_orders=1)))
    assert list(found) == [f"{key}_evidence" for key in lists]
    single = Counter(product for order in orders for product in order)
    both = Counter(pair for order in orders for pair in permutations(order, 2))
    for key, members in lists.items():
        product = int(key.split(":")[1])
        value = found[f"{key}_evidence"]
        assert (value.baskets, value.orders) == (len(orders), single[product])
        assert [str(count.product_id) for count in value.products] == list(members)
        for count in value.products:
            other = int(count.product_id)
            assert (count.orders, count.product_orders) == (both[product, other], single[other])
            # The strength of the list follows from the counts.
            by_chance = value.orders * count.product_orders / value.baskets
            assert members[str(other)] == pytest.approx(count.orders / (by_chance + 10), abs=1e-6)


def test_a_borrowed_list_has_the_orders_of_the_category_and_says_so() -> None:
    """Rules that have a category as antecedent, number 4 in them; jam and milk are of it."""
    # Of 20 orders 10 have the category, 8 butter; 6 have both, by which confidence is 6/10.
    rules = BasketRules(
        product_ids=np.array(["bread", "butter", "jam", "milk"], object),
        product_orders=np.array([9, 8, 1, 2], np.int32),
        n_orders=20,
        shrinkage=10,
        antecedents=np.array([[4], [4]], np.int32),
        consequent=np.array([1, 0], np.int32),
        orders=np.array([6, 3], np.int32),
        support=np.array([6, 3]) / 20,
        confidence=np.array([6, 3]) / 10,
        lift=np.array([6 / 4, 3 / 4.5]),
        strength=np.array([6 / 14, 3 / 14.5]),
    )
    top = TopConsequents(
        indptr=np.array([0, 0, 0, 2, 3]),
        consequents=np.array([1, 0, 1], np.int32),
        strengths=rules.strength[[0, 1, 0]],
        rules=np.array([0, 1, 0]),
    )
    borrowed = np.array([False, False, True, False])
    found = {k: json.loads(v) for k, v in evidence_values(rules, top, "v1", borrowed=borrowed)}
    jam, milk = (found[f"product:{name}:bought_together_evidence"] for name in ("jam", "milk"))
    assert (jam["orders"], jam["borrowed"], milk["borrowed"]) == (10, True, False)
    assert jam["products"] == [
        {"product_id": "butter", "orders": 6, "product_orders": 8},
        {"product_id": "bread", "orders": 3, "product_orders": 9},
    ]


def test_what_was_not_mined_has_no_evidence() -> None:
    """Tea, of which no order is known, is pinned to the lists of jam, bread and itself."""
    rules = rules_of(BREAKFASTS)
    mined = top_consequents(rules, 2)
    jam = slice(mined.indptr[JAM], mined.indptr[JAM + 1])
    top = TopConsequents(
        indptr=np.array([0, 1, 1, 4, 4, 5]),
        consequents=np.r_[4, 4, mined.consequents[jam], 0].astype(np.int32),
        strengths=np.r_[1, 2, mined.strengths[jam], 1],
        rules=np.r_[-1, -1, mined.rules[jam], -1],
    )
    ids = np.array(["bread", "butter", "jam", "milk", "tea"], object)
    found = dict(evidence_values(rules, top, "v1", product_ids=ids))
    assert {key: json.loads(value) for key, value in found.items()} == {
        key: value
        for key, value in evidence(rules, length=2).items()
        if key == "product:jam:bought_together_evidence"
    }
    nothing = TopConsequents(np.array([0, 1]), np.array([0], np.int32), np.ones(1), np.array([-1]))
    assert list(evidence_values(rules_of([["a"]]), nothing, "v1", product_ids=ids[:1])) == []


def test_products_whose_ids_no_key_can_hold_have_no_evidence() -> None:
    orders = [["", "bread", "butter"], ["", "bread"], ["bread", "jam\n"]]
    assert evidence(rules_of(orders)) == {
        f"product:{one}:bought_together_evidence": {
            "schema": 1,
            "model_version": "v1",
            "baskets": 3,
            "orders": orders_with,
            "products": [{"product_id": other, "orders": 1, "product_orders": with_other}],
            "borrowed": False,
        }
        for one, other, orders_with, with_other in [
            ("bread", "butter", 3, 1),
            ("butter", "bread", 1, 3),
        ]
    }
    assert evidence(rules_of([["", "a"]])) == {}


# --- Two products together


def test_what_two_products_lead_to_by_hand() -> None:
    found = also(rules_of(BREAKFASTS, size=3, k=2))
    # Bread and butter: 3 orders of 5; with jam 1, with milk 1; by chance 3 * 2 / 5 = 1.2.
    # Bread and jam: 2 orders, 1 with butter, by chance 2 * 4 / 5 = 1.6. And so on.
    assert found == {
        "product:bread:bought_together_also": {
            "butter": [Pairing("jam", 0.3125), Pairing("milk", 0.3125)],
            "jam": [Pairing("butter", pytest.approx(1 / 3.6, abs=1e-6))],
            "milk": [Pairing("butter", pytest.approx(1 / 2.8, abs=1e-6))],
        },
        "product:butter:bought_together_also": {
            "jam": [Pairing("bread", pytest.approx(1 / 2.8, abs=1e-6))],
            "milk": [Pairing("bread", pytest.approx(1 / 3.6, abs=1e-6))],
        },
    }


def naive_also(
    orders: list[list[int]], most: int, min_orders: int, k: float
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The same by counting and sorting."""
    counts = Counter(
        frozenset(items) for order in orders for n in (1, 2, 3) for items in combinations(order, n)
    )
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for pair in filter(lambda items: len(items) == 2, counts):
        rules = []
        for product in {product for order in orders for product in order} - pair:
            together = counts[pair | {product}]
            if together >= min_orders:
                by_chance = counts[pair] * counts[frozenset([product])] / len(orders)
                rules.append((-together / (by_chance + k), -together, product))
        if rules:
            key, field = also_key_and_field(*pair)
            found.setdefault(key, {})[field] = [
                (product, round(-strength, 6)) for strength, _, product in sorted(rules)[:most]
            ]
    return found


@settings(max_examples=60, deadline=None)
@given(orders=some_orders(), most=st.integers(1, 3), min_orders=st.integers(1, 3))
def test_what_pairs_lead_to_is_what_counting_and_sorting_gives(
    orders: list[list[int]], most: int, min_orders: int
) -> None:
    found = also(rules_of(orders, size=3), most=most, min_orders=min_orders)
    assert {
        key: {f: [(p.product_id, p.strength) for p in their] for f, their in fields.items()}
        for key, fields in found.items()
    } == naive_also(orders, most, min_orders, 10)


def test_pairs_are_found_under_the_smaller_text_not_the_smaller_number() -> None:
    found = also(rules_of([[9, 10, 11], [9, 10, 11]], size=3))
    assert {key: set(fields) for key, fields in found.items()} == {
        "product:10:bought_together_also": {"11", "9"},
        "product:11:bought_together_also": {"9"},
    }


def test_no_pair_with_an_id_that_no_key_can_hold() -> None:
    found = also(rules_of([["", "a", "b", "c"], ["", "a", "b", "c"]], size=3))
    assert {key: list(fields) for key, fields in found.items()} == {
        "product:a:bought_together_also": ["b", "c"],
        "product:b:bought_together_also": ["c"],
    }
    assert [p.product_id for p in found["product:a:bought_together_also"]["b"]] == ["c"]


def test_what_two_products_lead_to_is_as_the_shop_wants_it() -> None:
    """Jam is blocked, milk is pinned and counts twice, tea is unavailable; cake is as it was."""
    others = ["cake", "jam", "milk", "tea"]
    rules = rules_of([["bread", "butter", other] for other in [*others, "cake", "jam"]], size=3)
    wanted = assortment(
        Rule(Scope.EVERYWHERE, None, "jam", Action.BLOCK, 0.0),
        Rule(Scope.BOUGHT_TOGETHER, None, "milk", Action.BOOST, 3.0),
        Rule(Scope.BOUGHT_TOGETHER, None, "milk", Action.PIN, 1.0),
        Rule(Scope.TOP_BUYS, None, "cake", Action.BLOCK, 0.0),
        unavailable=("tea",),
    ).adjusted(Scope.BOUGHT_TOGETHER, rules.product_ids)
    # Cake: 2 / (6 * 2 / 6 + 10), milk: 3 / (6 * 1 / 6 + 10).
    cake, milk = Pairing("cake", 0.166667), Pairing("milk", 0.272727)
    found = also(rules, adjusted=wanted)["product:bread:bought_together_also"]
    assert found["butter"] == [milk, cake]
    one = also(rules, adjusted=wanted, most=1)["product:bread:bought_together_also"]
    assert one["butter"] == [milk]
    assert [p.product_id for p in found["tea"]] == ["butter"]


def test_rules_with_one_or_with_three_antecedents_are_of_no_pair() -> None:
    orders = [["a", "b", "c", "d"]] * 2
    assert also(rules_of(orders)) == {}
    assert also(rules_of(orders, size=4)) == also(rules_of(orders, size=3))
    assert also(rules_of([["a"]], size=3)) == {}
