"""Buy Again worked out by hand: the order, the counts, and when each product is due."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from recsys_assets.learn.matrix import Histories
from recsys_assets.publish.buy_again import buy_again_lists
from recsys_assets.publish.merchandising import Action, Rule, Scope
from recsys_assets.publish.redis_writer import Edition
from serving.contract import BuyAgain, decode_buy_again
from tests.assortments import assortment
from tests.made_histories import day, histories

EDITION = Edition("v1", datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 2, 28, tzinfo=UTC))

# By user and product: weight, purchases, the days of the first and the last of them.
BOUGHT = {
    (1, 10): (2.0, 3, 0, 20),
    (1, 20): (2.5, 2, 5, 9),
    (1, 30): (0.5, 1, 7, 7),
    (2, 20): (1.5, 2, 4, 4),
    (3, 30): (1.0, 1, 8, 8),
}


def lists(n: int = 60, users: slice = slice(0, 3), **wanted: Any) -> dict[str, BuyAgain]:
    made: Histories = histories(BOUGHT)
    adjusted = assortment(*wanted.pop("rules", ()), **wanted).adjusted(
        Scope.BUY_AGAIN, made.product_ids
    )
    items = buy_again_lists(made, made.weights, users, adjusted, n, EDITION)
    return {key: decode_buy_again(value) for key, value in items}


def products(found: dict[str, BuyAgain], user: int) -> list[tuple[int, float]]:
    return [(p.product_id, p.score) for p in found[f"user:{user}:buy_again"].products]


def test_best_first_with_counts_and_when_each_is_due() -> None:
    found = lists()
    assert products(found, 1) == [(20, 2.5), (10, 2.0), (30, 0.5)]
    twenty, ten, thirty = found["user:1:buy_again"].products
    assert (ten.purchases, ten.last_purchased_at) == (3, day(20))
    assert ten.due_at == day(30), "two intervals in twenty days"
    assert twenty.due_at == day(9) + timedelta(days=4)
    assert thirty.due_at is None, "bought once"
    (both_at_once,) = found["user:2:buy_again"].products
    assert both_at_once.due_at is None, "no interval"
    assert found["user:3:buy_again"].model_version == "v1"


def test_as_long_as_asked_and_only_of_the_users_asked() -> None:
    assert products(lists(n=2), 1) == [(20, 2.5), (10, 2.0)]
    assert lists(users=slice(1, 2)).keys() == {"user:2:buy_again"}


@pytest.mark.parametrize("product", [10, 99])
def test_what_is_unavailable_or_blocked_is_left_out(product: int) -> None:
    blocked = Rule(Scope.BUY_AGAIN, None, 20, Action.BLOCK, 0.0)
    found = lists(unavailable=(product,), rules=[blocked])
    assert products(found, 1) == [(i, s) for i, s in [(10, 2.0), (30, 0.5)] if i != product]
    assert products(found, 2) == [], "a list all the same, which replaces the one before"


def test_boosts_and_pins_among_what_was_bought() -> None:
    rules = [
        Rule(Scope.BUY_AGAIN, None, 10, Action.BOOST, 2.0),
        Rule(Scope.BUY_AGAIN, None, 30, Action.PIN, 1.0),
        Rule(Scope.EVERYWHERE, None, 77, Action.PIN, 2.0),
    ]
    found = lists(rules=rules)
    assert products(found, 1) == [(30, 5.0), (10, 4.0), (20, 2.5)]
    assert products(found, 2) == [(20, 1.5)]


def test_users_whose_ids_no_key_can_hold_are_left_out() -> None:
    made = histories({("", 10): (1.0, 1, 0, 0), ("u", 10): (1.0, 1, 0, 0)})
    adjusted = assortment().adjusted(Scope.BUY_AGAIN, made.product_ids)
    items = buy_again_lists(made, made.weights, slice(0, 2), adjusted, 5, EDITION)
    assert [key for key, _ in items] == ["user:u:buy_again"]


def test_nobody_has_no_list() -> None:
    made = histories(BOUGHT).rows(np.empty(0, np.int64))
    adjusted = assortment().adjusted(Scope.BUY_AGAIN, made.product_ids)
    assert list(buy_again_lists(made, made.weights, slice(0, 0), adjusted, 5, EDITION)) == []
