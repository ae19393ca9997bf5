"""The shop's tables as the settings describe them, in real PostgreSQL."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from recsys_assets.database import ShopError, connect
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import (
    ColumnMissingError,
    Shop,
    inspect_shop,
    missing_indexes,
)
from tests.shops import Order, add_orders, create_shop, day, id_of


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database_url)) as connection:
        yield connection


LAST_OF_MANY = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=20_000)


def create_many_orders(connection: psycopg.Connection, timestamp_type: str = "timestamptz") -> None:
    """20,000 orders, one a minute, with three lines each: so many that an index is worth it."""
    create_shop(connection, timestamp_type=timestamp_type)
    connection.execute(
        "INSERT INTO orders SELECT i, i, 'paid', t, t FROM generate_series(1, 20000) AS i,"
        " LATERAL (SELECT timestamptz '2020-01-01' + i * interval '1 minute' AS t)"
    )
    connection.execute(
        "INSERT INTO order_items SELECT i, p, 1 FROM generate_series(1, 20000) AS i,"
        " generate_series(1, 3) AS p"
    )
    connection.execute("ANALYZE")


def plan_of(connection: psycopg.Connection, query: sql.Composed) -> str:
    """How PostgreSQL would answer the query, a line per step."""
    rows = connection.execute(b"EXPLAIN " + query.as_bytes()).fetchall()
    return "\n".join(step for (step,) in rows)


def inspect(connection: psycopg.Connection, **settings: Any) -> Shop:
    return inspect_shop(connection, ShopSettings(**settings))


def purchases(connection: psycopg.Connection, shop: Shop) -> list[tuple[Any, ...]]:
    rows = connection.execute(shop.purchases()).fetchall()
    return sorted((order, product) for order, _user, product, _at in rows)


# --- What there is


def test_a_shop_with_the_default_names(connection: psycopg.Connection) -> None:
    create_shop(connection, names={1: "tea"})
    shop = inspect(connection)
    assert (shop.changed_at, shop.status, shop.quantity) == ("updated_at", "status", "quantity")
    assert shop.products == "products"
    assert (shop.order_id_type, shop.user_id_type, shop.product_id_type) == ("bigint",) * 3


def test_optional_columns_and_names_may_be_absent(connection: psycopg.Connection) -> None:
    create_shop(connection, without={"updated_at", "status", "quantity"})
    shop = inspect(connection)
    assert (shop.updated_at, shop.status, shop.quantity, shop.products) == (None,) * 4
    assert (shop.products_available, shop.products_category, shop.unavailable_query) == (None,) * 3
    assert shop.changed_at == "created_at"


def test_an_optional_column_can_be_switched_off(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, {5: 1, 6: -1}, day(1), status="cancelled")])
    assert purchases(connection, inspect(connection)) == []
    shop = inspect(
        connection,
        orders_status_column="",
        orders_updated_at_column="",
        order_items_quantity_column="",
    )
    assert shop.changed_at == "created_at"
    assert purchases(connection, shop) == [(1, 5), (1, 6)]


def test_every_name_can_be_another(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SCHEMA sales")
    connection.execute(
        'CREATE TABLE sales."Order" (no uuid, "Customer" text, placed timestamptz,'
        " modified timestamptz, state text)"
    )
    connection.execute("CREATE TABLE sales.line (order_no uuid, sku varchar(20), pieces numeric)")
    connection.execute("CREATE TABLE sales.article (sku varchar(20), title text)")
    connection.execute(
        "INSERT INTO sales.\"Order\" VALUES (%s, 'c', now(), now(), 'done')", [id_of(1, "uuid")]
    )
    connection.execute("INSERT INTO sales.line VALUES (%s, 's1', 0.5)", [id_of(1, "uuid")])
    connection.execute("INSERT INTO sales.article VALUES ('s1', 'Soap')")
    shop = inspect(
        connection,
        orders_table="sales.Order",
        orders_id_column="no",
        orders_user_id_column="Customer",
        orders_created_at_column="placed",
        orders_updated_at_column="modified",
        orders_status_column="state",
        purchase_statuses=["done"],
        order_items_table="sales.line",
        order_items_order_id_column="order_no",
        order_items_product_id_column="sku",
        order_items_quantity_column="pieces",
        products_table="sales.article",
        products_id_column="sku",
        products_name_column="title",
    )
    assert purchases(connection, shop) == [(id_of(1, "uuid"), "s1")]
    assert (shop.products, shop.products_id, shop.products_name) == (
        "sales.article",
        "sku",
        "title",
    )
    assert missing_indexes(connection, shop) == [
        'CREATE INDEX CONCURRENTLY ON "sales"."Order" ("modified");',
        'CREATE INDEX CONCURRENTLY ON "sales"."Order" ("Customer");',
        'CREATE INDEX CONCURRENTLY ON "sales"."line" ("order_no");',
    ]


# --- What is missing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"orders_table": "sales.orders"},
            "there is no table 'sales.orders' .* RECSYS_ORDERS_TABLE",
        ),
        ({"order_items_table": "lines"}, "no table 'lines' .* RECSYS_ORDER_ITEMS_TABLE"),
        (
            {"orders_id_column": "no"},
            r"table 'orders' has no column 'no' \(it has: id, user_id, status, created_at,"
            r" updated_at\)\. Set RECSYS_ORDERS_ID_COLUMN",
        ),
        ({"orders_user_id_column": "no"}, "'orders' .* 'no' .* RECSYS_ORDERS_USER_ID_COLUMN"),
        ({"orders_created_at_column": "no"}, "'orders' .*RECSYS_ORDERS_CREATED_AT_COLUMN"),
        ({"orders_updated_at_column": "no"}, "'orders' .*RECSYS_ORDERS_UPDATED_AT_COLUMN"),
        ({"orders_status_column": "no"}, "'orders' .*RECSYS_ORDERS_STATUS_COLUMN"),
        ({"order_items_order_id_column": "no"}, "'order_items' .*_ITEMS_ORDER_ID_COLUMN"),
        ({"order_items_product_id_column": "no"}, "'order_items' .*_ITEMS_PRODUCT_ID_COLUMN"),
        ({"order_items_quantity_column": "no"}, "'order_items' .*_ITEMS_QUANTITY_COLUMN"),
        ({"products_table": "articles"}, "no table 'articles' .* RECSYS_PRODUCTS_TABLE"),
        (
            {"products_table": "products", "products_name_column": "title"},
            "'products' has no column 'title' .* RECSYS_PRODUCTS_NAME_COLUMN",
        ),
        (
            {"products_table": "products", "products_id_column": "sku"},
            "'products' has no column 'sku' .* RECSYS_PRODUCTS_ID_COLUMN",
        ),
        (
            {"products_available_column": "stock"},
            "'products' has no column 'stock' .* RECSYS_PRODUCTS_AVAILABLE_COLUMN",
        ),
        (
            {"products_category_column": "aisle"},
            "'products' has no column 'aisle' .* RECSYS_PRODUCTS_CATEGORY_COLUMN",
        ),
        (
            {"products_category_column": "name", "products_id_column": "sku"},
            "'products' has no column 'sku' .* RECSYS_PRODUCTS_ID_COLUMN",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_setting(
    connection: psycopg.Connection, settings: dict[str, str], message: str
) -> None:
    create_shop(connection, names={1: "tea"})
    with pytest.raises(ColumnMissingError, match=message):
        inspect(connection, **settings)


def test_a_table_of_names_that_does_not_fit_is_passed_over(connection: psycopg.Connection) -> None:
    create_shop(connection, names={1: "tea"})
    connection.execute("ALTER TABLE products RENAME name TO title")
    shop = inspect(connection)
    assert (shop.products, shop.products_name) == ("products", None)
    connection.execute("ALTER TABLE products RENAME id TO sku")
    assert inspect(connection).products is None


@pytest.mark.parametrize("column_type", ["boolean", "smallint", "numeric(8,2)", "double precision"])
def test_a_column_of_availability_is_found(
    connection: psycopg.Connection, column_type: str
) -> None:
    create_shop(connection, names={1: "tea"})
    connection.execute(f"ALTER TABLE products ADD is_active {column_type}")
    shop = inspect(connection)
    assert (shop.products_available, shop.products_available_type) == ("is_active", column_type)
    assert inspect(connection, products_available_column="").products_available is None


@pytest.mark.parametrize("column_type", ["text", "character(1)", "bit(1)"])
def test_a_column_of_availability_of_another_type_is_refused_where_it_is_set(
    connection: psycopg.Connection, column_type: str
) -> None:
    create_shop(connection, names={1: "tea"})
    connection.execute(f"ALTER TABLE products ADD is_active {column_type}")
    shop = inspect(connection)
    assert (shop.products_available, shop.products_available_type) == (None, None)
    assert shop.products == "products"
    with pytest.raises(ShopError, match=r"is \w+.*; .* RECSYS_PRODUCTS_AVAILABLE_COLUMN"):
        inspect(connection, products_available_column="is_active")


# --- Purchases


def test_what_counts_as_a_purchase(connection: psycopg.Connection) -> None:
    create_shop(
        connection,
        [
            Order(1, 1, [5, 5, None, 6], day(1)),
            Order(2, None, {5: 2, 6: 0, 7: -1}, day(2), "paid"),
            Order(3, 1, [5], day(3), "cancelled"),
            Order(4, 1, [5], day(4), None),
            Order(5, 1, [], day(5)),
        ],
    )
    rows = connection.execute(inspect(connection).purchases()).fetchall()
    assert sorted(rows, key=str) == [
        (1, 1, 5, day(1)),
        (1, 1, 6, day(1)),
        (2, None, 5, day(2)),
    ]


@pytest.mark.parametrize(
    ("status_type", "code", "statuses"),
    [
        ("smallint", "CASE status WHEN 'completed' THEN 3 ELSE 1 END", ["2", "3"]),
        ("state", "status::state", ["completed", "paid", "shipped"]),
        ("varchar(9)", "status", ["completed"]),
    ],
)
def test_a_status_may_be_of_any_type(
    connection: psycopg.Connection, status_type: str, code: str, statuses: list[str]
) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1)), Order(2, 1, [5], day(2), "cancelled")])
    connection.execute("CREATE TYPE state AS ENUM ('completed', 'cancelled')")
    connection.execute(f"ALTER TABLE orders ALTER status TYPE {status_type} USING {code}")
    shop = inspect(connection, purchase_statuses=statuses)
    assert purchases(connection, shop) == [(1, 5)]


def test_basket_lines_are_distinct_and_guests_count(connection: psycopg.Connection) -> None:
    create_shop(
        connection,
        [Order(1, None, [5, 5, 6], day(1)), Order(2, 1, [5], day(1), "cancelled")],
        id_type="uuid",
    )
    lines = connection.execute(inspect(connection).basket_lines()).fetchall()
    order, five, six = (str(id_of(number, "uuid")) for number in (1, 5, 6))
    assert sorted(lines) == [(order, five), (order, six)]


@pytest.mark.parametrize("timestamp_type", ["timestamptz", "timestamp"])
def test_baskets_of_a_window(connection: psycopg.Connection, timestamp_type: str) -> None:
    create_shop(
        connection,
        [
            Order(1, 1, [5], day(1)),
            Order(2, 1, [6], day(2)),
            Order(3, None, [7], day(3)),
        ],
        timestamp_type=timestamp_type,
    )
    lines = connection.execute(inspect(connection).basket_lines(day(2))).fetchall()
    assert sorted(lines) == [(2, 6), (3, 7)]


@pytest.mark.parametrize("timestamp_type", ["timestamptz", "timestamp"])
def test_an_index_finds_the_baskets_of_a_window(
    connection: psycopg.Connection, timestamp_type: str
) -> None:
    create_many_orders(connection, timestamp_type)
    connection.execute("CREATE INDEX orders_created_at ON orders (created_at)")
    connection.execute("CREATE INDEX order_items_order_id ON order_items (order_id)")
    shop = inspect(connection)
    windowed = plan_of(connection, shop.basket_lines(LAST_OF_MANY - timedelta(minutes=100)))
    assert re.search("orders_created_at .*\n +Index Cond: .*created_at >= ", windowed)
    assert "Seq Scan" not in windowed
    assert "Seq Scan" in plan_of(connection, shop.basket_lines())


# --- The latest change


def last_change(connection: psycopg.Connection) -> Any:
    row = connection.execute(inspect(connection).last_change()).fetchone()
    assert row is not None
    return row[0]


def test_the_latest_change_is_not_in_the_future(connection: psycopg.Connection) -> None:
    create_shop(connection)
    assert last_change(connection) is None
    add_orders(
        connection,
        [
            Order(1, 1, [5], day(1), updated_at=day(9)),
            Order(2, 1, [5], day(3)),
            Order(3, 1, [5], day(3), updated_at=day(365 * 900)),
        ],
    )
    assert last_change(connection) == day(9)


def test_an_order_never_updated_changed_when_it_was_created(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1)), Order(2, 1, [5], day(3))])
    connection.execute("UPDATE orders SET updated_at = NULL")
    assert last_change(connection) == day(3)
    connection.execute("UPDATE orders SET updated_at = %s WHERE id = 1", [day(2)])
    assert last_change(connection) == day(3)
    connection.execute("UPDATE orders SET updated_at = %s WHERE id = 1", [day(4)])
    assert last_change(connection) == day(4)


@pytest.mark.parametrize("timestamp_type", ["timestamp", "date"])
def test_times_without_zone_are_utc(connection: psycopg.Connection, timestamp_type: str) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1))], timestamp_type=timestamp_type)
    assert last_change(connection) == day(1)


def test_an_index_answers_for_the_latest_change(connection: psycopg.Connection) -> None:
    create_many_orders(connection)
    connection.execute("CREATE INDEX ON orders (updated_at)")
    plan = plan_of(connection, inspect(connection).last_change())
    assert "Index" in plan
    assert "Seq Scan" not in plan
