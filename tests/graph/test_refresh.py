"""One refresh of `refresh_on_new_orders`: whose keys change in Redis, and to what."""

import json
import logging
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg
import pytest

from recsys_assets.publish.list_making import FAMILIES
from recsys_assets.settings import Settings
from serving.contract import Family, publication_key
from tests.graphs import (
    PERSONAL,
    Graph,
    contents,
    keys_of_users,
    lists,
    materialized,
    metadata,
    products,
)
from tests.shops import Order, add_orders, create_shop, day

# Nine users of two tastes, each without one product of theirs, and one who buys what no other does.
ORDERS = [
    *(
        Order(n, n, [p for p in range(20 + n % 2, 32, 2) if p != 20 + n], day(n))
        for n in range(1, 10)
    ),
    Order(10, 10, [40, 41], day(10)),
    Order(11, None, [40], day(10)),
]
# So that ALS has its say on so few orders.
MODEL = {"als_model": {"factors": 4, "regularization": 0.1}}
REFRESHED = {"user_product_interactions", "global_top_buys", "user_top_buys"}


@pytest.fixture
def shop(graph: Graph) -> Graph:
    """A shop whose lists are published."""
    with graph.database() as connection:
        create_shop(connection, ORDERS)
    assert graph.run(
        "user_product_interactions", *PERSONAL, "global_top_buys", config=MODEL
    ).success
    return graph


def refreshed(shop: Graph, *orders: Order) -> set[str]:
    """The keys of users that a refresh after these orders has written, created or removed.

    The guests' list and the records of the families are checked: they are always written.
    """
    with shop.database() as connection:
        add_orders(connection, orders)
        (through,) = connection.execute("SELECT max(updated_at) FROM orders").fetchone() or ()
    before = shop.published()
    result = shop.refresh()
    assert result.success
    assert materialized(result) == REFRESHED
    after = shop.published()
    keys = before.keys() | after.keys()
    changed = {key for key in keys if after.get(key) != before.get(key)}
    users = {key for key in after if key.startswith("user:")}
    for family in (*FAMILIES, Family.GLOBAL_TOP_BUYS):
        record = json.loads(after[publication_key(family)])
        assert datetime.fromisoformat(record["orders_through"]) == through
        of_guests = family is Family.GLOBAL_TOP_BUYS
        assert record["keys"] == (1 if of_guests else len(users) / len(FAMILIES))
    for family in ("user_top_buys", "global_top_buys"):
        told = metadata(result, family)
        assert told["model_version"] == json.loads(after[f"publication:{family}"])["model_version"]
        assert told["orders_through"] == through.timestamp()
    for key in changed & users:
        knows = json.loads(after[key]).get("orders_through")
        assert knows is None or datetime.fromisoformat(knows) == through
    guests = {"global:top_buys", *map(publication_key, (*FAMILIES, Family.GLOBAL_TOP_BUYS))}
    assert guests <= changed
    return changed - guests


def test_an_order_changes_the_list_of_its_user_alone(shop: Graph):
    assert refreshed(shop, Order(12, 2, [41], day(11))) == keys_of_users(2)
    assert 41 in [p for p, _ in products(shop.published()["user:2:top_buys"])][:6]


def test_lists_of_a_refresh_are_those_of_a_publication_of_all(shop: Graph):
    refreshed(
        shop,
        Order(12, 2, [41], day(11)),
        Order(13, 77, [20, 22], day(12)),
        Order(14, 3, [99], day(13)),
        Order(10, 10, [40, 41], day(10), status="cancelled", updated_at=day(14)),
    )
    of_refresh = contents(shop.published())
    assert shop.run("user_top_buys", "global_top_buys").success
    assert contents(shop.published()) == of_refresh


def test_a_new_user_has_a_list_by_the_model_at_once(shop: Graph):
    assert refreshed(shop, Order(12, 77, [20, 22], day(11))) == keys_of_users(77)
    ranked = products(shop.published()["user:77:top_buys"])
    assert {product for product, _ in ranked[:2]} == {20, 22}
    even, odd = ({p: s for p, s in ranked if p in range(20 + n, 32, 2)} for n in (0, 1))
    assert min(even.values()) > max(odd.values())


def test_a_product_that_is_new_reaches_its_buyer_and_the_guests(shop: Graph):
    assert refreshed(shop, Order(12, 2, [99], day(11))) == keys_of_users(2)
    published = lists(shop.published())
    having = {key for key, ranked in published.items() if 99 in dict(ranked)}
    assert having == {"user:2:top_buys", "global:top_buys"}
    # bought a day after the model, which knows nothing of it
    assert dict(published["user:2:top_buys"])[99] == pytest.approx(2 ** (1 / 120), abs=1e-6)


