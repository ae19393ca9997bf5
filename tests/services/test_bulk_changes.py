"""Changes of very many orders at once are a refresh like any other."""

import psycopg

from recsys_assets.database import connect
from recsys_assets.ingest.interactions import Refresh, refresh_interactions
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop
from tests.refreshes import HALF_LIFE, OVERLAP

SHOP = """
CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint, status text,
                     created_at timestamptz, updated_at timestamptz);
CREATE TABLE order_items (order_id bigint, product_id bigint, quantity integer);
INSERT INTO orders
SELECT n, n / 10, 'paid', timestamptz '2024-01-01' + n * interval '1 minute',
       timestamptz '2024-01-01' + n * interval '1 minute'
FROM generate_series(1, 60000) AS n;
INSERT INTO order_items SELECT o, (o % 10) * 5 + n, 1
FROM generate_series(1, 60000) AS o, generate_series(0, 4) AS n;
CREATE INDEX ON orders (updated_at);
CREATE INDEX ON order_items (order_id);
ANALYZE
"""


def refresh(connection: psycopg.Connection, **options: bool) -> Refresh:
    shop = inspect_shop(connection, ShopSettings())
    return refresh_interactions(connection, shop, half_life=HALF_LIFE, overlap=OVERLAP, **options)


def test_a_quarter_of_a_million_purchases_are_taken_back_at_once(database_url: str) -> None:
    with connect(database_url, statement_timeout_seconds=60, autocommit=True) as connection:
        for statement in SHOP.split(";"):
            connection.execute(statement)
        assert refresh(connection).rows_written == 300_000
        connection.execute(
            "UPDATE orders SET status = 'void', updated_at = now() WHERE id % 60 <> 0"
        )
        result = refresh(connection)
        assert (result.difference.orders_removed, result.rows_deleted) == (59_000, 295_000)
        assert refresh(connection, rebuild=True).rows_written == 0
