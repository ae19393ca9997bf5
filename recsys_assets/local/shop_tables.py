"""The shop's tables as the sample and the CSV import make them: names, columns, finishing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and the name of the step; units vary by step."""

TABLES = ("orders", "order_items", "products")


@dataclass(frozen=True)
class ShopCounts:
    """Rows per table."""

    orders: int
    order_items: int
    products: int


def no_progress(done: int, total: int, label: str) -> None:
    """The ``Progress`` that shows nothing."""


def existing_tables(connection: psycopg.Connection) -> list[str]:
    """Which of the three tables there are."""
    found = connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL",
        [list(TABLES)],
    )
    return [name for (name,) in found]


def create_table(
    connection: psycopg.Connection, table: str, id_types: Mapping[str, str] | None = None
) -> None:
    """Create one of ``TABLES``, without its keys and indexes: see ``finish_table``.

    ``id_types`` gives the SQL type of ``order``, ``user`` and ``product`` ids, by default bigint.
    """
    types = {"order": "bigint", "user": "bigint", "product": "bigint", **(id_types or {})}
    connection.execute(_COLUMNS[table].format(**{k: sql.SQL(v) for k, v in types.items()}))


def finish_table(connection: psycopg.Connection, table: str) -> None:
    """Add keys and indexes to a table that was just created and filled."""
    for statement in _KEYS[table]:
        connection.execute(statement)
    connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))


def count_rows(connection: psycopg.Connection) -> ShopCounts:
    """Count the rows of all three tables; a table that is missing has none."""
    counts = dict.fromkeys(TABLES, 0)
    for table in existing_tables(connection):
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        counts[table] = connection.execute(query).fetchall()[0][0]
    return ShopCounts(**counts)


_COLUMNS = {
    "orders": sql.SQL("""
        CREATE TABLE orders (
            id {order} NOT NULL,
            user_id {user},
            status text NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL
        )"""),
    "order_items": sql.SQL("""
        CREATE TABLE order_items (
            order_id {order} NOT NULL,
            product_id {product} NOT NULL,
            quantity integer NOT NULL,
            price numeric
        )"""),
    "products": sql.SQL("""
        CREATE TABLE products (
            id {product} NOT NULL,
            name text NOT NULL,
            department text,
            category text,
            brand text
        )"""),
}

_KEYS = {
    "orders": (
        "ALTER TABLE orders ADD PRIMARY KEY (id)",
        "CREATE INDEX orders_user_id ON orders (user_id)",
        "CREATE INDEX orders_updated_at ON orders (updated_at)",
    ),
    "order_items": (
        "CREATE INDEX order_items_order_id ON order_items (order_id)",
        "ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders (id)",
    ),
    "products": ("ALTER TABLE products ADD PRIMARY KEY (id)",),
}