def test_a_user_whose_only_order_is_cancelled_loses_the_list(shop: Graph):
    gone = Order(10, 10, [40, 41], day(10), status="cancelled", updated_at=day(11))
    assert refreshed(shop, gone) == keys_of_users(10)
    assert not keys_of_users(10) & shop.published().keys()
    assert refreshed(shop, Order(10, 10, [40, 41], day(10), updated_at=day(12))) == keys_of_users(
        10
    )


def test_an_order_that_moves_changes_both_users_lists(shop: Graph):
    moved = Order(10, 2, [40, 41], day(10), updated_at=day(11))
    assert refreshed(shop, moved) == keys_of_users(2, 10)
    assert not keys_of_users(10) & shop.published().keys()


def test_an_order_of_a_guest_changes_the_guests_list_alone(shop: Graph):
    before = dict(products(shop.published()["global:top_buys"]))
    assert refreshed(shop, Order(12, None, [41, 50], day(11))) == set()
    after = dict(products(shop.published()["global:top_buys"]))
    assert after.keys() - before.keys() == {50}
    assert after[50] == 1
    assert after[41] > before[41]


def test_without_new_orders_no_list_of_a_user_is_written(shop: Graph):
    assert refreshed(shop) == set()


def test_metadata_tells_of_the_change(shop: Graph):
    with shop.database() as connection:
        add_orders(connection, [Order(12, 2, [41, 99], day(11)), Order(13, None, [41], day(11))])
    result = shop.refresh()
    of = {name: metadata(result, name) for name in REFRESHED}
    wanted: dict[str, dict[str, Any]] = {
        "user_product_interactions": {
            "orders_added": 2,
            "orders_removed": 0,
            "orders_altered": 0,
            "users_recomputed": 1,
            "rows_written": 2,
            "rows_deleted": 0,
            "rebuilt": False,
            "watermark": day(11).timestamp(),
        },
        "user_top_buys": {"users": 1, "keys_removed": 0},
        "global_top_buys": {"orders_through": day(11).timestamp()},
    }
    for name, values in wanted.items():
        assert values.items() <= of[name].items(), name
        assert 0 < of[name]["seconds"] < 60


def warnings(graph: Graph, result: dg.ExecuteInProcessResult) -> list[str]:
    logs = graph.instance.all_logs(result.run_id)
    return [entry.user_message for entry in logs if entry.level == logging.WARNING]


def test_without_a_counting_order_the_last_lists_stay(shop: Graph):
    before = shop.published()
    mistaken = replace(shop, settings=Settings(purchase_statuses=["complete"]))
    result = mistaken.refresh()
    assert result.success
    assert materialized(result) == {"user_product_interactions"}
    (warning,) = warnings(shop, result)
    assert "(complete; set RECSYS_PURCHASE_STATUSES)" in warning
    assert shop.published() == before
    assert shop.refresh().success
    assert contents(shop.published()) == contents(before)


def test_without_a_model_the_rest_is_refreshed_and_a_warning_logged(graph: Graph):
    with graph.database() as connection:
        create_shop(connection, ORDERS)
    result = graph.refresh()
    assert result.success
    assert materialized(result) == REFRESHED - {"user_top_buys"}
    assert graph.published().keys() == {"global:top_buys", "publication:global_top_buys"}
    (warning,) = warnings(graph, result)
    assert warning.startswith("users' lists are left as they are: ")
    assert "als_model.pkl" in warning


def test_with_the_first_model_all_lists_are_published(graph: Graph):
    with graph.database() as connection:
        create_shop(connection, ORDERS)
    assert graph.refresh().success
    assert graph.run("als_model", "top_buys_backtest", config=MODEL).success
    result = graph.refresh()
    assert metadata(result, "user_top_buys")["users"] == 10
    of_users = {key for key in graph.published() if key.startswith("user:")}
    assert of_users == keys_of_users(*range(1, 11))


def test_a_candidate_is_not_used_before_it_is_accepted(graph: Graph):
    with graph.database() as connection:
        create_shop(connection, ORDERS)
    assert graph.run("user_product_interactions", "als_model", config=MODEL).success
    result = graph.refresh()
    assert result.success
    assert materialized(result) == REFRESHED - {"user_top_buys"}
    assert not [key for key in graph.published() if key.startswith("user:")]


def test_a_shop_without_orders_is_refreshed_and_publishes_nothing(graph: Graph):
    with graph.database() as connection:
        create_shop(connection)
    result = graph.refresh()
    assert result.success
    assert materialized(result) == {"user_product_interactions"}
    assert graph.published() == {}
