"""Baskets of the latest orders alone, by RECSYS_BASKET_WINDOW_DAYS."""

from dataclasses import replace
from datetime import timedelta

import pytest

from recsys_assets.learn.artifacts import load_candidate
from recsys_assets.settings import Settings
from tests.graphs import Graph, metadata, reasons
from tests.shops import Order, create_shop, day

ORDERS = [
    Order(1, 1, [10, 11], day(1)),
    Order(2, None, [11, 12], day(81)),
    Order(3, 2, [10, 13], day(91)),
]
MIN_ORDERS = {"basket_rules": {"min_orders": 1}}


def windowed(graph: Graph, days: float | None) -> Graph:
    return replace(graph, settings=Settings(basket_window_days=days))


@pytest.mark.parametrize(
    ("days", "orders", "sold"),
    [(None, 3, [10, 11, 12, 13]), (10, 2, [10, 11, 12, 13]), (9.9, 1, [10, 13])],
)
def test_rules_are_of_the_orders_in_the_window(
    graph: Graph, days: float | None, orders: int, sold: list[int]
) -> None:
    with graph.database() as connection:
        create_shop(connection, ORDERS)
    result = windowed(graph, days).run("basket_rules", config=MIN_ORDERS)
    assert result.success
    told = metadata(result, "basket_rules")
    assert (told["orders"], told["basket_window_days"]) == (orders, days)
    candidate = load_candidate(graph.folder, "basket_rules")
    assert candidate is not None
    header, rules = candidate
    assert header.parameters["basket_window_days"] == days
    assert header.orders_through == day(91)
    assert rules["product_ids"].tolist() == sold


def test_a_window_that_an_old_order_has_outrun_holds_no_baskets(graph: Graph) -> None:
    with graph.database() as connection:
        old = Order(1, 1, [10, 11], day(1), updated_at=day(1) + timedelta(days=30))
        create_shop(connection, [old])
    result = windowed(graph, 7).run("basket_rules", config=MIN_ORDERS)
    assert reasons(result) == {
        "basket_rules": "no order since 2024-01-24 00:00 counts: set RECSYS_BASKET_WINDOW_DAYS to"
        " more than 7"
    }
