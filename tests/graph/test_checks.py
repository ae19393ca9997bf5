"""Every check on good and on bad data; the blocking ones in runs that they end."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import numpy as np
import pytest

from recsys_assets.evaluate import checks
from recsys_assets.learn.artifacts import ArtifactError, artifact_path
from recsys_assets.resources import ArtifactStore, RedisPublisher, ShopDatabase
from tests.graphs import TOGETHER, Graph, failed_checks, materialized
from tests.published import Publisher
from tests.shops import Order, create_shop, day

ORDERS = [
    *(Order(n, n, [10, 11], day(n)) for n in range(1, 6)),
    *(Order(n, n - 5, [10, 12], day(n)) for n in range(6, 11)),
    Order(11, None, [13], day(11)),
]
INTERACTIONS = "user_product_interactions"
DAY = timedelta(days=1)


@pytest.fixture
def shop(graph: Graph) -> Graph:
    """A shop that is published, without a fault."""
    with graph.database() as connection:
        create_shop(connection, ORDERS)
    result = graph.run(config={"als_model": {"iterations": 2}})
    assert result.success
    assert failed_checks(result) == {}
    assert len(result.get_asset_check_evaluations()) == 22
    return graph


def execute(graph: Graph, statement: str) -> None:
    with graph.database() as connection:
        connection.execute(statement)


def result_of(check: dg.AssetChecksDefinition, graph: Graph, **more: Any) -> dg.AssetCheckResult:
    """What a check says of the graph as it stands."""
    resources = {
        "shop": ShopDatabase(url=graph.database_url),
        "redis": RedisPublisher(url=graph.redis_url),
        "artifacts": ArtifactStore(folder=str(graph.folder)),
    }
    wanted = {name: resources[name] for name in resources.keys() & check.required_resource_keys}
    result: dg.AssetCheckResult = check(**wanted, **more)
    return result


def blocked(graph: Graph, *assets: str, made: set[str]) -> dict[str, str]:
    """The failed checks of a run that must end having made no more than ``made``."""
    before = graph.published()
    result = graph.run(*assets)
    assert not result.success
    assert materialized(result) == made
    assert graph.published() == before
    return failed_checks(result)


def test_a_missing_column_blocks_everything_and_names_its_setting(shop: Graph):
    execute(shop, "ALTER TABLE orders RENAME COLUMN created_at TO placed_at")
    failed = blocked(shop, made=set())
    assert failed.keys() == {"orders_readable"}
    assert "'orders' has no column 'created_at'" in failed["orders_readable"]
    assert "placed_at" in failed["orders_readable"]
    assert "RECSYS_ORDERS_CREATED_AT_COLUMN" in failed["orders_readable"]
    settings = shop.settings.model_copy(update={"orders_created_at_column": "placed_at"})
    assert replace(shop, settings=settings).run().success


def test_a_missing_table_blocks_everything_and_names_its_setting(shop: Graph):
    execute(shop, "ALTER TABLE order_items RENAME TO lines")
    failed = blocked(shop, made=set())
    assert failed.keys() == {"orders_readable"}
    assert "RECSYS_ORDER_ITEMS_TABLE" in failed["orders_readable"]


def test_a_watermark_in_the_future_blocks_what_reads_the_interactions(shop: Graph):
    execute(shop, "UPDATE batch_metadata SET last_processed_at = now() + interval '1 day'")
    before = shop.published()
    result = shop.run()
    assert failed_checks(result).keys() == {"watermark_not_in_future"}
    assert materialized(result) == {INTERACTIONS, *TOGETHER}
    for key, value in before.items():
        assert ("bought_together" in key) or shop.published()[key] == value


def test_unsound_interactions_block_what_reads_them(shop: Graph):
    def blocks() -> bool:
        result = shop.run(INTERACTIONS, "global_top_buys")
        found = failed_checks(result).keys() == {"interactions_sound"}
        assert found is not result.success
        return found and materialized(result) == {INTERACTIONS}

    execute(
        shop,
        "ALTER TABLE user_product_interactions DROP CONSTRAINT user_product_interactions_check",
    )
    for score, count in [("0", 1), ("'NaN'", 1), ("2.5", 2)]:
        execute(
            shop,
            f"INSERT INTO user_product_interactions VALUES (99, 1, {score}, {count}, now(), now())",
        )
        assert blocks(), score
        execute(shop, "DELETE FROM user_product_interactions WHERE user_id = 99")
    assert not blocks()
    execute(
        shop,
        "ALTER TABLE user_product_interactions DROP CONSTRAINT user_product_interactions_pkey",
    )
    assert blocks()


def test_no_interactions_at_all_name_the_setting_of_statuses(shop: Graph):
    execute(shop, "UPDATE orders SET status = 'closed', updated_at = now()")
    failed = blocked(shop, INTERACTIONS, "global_top_buys", "user_top_buys", made={INTERACTIONS})
    assert failed.keys() == {"interactions_sound"}
    assert "RECSYS_PURCHASE_STATUSES" in failed["interactions_sound"]


def change(graph: Graph, name: str, **arrays: Any) -> None:
    """Propose an artifact again, some of its arrays replaced."""
    store = ArtifactStore(folder=str(graph.folder))
    header, good = store.load(name)
    store.propose(replace(header, created_at=header.created_at + DAY), {**good, **arrays})


def arrays_of(graph: Graph, name: str) -> Mapping[str, Any]:
    return ArtifactStore(folder=str(graph.folder)).load(name)[1]


def test_a_model_that_is_no_model_is_found_out(shop: Graph):
    check = checks.als_model_sound
    assert result_of(check, shop).passed
    good = arrays_of(shop, "als_model")
    factors = good["product_factors"]
    for bad in (
        {"product_factors": np.full_like(factors, np.nan)},
        {"product_factors": np.zeros_like(factors)},
        {"product_factors": factors[1:]},
        {"product_ids": good["product_ids"][1:]},
        {"popularity": good["popularity"][1:]},
    ):
        change(shop, "als_model", **{**good, **bad})
        assert not result_of(check, shop).passed
    change(shop, "als_model", **good)
    assert result_of(check, shop).passed


@pytest.mark.parametrize("name", ["als_model", "basket_rules"])
def test_a_truncated_pickle_is_an_error_and_nothing_is_published(shop: Graph, name: str):
    path = artifact_path(shop.folder, name)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="damaged"):
        result_of(getattr(checks, f"{name}_sound"), shop)
    before = shop.published()
    readers = {"als_model": "user_top_buys", "basket_rules": "bought_together"}
    assert not shop.run(readers[name]).success
    assert shop.published() == before


def test_rules_that_cannot_be_are_found_out(shop: Graph):
    check = checks.basket_rules_sound
    assert result_of(check, shop).passed
    good = arrays_of(shop, "basket_rules")
    rules = len(good["orders"])
    for bad in (
        {"support": np.full(rules, 1.5)},
        {"confidence": np.zeros(rules)},
        {"lift": np.full(rules, np.inf)},
        {"strength": np.full(rules, -1.0)},
        {name: good[name][:0] for name in ("orders", "support", "confidence", "lift", "strength")},
    ):
        change(shop, "basket_rules", **{**good, **bad})
        assert not result_of(check, shop).passed


def test_deleted_keys_are_missed(shop: Graph):
    users = checks.user_top_buys_readable
    assert result_of(users, shop).passed
    assert result_of(checks.global_top_buys_readable, shop).passed
    with shop.redis() as client:
        client.delete("user:2:top_buys", "global:top_buys")
    assert not result_of(checks.global_top_buys_readable, shop).passed
    missed = result_of(users, shop)
    assert not missed.passed
    assert missed.description == "missing or not a ranking: user 2"


def test_a_list_may_be_empty_but_not_everybodys(shop: Graph):
    users = checks.user_top_buys_readable
    with shop.redis() as client:
        publisher = Publisher(client)
        publisher.top_buys(2)
        assert result_of(users, shop).passed
        publisher.top_buys(3, 10, 10)
        assert result_of(users, shop).description == "missing or not a ranking: user 3"
        for user in range(1, 6):
            publisher.top_buys(user)
    assert not result_of(users, shop).passed


def test_products_without_a_list_are_not_read_but_some_must_have_one(shop: Graph):
    """Of 10, which has most orders, all that it is bought with is blocked."""
    execute(
        shop,
        "INSERT INTO recommendation_rules (scope, product_id, action)"
        " VALUES ('bought_together:10', '11', 'block'), ('bought_together:10', '12', 'block')",
    )
    assert failed_checks(shop.run("bought_together")) == {}
    check = checks.bought_together_readable
    read = result_of(check, shop)
    assert read.passed
    assert read.metadata["lists_read"].value == 2
    with shop.redis() as client:
        client.delete("product:11:bought_together", "product:12:bought_together")
    assert not result_of(check, shop).passed
    with shop.redis() as client:
        client.zadd("product:12:bought_together", {"10": 1.0})
    assert result_of(check, shop).passed


def test_a_list_that_is_no_ranking_is_found_out(shop: Graph):
    with shop.redis() as client:
        value = json.loads(str(client.get("global:top_buys")))
        for ranking in ([], [(1, 1.0), (1, 0.5)], [(1, 0.5), (2, 1.0)]):
            products = [{"product_id": product, "score": score} for product, score in ranking]
            client.set("global:top_buys", json.dumps({**value, "products": products}))
            assert not result_of(checks.global_top_buys_readable, shop).passed


@pytest.mark.parametrize("asset", ["user_top_buys", "bought_together"])
def test_without_room_in_redis_nothing_is_written(shop: Graph, asset: str):
    with shop.redis() as client:
        client.flushall()
        client.config_set("maxmemory", 1)
        try:
            failed = blocked(shop, asset, made=set())
        finally:
            client.config_set("maxmemory", 0)
    assert failed.keys() == {"room_in_redis"}
    assert "raise maxmemory or lower the length" in failed["room_in_redis"]
    assert shop.published() == {}
    assert shop.run(asset).success


def test_users_and_products_without_lists_are_counted(shop: Graph):
    def covered(share: float) -> dg.AssetCheckResult:
        return result_of(checks.users_covered, shop, config=checks.CoverageConfig(min_share=share))

    assert covered(1).passed
    execute(shop, "INSERT INTO user_product_interactions VALUES (99, 1, 1, 1, now(), now())")
    assert covered(0.8).passed
    assert not covered(0.9).passed
    assert covered(0.9).description == "5 of 6 have a list, at least 90% should"

    config = checks.ProductCoverageConfig(min_share=1, min_orders=5)
    assert result_of(checks.products_covered, shop, config=config).passed
    with shop.redis() as client:
        client.delete("product:12:bought_together")
    missed = result_of(checks.products_covered, shop, config=config)
    assert missed.description == "2 of 3 have a list, at least 100% should"
    assert not missed.passed
    # those with fewer orders are not asked for, and where none is, nothing is missed
    config = checks.ProductCoverageConfig(min_share=1, min_orders=6)
    assert result_of(checks.products_covered, shop, config=config).passed
    config = checks.ProductCoverageConfig(min_share=1, min_orders=1000)
    assert result_of(checks.products_covered, shop, config=config).passed


def test_lines_that_do_not_count_are_told_and_stop_nothing(shop: Graph):
    with shop.database() as connection:
        connection.execute("INSERT INTO order_items VALUES (999, 10, 1), (1, NULL, 1)")
    result = shop.run()
    assert result.success
    told = failed_checks(result)["lines_sound"]
    assert told == "these do not count: 1 lines of no order, 1 lines without product"


def test_rows_of_the_shops_rules_that_are_none_are_told_and_stop_nothing(shop: Graph):
    check = checks.recommendation_rules_sound
    assert result_of(check, shop).passed
    execute(
        shop,
        "INSERT INTO recommendation_rules (scope, product_id, action, weight) VALUES"
        " ('everywhere', '10', 'pin', NULL), ('top_buys', '10', 'boost', -1),"
        " ('nowhere', '10', 'block', NULL)",
    )
    result = shop.run("user_top_buys")
    assert result.success
    told = failed_checks(result)["recommendation_rules_sound"].split("; ")
    assert [re.sub(r"row \d+ ", "row N ", row) for row in told] == [
        "recommendation_rules row N is skipped: a boost has a weight above 0, from 1e-06 to"
        " 1000000, not -1.0",
        "recommendation_rules row N is skipped: unknown scope 'nowhere' (there are everywhere,"
        " top_buys, bought_together, buy_again, and bought_together:<product id> for one product's"
        " list)",
    ]
    execute(
        shop,
        "INSERT INTO recommendation_rules (scope, product_id, action)"
        " SELECT 'top_buys', '10', 'burn' FROM generate_series(1, 1200)",
    )
    assert str(result_of(check, shop).description).endswith("; and 1,192 more")
    execute(shop, "DELETE FROM recommendation_rules WHERE id > 1")
    assert result_of(check, shop).passed


def test_what_is_published_beside_a_users_list_is_read_back(shop: Graph):
    explained, again = checks.user_explanations_readable, checks.user_buy_again_readable
    with shop.redis() as client:
        for check, key, products in (
            (explained, "user:2:top_buys_because", "because"),
            (again, "user:2:buy_again", "products"),
        ):
            assert result_of(check, shop).passed
            text = str(client.get(key))
            value = json.loads(text)
            first = value[products][0]
            client.set(key, json.dumps({**value, products: [first, first]}))
            missed = result_of(check, shop)
            assert not missed.passed
            assert str(missed.description).endswith(": user 2")
            client.delete(key)
            assert not result_of(check, shop).passed
            client.set(key, text)
            assert result_of(check, shop).passed
