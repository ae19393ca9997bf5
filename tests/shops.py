"""Small shops for tests: orders as dataclasses, and the tables that hold them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

Id = int | str | UUID


@dataclass(frozen=True)
class Order:
    """One order: ``user`` None is a guest's, ``updated_at`` None the same as ``at``.

    ``products`` are lines of quantity 1, in which a product may be repeated or None, or quantities
    by product. Ids that are numbers take the form of the shop's ids: see ``id_of``.
    """

    id: Id
    user: Id | None
    products: Sequence[Id | None] | Mapping[Id, int]
    at: datetime
    status: str | None = "completed"
    updated_at: datetime | None = None

    @property
    def lines(self) -> list[tuple[Id | None, int]]:
        """(product, quantity) of every line."""
        if isinstance(self.products, Mapping):
            return list(self.products.items())
        return [(product, 1) for product in self.products]


def day(number: float) -> datetime:
    """Midnight UTC of a day: ``day(1)`` is 1 January 2024; fractions are hours of the day."""
    return datetime(2023, 12, 31, tzinfo=UTC) + timedelta(days=number)


def id_of(number: Id, id_type: str = "bigint") -> Any:
    """A number in the form of a shop's ids: 7, "id-7" or the UUID that ends in 7."""
    if not isinstance(number, int):
        return number
    return {"text": f"id-{number}", "uuid": UUID(int=number)}.get(id_type, number)


def create_shop(
    connection: psycopg.Connection,
    orders: Iterable[Order] = (),
    *,
    id_type: str = "bigint",
    names: Mapping[Id, str] | None = None,
    without: Collection[str] = (),
    timestamp_type: str = "timestamptz",
    schema: str = "public",
) -> None:
    """Create ``orders`` and ``order_items`` with their rows, and ``products`` if there are names.

    ``without`` are columns to leave out: status, updated_at, quantity. There are no indexes but the
    primary key. Commits.
    """
    orders_columns = {
        "id": f"{id_type} PRIMARY KEY",
        "user_id": id_type,
        "status": "text",
        "created_at": timestamp_type,
        "updated_at": timestamp_type,
    }
    items_columns = {"order_id": id_type, "product_id": id_type, "quantity": "integer"}
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    _create_table(connection, schema, "orders", orders_columns, without)
    _create_table(connection, schema, "order_items", items_columns, without)
    add_orders(connection, orders, schema=schema)
    if names is not None:
        columns = {"id": f"{id_type} PRIMARY KEY", "name": "text"}
        _create_table(connection, schema, "products", columns, without)
        rows = [{"id": id_of(product, id_type), "name": name} for product, name in names.items()]
        _insert(connection, schema, "products", rows)
    connection.commit()


def add_orders(
    connection: psycopg.Connection, orders: Iterable[Order], *, schema: str = "public"
) -> None:
    """Insert orders with their lines, or replace those of the same id, at once. Commits.

    Whoever follows the orders sees none without its lines, on a connection in autocommit mode too.
    """
    orders = list(orders)
    id_type = _columns(connection, schema, "orders")["id"]
    ids = [id_of(order.id, id_type) for order in orders]
    order_rows = [
        {
            "id": order_id,
            "user_id": None if order.user is None else id_of(order.user, id_type),
            "status": order.status,
            "created_at": order.at,
            "updated_at": order.updated_at or order.at,
        }
        for order_id, order in zip(ids, orders, strict=True)
    ]
    item_rows = [
        {
            "order_id": order_id,
            "product_id": None if product is None else id_of(product, id_type),
            "quantity": quantity,
        }
        for order_id, order in zip(ids, orders, strict=True)
        for product, quantity in order.lines
    ]
    with connection.transaction():
        for table, column in (("order_items", "order_id"), ("orders", "id")):
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE {} = ANY(%s::text[]::{}[])").format(
                    sql.Identifier(schema, table), sql.Identifier(column), sql.SQL(id_type)
                ),
                [list(map(str, ids))],
            )
        _insert(connection, schema, "orders", order_rows)
        _insert(connection, schema, "order_items", item_rows)
    connection.commit()


def _create_table(
    connection: psycopg.Connection,
    schema: str,
    table: str,
    columns: Mapping[str, str],
    without: Collection[str],
) -> None:
    connection.execute(
        sql.SQL("CREATE TABLE {} ({})").format(
            sql.Identifier(schema, table),
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_))
                for name, type_ in columns.items()
                if name not in without
            ),
        )
    )


def _insert(
    connection: psycopg.Connection, schema: str, table: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert the columns that the table has."""
    columns = list(_columns(connection, schema, table))
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(schema, table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
    )
    with connection.cursor() as cursor:
        cursor.executemany(statement, [[row[column] for column in columns] for row in rows])


def _columns(connection: psycopg.Connection, schema: str, table: str) -> dict[str, str]:
    rows = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        [schema, table],
    )
    return dict(rows.fetchall())
