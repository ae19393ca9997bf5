"""Our own tables: made once, with the shop's types of ids, by whoever may."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from itertools import count

import psycopg
import pytest
from psycopg import sql

from recsys_assets.database import ShopError, columns_of, connect, read_arrow
from recsys_assets.ingest.interactions import refresh_interactions
from recsys_assets.ingest.watermark import orders_watermark
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import Shop, inspect_shop
from recsys_assets.tables import (
    OUR_TABLES,
    count_interactions,
    create_tables,
    popularity,
    some_users,
    weights,
)
from tests.shops import Order, create_shop, day, id_of

_roles = count(1)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database_url)) as connection:
        yield connection


def inspect(connection: psycopg.Connection, schema: str = "public") -> Shop:
    return inspect_shop(connection, ShopSettings(schema_name=schema))


def refresh(connection: psycopg.Connection, shop: Shop) -> None:
    refresh_interactions(
        connection, shop, half_life=timedelta(days=10), overlap=timedelta(minutes=10)
    )


@contextmanager
def another_role(connection: psycopg.Connection, *grants: str) -> Iterator[None]:
    """The connection as a role that owns nothing and has these rights alone."""
    role = sql.Identifier(f"reader_{next(_roles)}")
    connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    for grant in grants:
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(grant), role))
    connection.execute(sql.SQL("SET ROLE {}").format(role))
    connection.commit()
    yield
    connection.rollback()
    connection.execute("RESET ROLE")
    connection.execute(sql.SQL("DROP OWNED BY {0}").format(role))
    connection.execute(sql.SQL("DROP ROLE {0}").format(role))
    connection.commit()


@pytest.mark.parametrize("schema", ["public", "recsys", "Our Own"])
@pytest.mark.parametrize("id_type", ["bigint", "integer", "text", "uuid", "character varying(36)"])
def test_the_tables_have_the_shops_ids(
    connection: psycopg.Connection, schema: str, id_type: str
) -> None:
    create_shop(connection, id_type=id_type)
    shop = inspect(connection, schema)
    create_tables(connection, shop)
    assert columns_of(connection, f"{schema}.user_product_interactions") == {
        "user_id": id_type,
        "product_id": id_type,
        "interaction_score": "double precision",
        "purchase_count": "integer",
        "first_purchased_at": "timestamp with time zone",
        "last_updated_at": "timestamp with time zone",
    }
    assert columns_of(connection, f"{schema}.counted_orders") == {
        "order_id": id_type,
        "user_id": id_type,
        "purchased_at": "timestamp with time zone",
        "product_ids": f"{id_type}[]",
    }
    assert columns_of(connection, f"{schema}.product_popularity")["product_id"] == id_type
    assert columns_of(connection, f"{schema}.changed_users")["user_id"] == id_type
    assert list(columns_of(connection, f"{schema}.batch_metadata"))[:2] == [
        "job_name",
        "last_processed_at",
    ]


def test_the_tables_are_made_once(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 2, [5], day(1))])
    shop = inspect(connection, "recsys")
    refresh(connection, shop)
    create_tables(connection, shop)
    assert count_interactions(connection, shop) == (1, 1)
    assert orders_watermark(connection, shop) == day(1)


@pytest.mark.parametrize("missing", OUR_TABLES)
def test_a_table_that_is_missing_is_made(connection: psycopg.Connection, missing: str) -> None:
    create_shop(connection, [Order(1, 2, [5], day(1))])
    shop = inspect(connection)
    refresh(connection, shop)
    columns = columns_of(connection, f"public.{missing}")
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(missing)))
    create_tables(connection, shop)
    assert columns_of(connection, f"public.{missing}") == columns != {}


@pytest.mark.parametrize(
    ("column", "ours"),
    [
        ("orders.user_id", "user_product_interactions.user_id"),
        ("order_items.product_id", "user_product_interactions.product_id"),
        ("orders.id", "counted_orders.order_id"),
    ],
)
def test_ids_of_another_type_are_refused(
    connection: psycopg.Connection, column: str, ours: str
) -> None:
    create_shop(connection, id_type="bigint")
    create_tables(connection, inspect(connection))
    table, name = column.split(".")
    connection.execute(f"ALTER TABLE {table} ALTER {name} TYPE text")
    message = (
        rf"^public\.{ours.replace('.', '[.]')} is bigint, but the shop's ids are text\."
        r".*counted_orders.* RECSYS_SCHEMA_NAME"
    )
    with pytest.raises(ShopError, match=message):
        create_tables(connection, inspect(connection))
    create_tables(connection, inspect(connection, "recsys"))


READ_SHOP = ("SELECT ON orders, order_items", "USAGE ON SCHEMA public")


def test_a_role_that_may_not_create_uses_the_tables_that_are_there(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection, [Order(1, 2, [5], day(1))])
    shop = inspect(connection, "recsys")
    create_tables(connection, shop)
    with another_role(
        connection,
        *READ_SHOP,
        "USAGE ON SCHEMA recsys",
        "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA recsys",
    ):
        refresh(connection, shop)
        assert count_interactions(connection, shop) == (1, 1)


def test_a_role_may_be_given_a_schema_to_create_in(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 2, [5], day(1))])
    connection.execute("CREATE SCHEMA recsys")
    with another_role(connection, *READ_SHOP, "USAGE, CREATE ON SCHEMA recsys"):
        shop = inspect(connection, "recsys")
        refresh(connection, shop)
        assert count_interactions(connection, shop) == (1, 1)


def test_a_role_that_may_not_create_what_is_missing_fails(connection: psycopg.Connection) -> None:
    create_shop(connection)
    with (
        another_role(connection, *READ_SHOP),
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema public"),
    ):
        create_tables(connection, inspect(connection))


def test_nothing_is_counted_before_the_first_refresh(connection: psycopg.Connection) -> None:
    create_shop(connection)
    shop = inspect(connection)
    assert count_interactions(connection, shop) == (0, 0)
    assert orders_watermark(connection, shop) is None
    create_tables(connection, shop)
    assert count_interactions(connection, shop) == (0, 0)
    assert orders_watermark(connection, shop) is None


@pytest.mark.parametrize(("id_type", "ids"), [("bigint", [2, 3]), ("text", ["id-2", "id-3"])])
def test_some_users(connection: psycopg.Connection, id_type: str, ids: list[int | str]) -> None:
    orders = [Order(user, user, [5, 6], day(1)) for user in (4, 3, 2)]
    create_shop(connection, orders, id_type=id_type)
    shop = inspect(connection)
    refresh(connection, shop)
    assert some_users(connection, shop, 2) == ids
    assert count_interactions(connection, shop) == (6, 3)


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
def test_weights_are_the_scores_of_one_date(
    connection: psycopg.Connection, database_url: str, id_type: str
) -> None:
    orders = [
        Order(1, 1, [5], day(1)),
        Order(2, 1, [5, 6], day(11)),
        Order(3, 1, [7], day(31)),  # one half-life after the date asked for: weighs twice
        Order(5, 1, [8], day(365)),  # much later: weighs no more than that
        Order(4, 2, [5], day(1 - 365 * 40)),  # as good as forgotten, yet above 0
    ]
    create_shop(connection, orders, id_type=id_type)
    shop = inspect(connection)
    refresh(connection, shop)
    connection.commit()
    table = read_arrow(database_url, weights(shop, day(21), timedelta(days=10)))
    rows = {(row["user_id"], row["product_id"]): row["weight"] for row in table.to_pylist()}

    def key(user: int, product: int) -> tuple[int | str, int | str]:
        return tuple(
            number if id_type == "bigint" else str(id_of(number, id_type))
            for number in (user, product)
        )

    assert rows.pop(key(2, 5)) == pytest.approx(2**-100)
    assert rows == {key(1, 5): 0.75, key(1, 6): 0.5, key(1, 7): 2.0, key(1, 8): 2.0}


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
def test_popularity_is_that_of_one_date_best_first(
    connection: psycopg.Connection, database_url: str, id_type: str
) -> None:
    orders = [
        Order(1, 1, [5, 6], day(1)),
        Order(2, None, [6, 9], day(11)),  # guests count
        Order(3, 2, [7, 8], day(21)),
        Order(4, 2, [8], day(21)),
    ]
    create_shop(connection, orders, id_type=id_type)
    shop = inspect(connection)
    refresh(connection, shop)
    connection.commit()
    query = popularity(shop, day(21), timedelta(days=10))
    rows = [tuple(row.values()) for row in read_arrow(database_url, query).to_pylist()]
    five, six, seven, eight, nine = (
        number if id_type == "bigint" else str(id_of(number, id_type)) for number in range(5, 10)
    )
    best = [(eight, 2.0, 2), (seven, 1.0, 1), (six, 0.75, 2), (nine, 0.5, 1), (five, 0.25, 1)]
    assert rows == best
    for as_of, most in [(day(21), 2), (day(31), 3), (day(11), 4), (day(71), 5)]:
        query = popularity(shop, as_of, timedelta(days=10), most)
        found = read_arrow(database_url, query)
        assert found["product_id"].to_pylist() == [product for product, *_ in best[:most]]
        decay = 0.5 ** ((as_of - day(21)) / timedelta(days=10))
        expected = [weight * decay for _, weight, _ in best[:most]]
        assert found["weight"].to_pylist() == pytest.approx(expected)


def test_equally_popular_products_are_in_the_order_of_ids(
    connection: psycopg.Connection, database_url: str
) -> None:
    create_shop(connection, [Order(n, None, [n % 4 + 10], day(1 + n % 3)) for n in range(12)])
    shop = inspect(connection)
    refresh(connection, shop)
    connection.commit()
    found = read_arrow(database_url, popularity(shop, day(3), timedelta(days=10), 3))
    assert found["product_id"].to_pylist() == [10, 11, 12]


def test_the_table_itself_refuses_scores_that_cannot_be(connection: psycopg.Connection) -> None:
    create_shop(connection)
    create_tables(connection, inspect(connection))
    connection.commit()
    for score, purchases in [("0", 1), ("-1", 1), ("2.5", 2), ("'NaN'", 3)]:
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(
                f"INSERT INTO user_product_interactions VALUES (1, 2, {score}, {purchases},"
                " now(), now())"
            )
        connection.rollback()


def test_interactions_of_an_earlier_release_are_computed_anew(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1)), Order(2, 1, [5], day(3))])
    shop = inspect(connection)
    refresh(connection, shop)
    connection.execute("ALTER TABLE user_product_interactions DROP COLUMN first_purchased_at")
    connection.commit()
    refresh(connection, shop)
    rows = connection.execute(
        "SELECT user_id, product_id, first_purchased_at, last_updated_at"
        " FROM user_product_interactions"
    ).fetchall()
    assert rows == [(1, 5, day(1), day(3))]
