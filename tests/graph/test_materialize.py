"""The whole graph, from orders to keys in Redis, on shops small enough to work out by hand."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from litestar.testing import TestClient

from recsys_assets.learn.artifacts import load_artifact
from recsys_assets.publish.list_making import FAMILIES
from recsys_assets.settings import Settings
from serving.app import create_app
from serving.settings import ServingSettings
from tests.graphs import (
    PERSONAL,
    TOGETHER,
    Graph,
    contents,
    failed_checks,
    keys_of_users,
    lists,
    materialized,
    metadata,
    reasons,
)
from tests.shops import Order, add_orders, create_shop, day, id_of

ASSETS = {
    "user_product_interactions",
    "global_top_buys",
    "product_names",
    *PERSONAL,
    *TOGETHER,
}
# Half of the half-life's weight is on day 1, all of it on day 91, the last one.
ORDERS = [
    Order(1, 1, [10, 11], day(1)),
    Order(2, 1, [10, 12], day(91)),
    Order(3, 2, [10, 11], day(91)),
    Order(4, None, [11, 13], day(91)),  # a guest's
    Order(5, 4, [10, 14], day(91), status="cancelled"),
    Order(6, 3, {12: 1, 11: 3, 15: -1}, day(91)),  # with a return
]
EVERY_PAIR = {"basket_rules": {"min_orders": 1}, "bought_together": {"min_orders": 1}}
BY_HAND = {**EVERY_PAIR, "als_model": {"discovery": 0}}  # only what a user has bought scores
THROUGH = "2024-03-31T00:00:00Z"


@pytest.fixture
def shop(graph: Graph) -> Graph:
    with graph.database() as connection:
        create_shop(connection, ORDERS, names={10: "ten", 11: "eleven"})
    return replace(graph, settings=Settings(half_life_days=90))


def test_the_keys_hold_what_the_orders_say(shop: Graph):
    result = shop.run(config=BY_HAND)
    assert result.success
    assert failed_checks(result) == {}
    assert materialized(result) == ASSETS
    published = shop.published()
    # own purchases, decayed, equal ones by the buyers of the last weeks
    assert lists(published) == {
        "user:1:top_buys": [(10, 1.5), (12, 1), (11, 0.5)],
        "user:2:top_buys": [(11, 1), (10, 1), (12, 0)],
        "user:3:top_buys": [(11, 1), (12, 1), (10, 0)],
        "global:top_buys": [(11, 3.5), (10, 2.5), (12, 2), (13, 1)],
        # n / (n_a * n_c / 5 + 3 + n_a / 10) of the five orders that count
        "product:10:bought_together": [("11", 0.350877), ("12", 0.222222)],
        "product:11:bought_together": [("10", 0.344828), ("13", 0.238095), ("12", 0.2)],
        "product:12:bought_together": [("10", 0.227273), ("11", 0.208333)],
        "product:13:bought_together": [("11", 0.25641)],
    }
    assert {key for key in published if key.startswith("user:")} == keys_of_users(1, 2, 3)
    because = contents(published)["user:1:top_buys_because"]["because"]
    assert because == [
        repeated(10, purchases=2, last=91),
        repeated(12, purchases=1, last=91),
        repeated(11, purchases=1, last=1),
    ]
    evidence = json.loads(published["product:13:bought_together_evidence"])
    assert (evidence["baskets"], evidence["orders"]) == (5, 1)
    assert evidence["products"] == [{"product_id": 11, "orders": 1, "product_orders": 4}]
    versions = {name: metadata(result, name).get("model_version") for name in ASSETS}
    for key, family in [("user:1:top_buys", "user_top_buys"), ("global:top_buys",) * 2]:
        value = json.loads(published[key])
        generated = datetime.fromisoformat(value.pop("generated_at"))
        assert abs(datetime.now(UTC) - generated) < timedelta(minutes=1)
        value.pop("products")
        assert value == {
            "schema": 1,
            "source": "personal" if family == "user_top_buys" else "global",
            "model_version": versions[family.replace(":", "_")],
            "orders_through": THROUGH,
        }
    users = dict.fromkeys(FAMILIES, 3)
    for family, keys in {**users, "global_top_buys": 1, "bought_together": 4}.items():
        record = json.loads(published[f"publication:{family}"])
        assert record.pop("generated_at") <= record.pop("finished_at")
        assert record == {
            "schema": 1,
            "family": family,
            "model_version": versions["user_top_buys" if family in users else family],
            "orders_through": THROUGH,
            "keys": keys,
            "id_kind": "integer",
        }


def repeated(product: int, *, purchases: int, last: float) -> dict[str, Any]:
    """Why a product is in a list: its user has bought it before."""
    moment = day(last).isoformat().replace("+00:00", "Z")
    because = {"kind": "repeat", "purchases": purchases, "last_purchased_at": moment}
    return {"product_id": product, "because": because}


def test_the_interactions_hold_users_purchases(shop: Graph):
    assert shop.run("user_product_interactions").success
    with shop.database() as connection:
        rows = connection.execute(
            "SELECT user_id, product_id, interaction_score, purchase_count"
            " FROM user_product_interactions ORDER BY 1, 2"
        ).fetchall()
        watermark = connection.execute("SELECT * FROM batch_metadata").fetchone()
    assert rows == [
        (1, 10, 1.5, 2),
        (1, 11, 1.0, 1),
        (1, 12, 1.0, 1),
        (2, 10, 1.0, 1),
        (2, 11, 1.0, 1),
        (3, 11, 1.0, 1),
        (3, 12, 1.0, 1),
    ]
    assert watermark is not None
    assert watermark[:2] == ("user_product_interactions", day(91))


def test_metadata_tells_what_was_done(shop: Graph):
    result = shop.run(config=BY_HAND)
    of = {name: metadata(result, name) for name in ASSETS}
    wanted = {
        "user_product_interactions": {
            "changed_orders": 6,
            "users_recomputed": 3,
            "rows_written": 7,
            "rows_deleted": 0,
            "orders_in_future": 0,
            "watermark": day(91).timestamp(),
            "rebuilt": True,
        },
        "als_model": {"users": 3, "products": 3, "interactions": 7},
        "user_top_buys": {"users": 3, "users_left_out": 0, "keys_removed": 0},
        "global_top_buys": {"products_sold": 4, "products_published": 4},
        "basket_rules": {
            "orders": 5,
            "baskets": 5,
            "baskets_too_small": 0,
            "baskets_too_large": 0,
            "min_orders": 1,
            "itemsets": 8,
            "rules": 8,
        },
        "bought_together": {"products": 4, "products_sold": 4, "pairings": 8, "keys_removed": 0},
    }
    for name, values in wanted.items():
        assert values.items() <= of[name].items(), name
        assert 0 < of[name]["seconds"] < 60
    assert of["user_top_buys"]["examples"].splitlines() == [
        "| user 1 | user 2 | user 3 |",
        "| --- | --- | --- |",
        "| ten | eleven | eleven |",
        "| 12 | ten | 12 |",
        "| eleven | 12 | ten |",
    ]
    newest = of["user_product_interactions"]["newest"].splitlines()
    assert newest[2:4] == [
        "| 1 | ten | 2 | 1.5 | 2024-03-31 00:00 |",
        "| 1 | 12 | 1 | 1 | 2024-03-31 00:00 |",
    ]
    assert "| eleven | 4 | 3.5 |" in of["global_top_buys"]["most_popular"]
    assert (
        "| ten | eleven | 2 | 0.6667 | 0.8333 | 0.3509 |" in of["basket_rules"]["strongest_rules"]
    )
    for name, picture in [
        ("als_model", "interactions_per_user"),
        ("global_top_buys", "popularity"),
        ("basket_rules", "lift_against_support"),
    ]:
        assert of[name][picture].startswith("![](data:image/png;base64,")


def test_keys_of_users_and_products_that_are_gone_are_removed(shop: Graph):
    shop.run(config=EVERY_PAIR)
    before = shop.published().keys()
    with shop.database() as connection:
        gone = Order(6, 3, [12, 11], day(91), status="refunded", updated_at=day(92))
        add_orders(connection, [gone, Order(4, None, [11], day(91), updated_at=day(92))])
    result = shop.run(config=EVERY_PAIR)
    assert result.success
    gone = {key for key in before if key.startswith(("user:3:", "product:13:"))}
    assert gone > keys_of_users(3) | {"product:13:bought_together"}
    assert before - shop.published().keys() == gone
    assert metadata(result, "user_top_buys")["keys_removed"] == 1
    assert metadata(result, "bought_together")["keys_removed"] == 1
    assert lists(shop.published())["global:top_buys"][0][0] == 10


def test_what_no_refresh_sees_is_repaired_where_that_is_asked_for(shop: Graph):
    shop.run(config=EVERY_PAIR)
    with shop.database() as connection:
        connection.execute("DELETE FROM orders WHERE id = 6")
        connection.execute(
            "UPDATE user_product_interactions SET purchase_count = 7 WHERE user_id = 2"
        )
    assert shop.run("user_product_interactions").success
    with shop.database() as connection:
        rows = connection.execute("SELECT user_id, purchase_count FROM user_product_interactions")
        assert {(2, 7), (3, 1)} <= set(rows)
    reconciling = EVERY_PAIR | {"user_product_interactions": {"reconcile": True}}
    result = shop.run(config=reconciling)
    assert result.success
    repaired = {
        name: value
        for name, value in metadata(result, "user_product_interactions").items()
        if name.startswith("repaired_")
    }
    assert repaired == {
        "repaired_orders_missing": 0,
        "repaired_orders_gone": 1,
        "repaired_orders_altered": 0,
        "repaired_users": 2,
    }
    with shop.database() as connection:
        rows = connection.execute("SELECT user_id, purchase_count FROM user_product_interactions")
        assert set(rows) == {(1, 1), (1, 2), (2, 1)}
    published = lists(shop.published())
    assert "user:3:top_buys" not in published
    assert published["global:top_buys"] == [(10, 2.5), (11, 2.5), (12, 1), (13, 1)]


@pytest.mark.parametrize("id_type", ["text", "uuid"])
def test_ids_come_back_in_the_form_in_which_they_went_in(graph: Graph, id_type: str):
    with graph.database() as connection:
        create_shop(connection, ORDERS, id_type=id_type, names={10: "ten"})
    result = graph.run(config=EVERY_PAIR)
    assert result.success
    assert failed_checks(result) == {}
    user, ten, eleven, twelve, guests = (str(id_of(n, id_type)) for n in (1, 10, 11, 12, 13))
    assert json.loads(graph.published()["publication:bought_together"])["id_kind"] == "text"
    with api(graph) as client:
        personal = client.get("/api/recommendations/top-buys/", params={"user_id": user}).json()
        assert personal["user_id"] == user
        assert personal["source"] == "personal"
        assert [p["product_id"] for p in personal["products"]] == [ten, twelve, eleven]
        guest = client.get("/api/recommendations/top-buys/").json()
        assert [p["product_id"] for p in guest["products"]] == [eleven, ten, twelve, guests]
        together = client.get(f"/api/recommendations/bought-together/{ten}/").json()
        assert together["product_id"] == ten
        assert [p["product_id"] for p in together["products"]] == [eleven, twelve]
    if id_type == "uuid":
        assert UUID(ten) == UUID(int=10)


def test_the_api_serves_integer_ids_as_integers(shop: Graph):
    shop.run(config=EVERY_PAIR)
    with api(shop) as client:
        personal = client.get("/api/recommendations/top-buys/", params={"user_id": 1}).json()
        assert personal["user_id"] == 1
        assert [p["product_id"] for p in personal["products"]] == [10, 12, 11]
        assert personal["orders_through"] == THROUGH
        cancelled = client.get("/api/recommendations/top-buys/", params={"user_id": 4}).json()
        assert cancelled["source"] == "global"
        together = client.get("/api/recommendations/bought-together/11/").json()
        assert together["product_id"] == 11
        assert [p["product_id"] for p in together["products"]] == [10, 13, 12]


def api(graph: Graph) -> TestClient[Any]:
    return TestClient(create_app(ServingSettings(redis_url=graph.redis_url)))


def test_a_shop_of_one_order_gets_what_one_order_can_tell(graph: Graph):
    with graph.database() as connection:
        create_shop(connection, [Order(1, 1, [10], day(1))])
    result = graph.run(config={"als_model": {"discovery": 0}})
    assert reasons(result) == {
        "basket_rules": "no two products share 2 orders: lower min_orders or min_support"
    }
    assert lists(graph.published()) == {
        "user:1:top_buys": [(10, 1)],
        "global:top_buys": [(10, 1)],
    }


def test_a_shop_without_orders_says_so(graph: Graph):
    with graph.database() as connection:
        create_shop(connection)
    result = graph.run()
    assert "the shop has no orders" in reasons(result)["basket_rules"]
    assert "no order is in the interactions yet" in " ".join(reasons(result).values())
    assert graph.published() == {}


def test_mlxtend_mines_rules_of_several_products(shop: Graph):
    with shop.database() as connection:
        add_orders(connection, [Order(9, None, [10, 11, 12], day(91))])
    sparse = shop.run(*TOGETHER[:2], config={"basket_rules": {"min_orders": 1}})
    assert sparse.success
    _, pairs = load_artifact(shop.folder, "basket_rules")
    result = shop.run(
        *TOGETHER,
        config=EVERY_PAIR
        | {"basket_rules": {"min_orders": 1, "engine": "mlxtend", "max_itemset_size": 3}},
    )
    assert result.success
    header, rules = load_artifact(shop.folder, "basket_rules")
    assert header.parameters["engine"] == "mlxtend"
    ids = rules["product_ids"]
    found = {
        (frozenset(ids[a[a >= 0]].tolist()), ids[c].item()): (int(n), float(confidence))
        for a, c, n, confidence in zip(
            rules["antecedents"], rules["consequent"], rules["orders"], rules["confidence"],
            strict=True,
        )
    }  # fmt: skip
    assert found[frozenset({10, 12}), 11] == (1, 0.5)  # of orders 2 and 9
    assert sum(len(antecedents) == 2 for antecedents, _ in found) == 3
    assert sum(len(antecedents) == 1 for antecedents, _ in found) == len(pairs["orders"])
    assert shop.published()["product:10:bought_together"][0][0] == "11"


def test_a_share_of_baskets_is_another_way_to_give_the_minimum(shop: Graph):
    result = shop.run("basket_rules", config={"basket_rules": {"min_support": 0.4}})
    assert metadata(result, "basket_rules")["min_orders"] == 2
    assert metadata(result, "basket_rules")["rules"] == 2


FAILURES: dict[str, dict[str, dict[str, Any]]] = {
    "both minimums": {"basket_rules": {"min_orders": 1, "min_support": 0.1}},
    "factors that are no numbers": {"als_model": {"alpha": 1e38}},
    "no frequent itemset": {"basket_rules": {"min_orders": 1000}},
}


@pytest.mark.parametrize("failure", FAILURES)
def test_after_a_failed_run_the_last_good_lists_are_served(shop: Graph, failure: str):
    shop.run(config=EVERY_PAIR)
    before = shop.published()
    (asset,) = FAILURES[failure]
    artifact = load_artifact(shop.folder, asset)[0]
    result = shop.run(config={**EVERY_PAIR, **FAILURES[failure]})
    assert not result.success
    made_of_it, pattern = {
        "als_model": (PERSONAL, "user:"),
        "basket_rules": (TOGETHER, "product:"),
    }[asset]
    family = made_of_it[-1]
    assert materialized(result) == ASSETS - set(made_of_it)
    after = shop.published()
    assert after.keys() == before.keys()
    for key, value in before.items():
        if key.startswith((pattern, f"publication:{family}")):
            assert after[key] == value
    # nor does a later run publish what this one has made of it
    assert load_artifact(shop.folder, asset)[0] == artifact
    assert shop.run(family, config={"bought_together": {"min_orders": 1}}).success
    assert contents(shop.published()) == contents(before)


def test_ids_that_no_key_can_hold_do_not_stop_the_others(graph: Graph):
    endless = "x" * 201
    with graph.database() as connection:
        create_shop(
            connection,
            [
                Order("a", "", ["bread", "", "new\nline"], day(1)),
                Order("b", endless, ["bread", "jam", ""], day(1)),
                Order("c", "anna", ["bread", "jam", endless], day(1)),
            ],
            id_type="text",
            names={"bread": "Bread"},
        )
    done = graph.run(config=EVERY_PAIR)
    assert done.success
    assert set(failed_checks(done)) == {"users_covered"}  # which is a warning
    published = graph.published()
    assert {key for key in published if key.startswith("user:")} == keys_of_users("anna")
    assert [product for product, _ in published["product:bread:bought_together"]] == ["jam"]
    assert metadata(done, "user_top_buys")["users_left_out"] == 2
