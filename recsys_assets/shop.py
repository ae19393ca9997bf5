"""The shop's tables, which we only read: their names, and every query over them.

:func:`inspect_shop` turns the settings into a checked :class:`Shop`. Every query over orders starts
from :meth:`Shop.purchases`, so that "what counts as a purchase" has one home.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from recsys_assets.database import ShopError, columns_of
from recsys_assets.ids import is_integer, plain_id
from recsys_assets.settings import ShopSettings

EVERYTHING = sql.SQL("")
# An order may be dated a little ahead of the database's clock, not years.
EARLIEST_DATE = sql.SQL("'0001-01-01'")
LATEST_DATE = sql.SQL("now() + interval '1 day'")

_DEFAULT_PRODUCTS = "products"
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")


class ColumnMissingError(ShopError):
    """A table lacks a column, or the table itself is missing."""


@dataclass(frozen=True)
class Shop:
    """The shop's tables, resolved and checked: columns that are None do not exist."""

    orders: str
    order_id: str
    user_id: str
    created_at: str
    updated_at: str | None
    status: str | None
    purchase_statuses: list[str]
    order_items: str
    item_order_id: str
    item_product_id: str
    quantity: str | None
    quantity_type: str | None
    products: str | None
    products_id: str
    products_name: str | None
    products_available: str | None
    products_available_type: str | None
    products_category: str | None
    unavailable_query: str | None
    order_id_type: str
    user_id_type: str
    product_id_type: str
    schema: str

    @property
    def changed_at(self) -> str:
        """The column that tells when an order last changed."""
        return self.updated_at or self.created_at

    def signature(self, half_life_days: float) -> dict[str, Any]:
        """What the interactions depend on beside the orders; when it changes, they are rebuilt."""
        return {
            "half_life_days": half_life_days,
            "orders": [self.orders, self.order_id, self.user_id, self.created_at],
            "status": [self.status, *self.purchase_statuses] if self.status else [],
            "order_items": [
                self.order_items,
                self.item_order_id,
                self.item_product_id,
                self.quantity,
            ],
        }

    def basket_lines(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> sql.Composed:
        """SELECT of (order_id, product_id) of all purchases, guests' included.

        Of orders created from ``since`` on and before ``until``, which an index answers.
        """
        created_at = sql.Identifier("o", self.created_at)
        where = sql.SQL(" ").join(
            sql.SQL("AND {} {} {}").format(created_at, sql.SQL(operator), sql.Literal(bound))
            for operator, bound in ((">=", since), ("<", until))
            if bound
        )
        return sql.SQL(
            "SELECT {order_id} AS order_id, {product_id} AS product_id"
            " FROM ({purchases}) AS counted"
        ).format(
            order_id=plain_id("order_id", self.order_id_type),
            product_id=plain_id("product_id", self.product_id_type),
            purchases=self.purchases(where),
        )

    def changed_orders(self, since: datetime | None) -> sql.Composed:
        """SELECT of (order_id, changed_at, dated_ahead) of the orders changed since; None: of all.

        ``dated_ahead`` says that the order was placed, as it says, more than a day from now.
        """
        return sql.SQL(" UNION ALL ").join(
            sql.SQL(
                "SELECT {order_id} AS order_id, {changed_at}::timestamptz AS changed_at,"
                " {created_at} > {latest_date} AS dated_ahead"
                " FROM {orders} WHERE {applies} AND {since}"
            ).format(
                order_id=sql.Identifier(self.order_id),
                created_at=sql.Identifier(self.created_at),
                latest_date=LATEST_DATE,
                changed_at=changed_at,
                orders=identifier(self.orders),
                applies=applies,
                since=sql.SQL("{} >= {}").format(changed_at, sql.Literal(since))
                if since
                else sql.SQL("true"),
            )
            for changed_at, applies in self._times_of_change()
        )

    def last_change(self) -> sql.Composed:
        """SELECT of the latest change before now, which indexes on its columns answer."""
        latest = sql.SQL(", ").join(
            sql.SQL(
                "(SELECT max({changed_at})::timestamptz FROM {orders}"
                " WHERE {applies} AND {changed_at} <= now())"
            ).format(changed_at=changed_at, orders=identifier(self.orders), applies=applies)
            for changed_at, applies in self._times_of_change()
        )
        return sql.SQL("SELECT greatest({})").format(latest)

    def changes(self, overlap: timedelta) -> sql.Composed:
        """SELECT of one row that is another as soon as an order has changed within ``overlap``.

        The latest change before now, and the number and sum of those up to ``overlap`` before it,
        by which an order is seen too that is committed after one with a later time.
        """
        recent = sql.SQL(" UNION ALL ").join(
            sql.SQL(
                "SELECT {changed_at}::timestamptz AS changed_at FROM {orders} WHERE {applies}"
                " AND {changed_at} >= (SELECT latest - {overlap} FROM last_change)"
                " AND {changed_at} <= now()"
            ).format(
                changed_at=changed_at,
                orders=identifier(self.orders),
                applies=applies,
                overlap=sql.Literal(overlap),
            )
            for changed_at, applies in self._times_of_change()
        )
        return sql.SQL(
            "WITH last_change AS ({last_change} AS latest)"
            " SELECT max(changed_at), count(*), sum(extract(epoch FROM changed_at)) FROM ({recent})"
            " AS recent"
        ).format(last_change=self.last_change(), recent=recent)

    def _times_of_change(self) -> list[tuple[sql.Composable, sql.Composable]]:
        """Columns that tell when an order last changed, with the condition under which each does.

        An order whose updated_at is null changed when it was created. Each column stands alone, for
        an index on an expression of both is nothing to ask of a shop.
        """
        created_at = sql.Identifier(self.created_at)
        if self.updated_at is None:
            return [(created_at, sql.SQL("true"))]
        updated_at = sql.Identifier(self.updated_at)
        return [
            (updated_at, sql.SQL("{} IS NOT NULL").format(updated_at)),
            (created_at, sql.SQL("{} IS NULL").format(updated_at)),
        ]

    def purchases(self, where: sql.Composable = EVERYTHING) -> sql.Composed:
        """SELECT of (order_id, user_id, product_id, purchased_at), one row per counting purchase.

        A purchase is a product in an order: an order of a counting status, dated no more than a day
        ahead, with at least one line of that product whose quantity is above zero. ``user_id`` is
        null for guests. ``where`` narrows it (a condition that starts with AND, over the aliases
        ``o`` and ``i``).
        """
        return sql.SQL(
            "SELECT DISTINCT o.{order_id} AS order_id, o.{user_id} AS user_id,"
            " i.{product_id} AS product_id, o.{created_at}::timestamptz AS purchased_at"
            " FROM {lines} {where}"
        ).format(
            order_id=sql.Identifier(self.order_id),
            user_id=sql.Identifier(self.user_id),
            product_id=sql.Identifier(self.item_product_id),
            created_at=sql.Identifier(self.created_at),
            lines=self._counting_lines,
            where=where,
        )

    def counted_orders(self, where: sql.Composable = EVERYTHING) -> sql.Composed:
        """SELECT of (order_id, user_id, purchased_at, product_ids), one row per counting order.

        The same purchases as :meth:`purchases`, those of an order in one ascending array.
        """
        return sql.SQL(
            "SELECT o.{order_id} AS order_id, o.{user_id} AS user_id,"
            " o.{created_at}::timestamptz AS purchased_at,"
            " array_agg(DISTINCT i.{product_id}) AS product_ids"
            " FROM {lines} {where} GROUP BY o.{order_id}, o.{user_id}, o.{created_at}"
        ).format(
            product_id=sql.Identifier(self.item_product_id),
            lines=self._counting_lines,
            where=where,
            order_id=sql.Identifier(self.order_id),
            user_id=sql.Identifier(self.user_id),
            created_at=sql.Identifier(self.created_at),
        )

    @property
    def _counting_lines(self) -> sql.Composed:
        """FROM and WHERE of the lines that count, with the aliases ``o`` and ``i``."""
        created_at = sql.Identifier(self.created_at)
        conditions: list[sql.Composable] = [
            sql.SQL("o.{} >= {}").format(created_at, EARLIEST_DATE),
            sql.SQL("o.{} <= {}").format(created_at, LATEST_DATE),
            sql.SQL("i.{} IS NOT NULL").format(sql.Identifier(self.item_product_id)),
        ]
        if self.status:
            conditions.append(
                sql.SQL("o.{}::text = ANY({})").format(
                    sql.Identifier(self.status), sql.Literal(self.purchase_statuses)
                )
            )
        if self.quantity:
            quantity = sql.Identifier(self.quantity)
            conditions.append(sql.SQL("i.{} > 0").format(quantity))
            if not is_integer(self.quantity_type or ""):  # which PostgreSQL holds to be above all
                conditions.append(sql.SQL("i.{}::text <> 'NaN'").format(quantity))
        return sql.SQL(
            "{orders} o JOIN {items} i ON i.{item_order_id} = o.{order_id} WHERE {conditions}"
        ).format(
            orders=identifier(self.orders),
            items=identifier(self.order_items),
            item_order_id=sql.Identifier(self.item_order_id),
            order_id=sql.Identifier(self.order_id),
            conditions=sql.SQL(" AND ").join(conditions),
        )


def identifier(table: str) -> sql.Identifier:
    """A table's name, which may be qualified (``schema.table``), as an identifier."""
    return sql.Identifier(*table.split("."))


def inspect_shop(connection: psycopg.Connection, settings: ShopSettings) -> Shop:
    """The shop as the settings describe it, checked against the database.

    Raises :class:`ColumnMissingError` that names the table, the column and the setting to change.
    """
    orders = columns_of(connection, settings.orders_table)
    items = columns_of(connection, settings.order_items_table)
    return Shop(
        orders=settings.orders_table,
        order_id=_required(orders, settings, "orders_table", "orders_id_column"),
        user_id=_required(orders, settings, "orders_table", "orders_user_id_column"),
        created_at=_required(orders, settings, "orders_table", "orders_created_at_column"),
        updated_at=_optional(
            orders, settings, "orders_table", "orders_updated_at_column", "updated_at"
        ),
        status=_optional(orders, settings, "orders_table", "orders_status_column", "status"),
        purchase_statuses=settings.purchase_statuses,
        order_items=settings.order_items_table,
        item_order_id=_required(
            items, settings, "order_items_table", "order_items_order_id_column"
        ),
        item_product_id=_required(
            items, settings, "order_items_table", "order_items_product_id_column"
        ),
        quantity=_optional(
            items, settings, "order_items_table", "order_items_quantity_column", "quantity"
        ),
        quantity_type=items.get(settings.order_items_quantity_column or "quantity"),
        unavailable_query=settings.unavailable_products_query or None,
        order_id_type=orders[settings.orders_id_column],
        user_id_type=orders[settings.orders_user_id_column],
        product_id_type=items[settings.order_items_product_id_column],
        schema=settings.schema_name,
        **_products_columns(connection, settings),
    )


def _products_columns(connection: psycopg.Connection, settings: ShopSettings) -> dict[str, Any]:
    """The fields of :class:`Shop` that tell of the table of products, which may be missing."""
    table = settings.products_table or _DEFAULT_PRODUCTS
    columns = columns_of(connection, table)
    if settings.products_table:
        _required(columns, settings, "products_table", "products_name_column")
    chosen = settings.products_available_column, settings.products_category_column
    if settings.products_table or any(chosen):
        _required(columns, settings, "products_table", "products_id_column")
    is_there = settings.products_id_column in columns
    has_name = is_there and settings.products_name_column in columns
    available = _optional(
        columns, settings, "products_table", "products_available_column", "is_active"
    )
    available_type = columns[available] if available and is_there else None
    if available_type and available_type != "boolean" and not available_type.startswith(_NUMBERS):
        if settings.products_available_column:
            raise ShopError(
                f"column {available!r} of table {table!r} is {available_type}; set"
                " RECSYS_PRODUCTS_AVAILABLE_COLUMN to a boolean or a number, or to nothing, and see"
                " RECSYS_UNAVAILABLE_PRODUCTS_QUERY."
            )
        available = available_type = None
    return {
        "products": table if is_there else None,
        "products_id": settings.products_id_column,
        "products_name": settings.products_name_column if has_name else None,
        "products_available": available if is_there else None,
        "products_available_type": available_type,
        "products_category": _optional(
            columns, settings, "products_table", "products_category_column", default=""
        ),
    }


def missing_indexes(
    connection: psycopg.Connection, shop: Shop, *, baskets_windowed: bool = False
) -> list[str]:
    """Statements that create the indexes which an incremental refresh would use, where missing.

    One on the time of creation is among them where a refresh asks for that: when only baskets of a
    window are read (``baskets_windowed``), and when there are orders without a time of change.
    """
    wanted = [
        (shop.orders, shop.changed_at),
        (shop.orders, shop.user_id),
        (shop.order_items, shop.item_order_id),
    ]
    if shop.updated_at and (baskets_windowed or _never_updated(connection, shop)):
        wanted.insert(1, (shop.orders, shop.created_at))
    return [
        f"CREATE INDEX CONCURRENTLY ON {identifier(table).as_string(connection)}"
        f" ({sql.Identifier(column).as_string(connection)});"
        for table, column in wanted
        if not _is_indexed(connection, table, column)
    ]


def _never_updated(connection: psycopg.Connection, shop: Shop) -> bool:
    """Whether there are orders that have no time of change."""
    row = connection.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} IS NULL)").format(
            identifier(shop.orders), sql.Identifier(shop.changed_at)
        )
    ).fetchone()
    return row is not None and bool(row[0])


