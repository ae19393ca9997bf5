"""The import of CSV files into a real database: all or nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from recsys_assets.local.csv_import import load_csv
from recsys_assets.local.errors import CsvError
from recsys_assets.local.shop_tables import ShopCounts, count_rows

ORDERS = "id,user_id,created_at\n1,7,2024-05-01\n2,,2024-05-02\n"
ITEMS = "order_id,product_id,quantity,price\n1,10,2,3.50\n1,11,-1,\n2,10,0,1\n"
PRODUCTS = "id,name,brand\n10,Tea,Ours\n11,Milk,\n"
NOTHING = ShopCounts(orders=0, order_items=0, products=0)


class Export:
    """The files of a shop, and their import."""

    def __init__(self, folder: Path, connection: psycopg.Connection) -> None:
        self.folder = folder
        self.connection = connection

    def load(self, orders: str, items: str, products: str | None = None) -> ShopCounts:
        return load_csv(
            self.connection,
            self.write("orders.csv", orders),
            self.write("items.csv", items),
            products_csv=None if products is None else self.write("products.csv", products),
        )

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return self.connection.execute(query).fetchall()


@pytest.fixture
def export(tmp_path: Path, database_url: str) -> Iterator[Export]:
    with psycopg.connect(database_url) as connection:
        yield Export(tmp_path, connection)


def test_good_files(export: Export) -> None:
    counts = export.load(ORDERS, ITEMS, PRODUCTS)
    assert (
        counts == ShopCounts(orders=2, order_items=3, products=2) == count_rows(export.connection)
    )
    first, second = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)
    assert export.rows("SELECT * FROM orders ORDER BY id") == [
        (1, 7, "completed", first, first),
        (2, None, "completed", second, second),
    ]
    assert export.rows("SELECT * FROM order_items ORDER BY order_id, product_id") == [
        (1, 10, 2, Decimal("3.50")),
        (1, 11, -1, None),
        (2, 10, 0, Decimal("1")),
    ]
    assert export.rows("SELECT id, name, brand FROM products ORDER BY id") == [
        (10, "Tea", "Ours"),
        (11, "Milk", None),
    ]


def test_ids_that_are_not_all_integers_are_text(export: Export) -> None:
    export.load(ORDERS, "order_id,product_id\n1,10\n2,SKU-9\n", PRODUCTS)
    assert export.rows("SELECT id FROM orders ORDER BY id") == [(1,), (2,)]
    assert export.rows("SELECT product_id FROM order_items ORDER BY 1") == [("10",), ("SKU-9",)]
    assert export.rows("SELECT id FROM products ORDER BY id") == [("10",), ("11",)]


def test_a_second_export_is_appended_and_may_name_the_orders_of_the_first(export: Export) -> None:
    export.load(ORDERS, ITEMS)
    export.load("id,user_id,created_at\n3,7,2024-05-03\n", "order_id,product_id\n3,10\n1,12\n")
    assert count_rows(export.connection) == ShopCounts(orders=3, order_items=5, products=0)


def test_the_same_files_twice_change_nothing(export: Export) -> None:
    export.load(ORDERS, ITEMS, PRODUCTS)
    before = count_rows(export.connection)
    with pytest.raises(CsvError) as caught:
        export.load(ORDERS, ITEMS, PRODUCTS)
    assert "4 error(s)" in str(caught.value)
    assert "orders.csv:2: id '1' is in the table orders already" in str(caught.value)
    assert "products.csv:3: id '11' is in the table products already" in str(caught.value)
    assert count_rows(export.connection) == before


@pytest.mark.parametrize(
    ("orders", "items", "reason"),
    [
        (ORDERS + "1,8,2024-05-03\n", ITEMS, "orders.csv:4: id '1' is in the file before"),
        (ORDERS, ITEMS + "9,10,1,1\n", "items.csv:5: order_id '9' is neither in"),
        (ORDERS, ITEMS + "1,10,many,1\n", "items.csv:5: quantity 'many'"),
        (ORDERS + "3,8,soon\n", ITEMS, "orders.csv:4: created_at 'soon'"),
    ],
)
def test_one_bad_line_and_nothing_is_loaded(
    export: Export, orders: str, items: str, reason: str
) -> None:
    with pytest.raises(CsvError) as caught:
        export.load(orders, items)
    assert reason in str(caught.value)
    assert count_rows(export.connection) == NOTHING


def test_the_types_and_columns_of_tables_that_exist_are_kept(export: Export) -> None:
    export.connection.execute(
        "CREATE TABLE orders (id uuid PRIMARY KEY, user_id integer, created_at timestamp)"
    )
    key = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
    export.load(
        f"id,user_id,created_at,status\n{key},7,2024-05-01T10:00:00+02:00,paid\n",
        f"order_id,product_id\n{key.upper()},1\n",
    )
    assert export.rows("SELECT id::text, user_id, created_at FROM orders") == [
        (key, 7, datetime(2024, 5, 1, 8))
    ]
    assert export.rows("SELECT order_id::text, product_id FROM order_items") == [(key, 1)]
    with pytest.raises(CsvError, match=r"orders\.csv:2: id '5' is not a UUID"):
        export.load("id,user_id,created_at\n5,7,2024-05-01\n", "order_id,product_id\n")
