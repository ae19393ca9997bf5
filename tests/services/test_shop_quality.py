"""What does not count is counted, on a shop as dirty as a shop can be."""

from datetime import UTC, datetime

import psycopg
import pytest

from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop
from recsys_assets.shop_quality import left_out
from tests.shops import Order, create_shop, day

EPOCH, FAR = datetime(1970, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)


def counts(connection: psycopg.Connection) -> dict[str, int]:
    cursor = connection.execute(left_out(inspect_shop(connection, ShopSettings())))
    (row,) = cursor.fetchall()
    return dict(zip([column.name for column in cursor.description or ()], row, strict=True))


@pytest.fixture
def connection(database_url: str):
    with psycopg.connect(database_url) as connection:
        yield connection


@pytest.mark.parametrize("timestamp_type", ["timestamptz", "timestamp"])
def test_everything_that_can_be_wrong_is_counted(
    connection: psycopg.Connection, timestamp_type: str
) -> None:
    create_shop(
        connection,
        [
            Order(1, None, {5: 1, 6: 0, 7: -2}, day(1)),
            Order(2, 1, [None, 5, 5], EPOCH),
            Order(3, 1, [5], FAR),
            Order(4, 1, [5], day(1)),
            Order(5, 1, [5], day(1)),
            Order(6, 1, [5], day(1)),
        ],
        timestamp_type=timestamp_type,
    )
    connection.execute("UPDATE orders SET created_at = NULL WHERE id = 4")
    connection.execute("UPDATE orders SET created_at = '-infinity' WHERE id = 5")
    connection.execute("UPDATE orders SET created_at = 'infinity' WHERE id = 6")
    connection.execute("ALTER TABLE order_items ALTER quantity TYPE numeric")
    connection.execute(
        "INSERT INTO order_items VALUES"
        " (99, 5, 1), (NULL, 5, 1), (1, 8, NULL), (1, 9, 'NaN'), (1, 10, 1e30)"
    )
    assert counts(connection) == {
        "orders": 6,
        "orders_of_guests": 1,
        "orders_before_1990": 1,
        "orders_without_date": 2,
        "orders_dated_ahead": 2,
        "lines": 15,
        "lines_of_no_order": 2,
        "lines_without_product": 1,
        "lines_without_quantity": 2,
        "lines_not_above_zero": 2,
    }


def test_a_shop_without_quantities(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1))], without=("quantity",))
    found = counts(connection)
    assert (found["lines"], found["lines_without_quantity"], found["lines_not_above_zero"]) == (
        1,
        0,
        0,
    )
