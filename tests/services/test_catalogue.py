"""The shop's products in real PostgreSQL: names, categories, and what it does not sell now."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from recsys_assets.catalogue import (
    AvailabilityError,
    Changes,
    categories,
    product_names,
    refresh_unavailable,
    unavailable_ids,
)
from recsys_assets.database import ShopError, connect
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import Shop, inspect_shop
from recsys_assets.tables import create_tables
from tests.commands import eventually
from tests.publications import shop_session
from tests.shops import create_shop, id_of

ID_TYPES = ["bigint", "integer", "text", "uuid"]


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with connect(database_url, autocommit=True) as connection:
        yield connection


def inspect(connection: psycopg.Connection, **settings: Any) -> Shop:
    return inspect_shop(connection, ShopSettings(**settings))


def stock(
    connection: psycopg.Connection,
    column_type: str,
    values: dict[int, Any],
    id_type: str = "bigint",
) -> None:
    """Products 1, 2, ... with a column ``stock``."""
    connection.execute(
        sql.SQL("ALTER TABLE products ADD COLUMN IF NOT EXISTS stock {}").format(
            sql.SQL(column_type)
        )
    )
    for product, value in values.items():
        connection.execute(
            "UPDATE products SET stock = %s WHERE id = %s", [value, id_of(product, id_type)]
        )


def unavailable(connection: psycopg.Connection) -> set[str]:
    rows = connection.execute("SELECT product_id::text FROM unavailable_products").fetchall()
    return {product for (product,) in rows}


# --- Names


@pytest.mark.parametrize("id_type", ID_TYPES)
def test_names_of_products(connection: psycopg.Connection, id_type: str) -> None:
    create_shop(connection, id_type=id_type, names={1: "tea", 2: "ale", 3: None})
    shop = inspect(connection)
    one, three, four = (id_of(number, id_type) for number in (1, 3, 4))
    assert product_names(connection, shop, [one, three, four, str(one)]) == {str(one): "tea"}
    assert product_names(connection, shop, []) == {}


@pytest.mark.parametrize("id_type", ID_TYPES)
@pytest.mark.parametrize("odd", ["", "x", "--1", "1-", "٣", "9" * 40, "{1}", '"', "1.5", "0" * 31])
def test_what_is_no_id_has_no_name(connection: psycopg.Connection, id_type: str, odd: str) -> None:
    create_shop(connection, id_type=id_type, names={1: "tea"})
    shop = inspect(connection)
    one = id_of(1, id_type)
    assert product_names(connection, shop, [odd, one]) == {str(one): "tea"}


def test_a_number_beyond_the_type_of_the_ids_has_no_name(connection: psycopg.Connection) -> None:
    create_shop(connection, id_type="integer", names={1: "tea"})
    assert product_names(connection, inspect(connection), [2**40, 1]) == {"1": "tea"}


def test_names_in_another_table(connection: psycopg.Connection) -> None:
    create_shop(connection)
    connection.execute("CREATE TABLE article (sku bigint, title text)")
    connection.execute("INSERT INTO article VALUES (1, 'Soap')")
    shop = inspect(
        connection,
        products_table="article",
        products_id_column="sku",
        products_name_column="title",
    )
    assert product_names(connection, shop, [1, 2]) == {"1": "Soap"}


def test_products_without_a_table_or_a_column_of_names_have_none(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection, names={1: "tea"})
    connection.execute("ALTER TABLE products RENAME name TO title")
    assert product_names(connection, inspect(connection), [1]) == {}
    connection.execute("DROP TABLE products")
    assert product_names(connection, inspect(connection), [1]) == {}


# --- Categories


@pytest.mark.parametrize("id_type", ID_TYPES)
def test_categories_of_products(
    connection: psycopg.Connection, database_url: str, id_type: str
) -> None:
    create_shop(connection, id_type=id_type, names={1: "drink", 2: "food", 3: "drink", 4: None})
    wanted = [id_of(number, id_type) for number in (3, 9, 2, 4, 1)]
    ids = (
        np.array(wanted)
        if id_type in ("bigint", "integer")
        else np.array(list(map(str, wanted)), object)
    )
    with shop_session(database_url, products_category_column="name") as session:
        third, unknown, second, without, first = categories(session, ids).tolist()
        assert categories(session, ids[:0]).tolist() == []
    assert third == first >= 0
    assert second not in (first, -1)
    assert (unknown, without) == (-1, -1)
    with shop_session(database_url) as session:
        assert categories(session, ids).tolist() == [-1] * 5


def test_categories_may_be_numbers_and_all_missing(
    connection: psycopg.Connection, database_url: str
) -> None:
    create_shop(connection, names={1: "tea", 2: "ale"})
    stock(connection, "integer", {})
    ids = np.array([1, 2])
    with shop_session(database_url, products_category_column="stock") as session:
        assert categories(session, ids).tolist() == [-1, -1]
        stock(connection, "integer", {1: 7, 2: 7})
        assert len(set(categories(session, ids).tolist()) - {-1}) == 1


# --- Availability


@pytest.mark.parametrize(
    ("column_type", "values"),
    [
        ("boolean", {1: True, 2: False, 3: None, 4: False}),
        ("integer", {1: 5, 2: 0, 3: None, 4: -3}),
        ("numeric(8,2)", {1: 0.01, 2: 0, 3: None, 4: -0.5}),
    ],
)
def test_a_column_tells_what_is_unavailable(
    connection: psycopg.Connection, column_type: str, values: dict[int, Any]
) -> None:
    create_shop(connection, names=dict.fromkeys(range(1, 6), "x"))
    stock(connection, column_type, values)
    shop = inspect(connection, products_available_column="stock")
    assert refresh_unavailable(connection, shop) == Changes(added=2, removed=0, total=2)
    assert unavailable(connection) == {"2", "4"}


@pytest.mark.parametrize("id_type", [*ID_TYPES, "character varying(36)"])
def test_a_query_and_a_column_each_make_a_product_unavailable(
    connection: psycopg.Connection, database_url: str, id_type: str
) -> None:
    plain = "text" if id_type.startswith("character") else id_type
    create_shop(connection, id_type=plain, names=dict.fromkeys(range(1, 6), "x"))
    connection.execute(f"ALTER TABLE order_items ALTER product_id TYPE {id_type}")
    stock(connection, "integer", {1: 1, 2: 0, 3: 0}, plain)
    connection.execute(f"CREATE TABLE warehouse (sku {plain}, pieces integer)")
    for product, pieces in ((3, 0), (4, 0), (5, 2), (9, 0)):
        connection.execute("INSERT INTO warehouse VALUES (%s, %s)", [id_of(product, plain), pieces])
    settings = {
        "products_available_column": "stock",
        "unavailable_products_query": "SELECT sku FROM warehouse WHERE pieces % 2 = 0"
        " AND sku::text NOT LIKE '%{}%' AND pieces = 0; ",
    }
    expected = [id_of(product, plain) for product in (2, 3, 4, 9)]
    with shop_session(database_url, **settings) as session:
        changes = refresh_unavailable(session.connection, session.shop)
        ids = unavailable_ids(session)
    assert changes == Changes(added=4, removed=0, total=4)
    assert ids.tolist() == (
        expected if plain in ("bigint", "integer") else list(map(str, expected))
    )
    assert ids.dtype == (np.int64 if plain in ("bigint", "integer") else object)


@pytest.mark.parametrize(
    "query", ["SELECT sku, product_id FROM st", "SELECT product_id, sku, product_id FROM st"]
)
def test_the_first_column_of_a_query_counts_whatever_the_others_are_called(
    connection: psycopg.Connection, query: str
) -> None:
    create_shop(connection)
    connection.execute("CREATE TABLE st AS SELECT 1::bigint AS sku, 5::bigint AS product_id")
    refresh_unavailable(connection, inspect(connection, unavailable_products_query=query))
    assert unavailable(connection) == ({"1"} if query.startswith("SELECT sku") else {"5"})


def test_only_differences_are_written(connection: psycopg.Connection, database_url: str) -> None:
    create_shop(connection, names=dict.fromkeys(range(1, 5), "x"))
    stock(connection, "integer", {1: 0, 2: 0, 3: 1, 4: 1})
    shop = inspect(connection, products_available_column="stock")
    assert refresh_unavailable(connection, shop)
    before = dict(connection.execute("SELECT product_id, since FROM unavailable_products"))
    again = refresh_unavailable(connection, shop)
    assert not again
    assert again.total == 2
    stock(connection, "integer", {1: 1, 3: 0})
    assert refresh_unavailable(connection, shop) == Changes(added=1, removed=1, total=2)
    after = dict(connection.execute("SELECT product_id, since FROM unavailable_products"))
    assert after[2] == before[2] < after[3]
    with shop_session(database_url) as session:
        assert unavailable_ids(session).tolist() == [2, 3]
        assert unavailable_ids(session, since=after[3]).tolist() == [3]


def test_what_no_setting_tells_of_is_available(
    connection: psycopg.Connection, database_url: str
) -> None:
    create_shop(connection, names={1: "tea"})
    stock(connection, "integer", {1: 0})
    told = inspect(connection, products_available_column="stock")
    assert refresh_unavailable(connection, told).total == 1
    with shop_session(database_url) as session:
        assert refresh_unavailable(connection, session.shop) == Changes(0, 1, 0)
        assert unavailable_ids(session).tolist() == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'tea'",
        "SELECT nothing",
        "SELECT",
        "DELETE FROM products RETURNING id",
        "SELECT sell_out()",
        "SELECT 1) AS x (product_id); DROP TABLE products; SELECT (1",
    ],
)
def test_a_query_that_yields_no_ids_or_writes_is_refused(
    connection: psycopg.Connection, query: str
) -> None:
    create_shop(connection, names={1: "tea"})
    connection.execute(
        "CREATE FUNCTION sell_out() RETURNS bigint LANGUAGE sql AS"
        " 'DELETE FROM products RETURNING id'"
    )
    shop = inspect(connection, unavailable_products_query=query)
    with pytest.raises(ShopError, match=r"^RECSYS_UNAVAILABLE_PRODUCTS_QUERY does not tell"):
        refresh_unavailable(connection, shop)
    assert connection.execute("SELECT count(*) FROM products").fetchone() == (1,)
    assert unavailable(connection) == set()


def test_a_query_that_takes_too_long_is_told(connection: psycopg.Connection) -> None:
    create_shop(connection)
    quick = inspect(connection, unavailable_products_query="SELECT 1")
    slow = inspect(connection, unavailable_products_query="SELECT 2 FROM pg_sleep(300)")
    with connection.transaction():
        assert refresh_unavailable(connection, quick, within=timedelta(seconds=90)).total == 1
        # for the shop's query alone
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
    with pytest.raises(
        AvailabilityError, match=r"^RECSYS_UNAVAILABLE_\w+ has not .* within 0\.05 s"
    ):
        refresh_unavailable(connection, slow, within=timedelta(milliseconds=50))
    assert unavailable(connection) == {"1"}
    connection.execute("SET statement_timeout TO 50")
    with pytest.raises(psycopg.errors.QueryCanceled):  # of every statement, as the settings say
        refresh_unavailable(connection, slow)


def test_ids_of_another_type_in_the_table_of_products_are_told(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection)
    connection.execute("CREATE TABLE products (id text, is_active boolean)")
    connection.execute("INSERT INTO products VALUES ('7', false), ('tea', true)")
    assert refresh_unavailable(connection, inspect(connection)).total == 1
    connection.execute("UPDATE products SET is_active = false")
    with pytest.raises(ShopError, match=r"^RECSYS_PRODUCTS_AVAILABLE_COLUMN .*\"tea\""):
        refresh_unavailable(connection, inspect(connection))
    assert unavailable(connection) == {"7"}


def test_refreshes_take_turns(connection: psycopg.Connection, database_url: str) -> None:
    create_shop(connection, names={1: "tea"})
    stock(connection, "integer", {1: 0})
    shop = inspect(connection, products_available_column="stock")
    create_tables(connection, shop)
    with (
        connect(database_url, autocommit=True) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        with connection.transaction():
            assert refresh_unavailable(connection, shop) == Changes(added=1, removed=0, total=1)
            waiting = thread.submit(refresh_unavailable, other, shop)
            eventually(
                lambda: connection.execute(
                    "SELECT 1 FROM pg_locks WHERE NOT granted AND relation ="
                    " 'unavailable_products'::regclass"
                ).fetchone(),
                "the other's turn",
            )
        assert waiting.result(60) == Changes(added=0, removed=0, total=1)


def test_our_tables_are_made_where_they_are_missing(connection: psycopg.Connection) -> None:
    create_shop(connection)
    shop = inspect(connection)
    create_tables(connection, shop)
    connection.execute("DROP TABLE unavailable_products")
    assert not refresh_unavailable(connection, shop)
    assert unavailable(connection) == set()
