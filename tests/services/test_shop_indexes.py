"""The indexes that a shop lacks, as they are told, in real PostgreSQL."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from recsys_assets.database import connect
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import Shop, inspect_shop, missing_indexes
from tests.shops import Order, create_shop, day


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database_url)) as connection:
        yield connection


def inspect(connection: psycopg.Connection, **settings: Any) -> Shop:
    return inspect_shop(connection, ShopSettings(**settings))


def test_indexes_that_a_refresh_needs(connection: psycopg.Connection) -> None:
    create_shop(connection)
    shop = inspect(connection)
    statements = missing_indexes(connection, shop)
    assert statements == [
        'CREATE INDEX CONCURRENTLY ON "orders" ("updated_at");',
        'CREATE INDEX CONCURRENTLY ON "orders" ("user_id");',
        'CREATE INDEX CONCURRENTLY ON "order_items" ("order_id");',
    ]
    connection.commit()
    connection.autocommit = True
    for statement in statements:
        connection.execute(statement.encode())
    assert missing_indexes(connection, shop) == []


def columns_without_index(connection: psycopg.Connection, **windowed: bool) -> list[str]:
    statements = missing_indexes(connection, inspect(connection), **windowed)
    return [statement.split('"')[-2] for statement in statements]


def test_a_window_needs_an_index_on_the_time_of_creation(connection: psycopg.Connection) -> None:
    create_shop(connection)
    wanted = ["updated_at", "created_at", "user_id", "order_id"]
    assert columns_without_index(connection, baskets_windowed=True) == wanted
    connection.execute("CREATE INDEX ON orders (created_at)")
    wanted.remove("created_at")
    assert columns_without_index(connection, baskets_windowed=True) == wanted


def test_orders_never_updated_need_an_index_on_the_time_of_creation(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1)), Order(2, 1, [5], day(2))])
    assert "created_at" not in columns_without_index(connection)
    connection.execute("UPDATE orders SET updated_at = NULL WHERE id = 1")
    assert columns_without_index(connection)[:2] == ["updated_at", "created_at"]


def test_one_index_is_enough_for_a_shop_without_a_time_of_change(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection, without={"updated_at"})
    wanted = ["created_at", "user_id", "order_id"]
    assert columns_without_index(connection, baskets_windowed=True) == wanted


def test_an_index_that_does_not_serve_is_none(connection: psycopg.Connection) -> None:
    create_shop(connection)
    connection.execute("CREATE INDEX ON orders (status, updated_at)")
    connection.execute("CREATE INDEX ON orders (user_id) WHERE status = 'paid'")
    connection.execute("CREATE INDEX ON order_items (order_id, product_id)")
    assert columns_without_index(connection) == ["updated_at", "user_id"]