def _is_indexed(connection: psycopg.Connection, table: str, column: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_index JOIN pg_attribute"
        " ON attrelid = indrelid AND attnum = indkey[0]"
        " WHERE indrelid = %s::regclass AND attname = %s AND indpred IS NULL AND indisvalid)",
        [identifier(table).as_string(connection), column],
    ).fetchone()
    return row is not None and bool(row[0])


def _required(columns: Mapping[str, str], settings: ShopSettings, table: str, field: str) -> str:
    name: str = getattr(settings, field)
    if name not in columns:
        raise _missing(columns, getattr(settings, table) or _DEFAULT_PRODUCTS, table, field, name)
    return name


def _optional(
    columns: Mapping[str, str], settings: ShopSettings, table: str, field: str, default: str
) -> str | None:
    name: str | None = getattr(settings, field)
    if name is None:
        return default if default in columns else None
    if name == "":
        return None
    if name not in columns:
        raise _missing(columns, getattr(settings, table) or _DEFAULT_PRODUCTS, table, field, name)
    return name


def _missing(
    columns: Mapping[str, str], table: str, table_setting: str, field: str, name: str
) -> ColumnMissingError:
    if not columns:
        return ColumnMissingError(
            f"there is no table {table!r} that this user may see. Set"
            f" RECSYS_{table_setting.upper()} to the shop's table, or load orders: recsys load-csv,"
            " recsys load-sample."
        )
    return ColumnMissingError(
        f"table {table!r} has no column {name!r} (it has: {', '.join(columns)}). Set"
        f" RECSYS_{field.upper()} to the column that holds it."
    )
