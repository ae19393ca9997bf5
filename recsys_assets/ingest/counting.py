"""What orders count for: read again, and compared with what they counted for before.

``counted_orders`` holds every order that counts, with its user, time and products, as it was when
it was last read. A *scope* of orders - those that have changed, those of a range of users - is read
from the shop's tables and compared with it. The orders that differ tell which users' purchases of
which products have changed, also when an order is gone or is another user's now. Those pairs are
computed again, from all orders of their users. It is SQL on sets, inside PostgreSQL; no order comes
to Python.
"""

from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import psycopg
from psycopg import sql

from recsys_assets.ingest import popularity
from recsys_assets.shop import Shop
from recsys_assets.tables import counted_orders_table, interactions_table, mark_users


@dataclass(frozen=True)
class Scope:
    """Orders to read again: a condition on the shop's, which are ``o``, and the same on ours."""

    shop: sql.Composable
    ours: sql.Composable

    @classmethod
    def listed(cls, shop: Shop, table: str) -> "Scope":
        """The orders whose ids are in the column ``order_id`` of a temporary table."""
        ids = sql.SQL("IN (SELECT order_id FROM {})").format(sql.Identifier("pg_temp", table))
        shops = sql.SQL("{} {}").format(sql.Identifier("o", shop.order_id), ids)
        return cls(shops, sql.SQL("order_id {}").format(ids))


@dataclass(frozen=True)
class Difference:
    """Numbers of orders that counted for something else than before, and of what followed."""

    orders_added: int = 0
    orders_removed: int = 0
    orders_altered: int = 0
    users: int = 0
    rows_written: int = 0
    rows_deleted: int = 0

    @property
    def orders(self) -> int:
        """All orders that differed."""
        return self.orders_added + self.orders_removed + self.orders_altered

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )


_COUNTED_BEFORE = sql.SQL("""
CREATE TEMPORARY TABLE counted_before ON COMMIT DROP AS
SELECT order_id, user_id, purchased_at, product_ids FROM {counted_orders} WHERE {scope}
""")
_DIFFERING = sql.SQL("""
CREATE TEMPORARY TABLE differing ON COMMIT DROP AS
SELECT -1 AS sign, * FROM (TABLE counted_before EXCEPT TABLE counted_now) AS gone
UNION ALL
SELECT 1 AS sign, * FROM (TABLE counted_now EXCEPT TABLE counted_before) AS new
""")
_COUNT_DIFFERING = sql.SQL("""
SELECT count(*) FILTER (WHERE first = 1), count(*) FILTER (WHERE last = -1),
       count(*) FILTER (WHERE first < last)
FROM (SELECT min(sign) AS first, max(sign) AS last FROM differing GROUP BY order_id) AS orders
""")
_REMOVE_ORDERS = sql.SQL("""
DELETE FROM {counted_orders} AS old USING differing AS d
WHERE d.sign = -1 AND d.order_id = old.order_id AND d.user_id IS NOT DISTINCT FROM old.user_id
  AND d.purchased_at = old.purchased_at AND d.product_ids = old.product_ids
""")
_ADD_ORDERS = sql.SQL("""
INSERT INTO {counted_orders} (order_id, user_id, purchased_at, product_ids)
SELECT order_id, user_id, purchased_at, product_ids FROM differing WHERE sign = 1
ORDER BY user_id, purchased_at
""")
_TOUCHED_PAIRS = sql.SQL("""
CREATE TEMPORARY TABLE touched_pairs ON COMMIT DROP AS
SELECT DISTINCT user_id, product_id FROM differing, unnest(product_ids) AS product_id
WHERE user_id IS NOT NULL
""")
_TOUCHED_USERS = sql.SQL("""
CREATE TEMPORARY TABLE touched_users ON COMMIT DROP AS SELECT DISTINCT user_id FROM touched_pairs
""")
# Left to itself, the planner searches every array for every touched product.
_PURCHASES_OF_TOUCHED = sql.SQL("""
WITH purchases AS MATERIALIZED (
    SELECT user_id, product_id, purchased_at
    FROM touched_users JOIN {counted_orders} USING (user_id), unnest(product_ids) AS product_id
)
SELECT user_id, product_id, purchased_at FROM purchases
WHERE (user_id, product_id) IN (SELECT user_id, product_id FROM touched_pairs)
""")
_FRESH = sql.SQL("""
CREATE TEMPORARY TABLE fresh ON COMMIT DROP AS
SELECT user_id, product_id, newest AS last_updated_at, count(*)::integer AS purchase_count,
       sum({decay}) AS interaction_score
FROM (
    SELECT user_id, product_id, purchased_at,
           max(purchased_at) OVER (PARTITION BY user_id, product_id) AS newest
    FROM ({purchases}) AS purchases
) AS purchases
GROUP BY user_id, product_id, newest
""")
_DELETE_GONE = sql.SQL("""
DELETE FROM {interactions} AS old
WHERE {held} AND NOT EXISTS (
    SELECT FROM fresh WHERE fresh.user_id = old.user_id AND fresh.product_id = old.product_id)
""")
# The order in which PostgreSQL adds up is its own, so equal sums may differ in their last bits.
_WRITE = sql.SQL("""
INSERT INTO {interactions} AS old
    (user_id, product_id, interaction_score, purchase_count, last_updated_at)
SELECT user_id, product_id, interaction_score, purchase_count, last_updated_at FROM fresh
ORDER BY user_id, product_id
ON CONFLICT (user_id, product_id) DO UPDATE SET
    interaction_score = excluded.interaction_score,
    purchase_count = excluded.purchase_count,
    last_updated_at = excluded.last_updated_at
WHERE excluded.purchase_count <> old.purchase_count
   OR excluded.last_updated_at <> old.last_updated_at
   OR abs(excluded.interaction_score - old.interaction_score) > 1e-12 * excluded.interaction_score
""")
_TOUCHED = sql.SQL("(user_id, product_id) IN (SELECT user_id, product_id FROM touched_pairs)")


def count_orders(
    connection: psycopg.Connection,
    shop: Shop,
    scope: Scope,
    *,
    as_of: datetime,
    half_life: timedelta,
) -> Difference:
    """Bring interactions and popularity up to the orders of ``scope``; mark the users concerned.

    Popularity is kept as of ``as_of``. To be called in a transaction that holds the watermark; the
    interactions that were computed are then in the temporary table ``fresh``, if any were.
    """
    difference = _compare(connection, shop, scope)
    if difference.orders:
        popularity.add_differences(
            connection,
            shop,
            sql.SQL("SELECT sign, purchased_at, product_ids FROM differing"),
            as_of,
            half_life,
        )
        _update_counted_orders(connection, shop)
    users = _create(connection, "touched_pairs", _TOUCHED_PAIRS) and _create(
        connection, "touched_users", _TOUCHED_USERS
    )
    written, deleted = 0, 0
    if users:
        purchases = _PURCHASES_OF_TOUCHED.format(counted_orders=counted_orders_table(shop))
        written, deleted = _recompute(connection, shop, purchases, _TOUCHED, half_life)
        mark_users(connection, shop, sql.SQL("SELECT user_id FROM pg_temp.touched_users"))
    return difference + Difference(users=users, rows_written=written, rows_deleted=deleted)


def recount_orders(
    connection: psycopg.Connection, shop: Shop, scope: Scope, *, half_life: timedelta
) -> Difference:
    """Compute every interaction of the orders of ``scope``, which must be of whole users.

    For rebuilds: popularity and the marks of users are left to the caller.
    """
    difference = _compare(connection, shop, scope)
    _update_counted_orders(connection, shop)
    purchases = sql.SQL(
        "SELECT user_id, product_id, purchased_at FROM {}, unnest(product_ids) AS product_id"
        " WHERE {} AND user_id IS NOT NULL"
    ).format(counted_orders_table(shop), scope.ours)
    written, deleted = _recompute(connection, shop, purchases, scope.ours, half_life)
    return difference + Difference(rows_written=written, rows_deleted=deleted)


def _compare(connection: psycopg.Connection, shop: Shop, scope: Scope) -> Difference:
    """Fill the table ``differing``: rows of counted_orders to take away (-1) and to add (1)."""
    counted_now = shop.counted_orders(sql.SQL("AND {}").format(scope.shop))
    _create(
        connection,
        "counted_now",
        sql.SQL("CREATE TEMPORARY TABLE counted_now ON COMMIT DROP AS {}").format(counted_now),
    )
    before = _COUNTED_BEFORE.format(counted_orders=counted_orders_table(shop), scope=scope.ours)
    _create(connection, "counted_before", before)
    _create(connection, "differing", _DIFFERING)
    row = connection.execute(_COUNT_DIFFERING).fetchone()
    assert row is not None
    return Difference(*row)


def _update_counted_orders(connection: psycopg.Connection, shop: Shop) -> None:
    for statement in (_REMOVE_ORDERS, _ADD_ORDERS):
        connection.execute(statement.format(counted_orders=counted_orders_table(shop)))


def _recompute(
    connection: psycopg.Connection,
    shop: Shop,
    purchases: sql.Composable,
    held: sql.Composable,
    half_life: timedelta,
) -> tuple[int, int]:
    """Write the interactions of ``purchases`` that differ, delete those ``held`` without any."""
    decay = popularity.decay(sql.SQL("purchased_at"), sql.SQL("newest"), half_life)
    _create(connection, "fresh", _FRESH.format(purchases=purchases, decay=decay))
    interactions = interactions_table(shop)
    deleted = connection.execute(_DELETE_GONE.format(interactions=interactions, held=held)).rowcount
    written = connection.execute(_WRITE.format(interactions=interactions)).rowcount
    return written, deleted


def _create(connection: psycopg.Connection, table: str, statement: sql.SQL | sql.Composed) -> int:
    """Create or replace a temporary table that the planner knows; the number of its rows."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("pg_temp", table)))
    rows: int = connection.execute(statement).rowcount
    connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", table)))
    return rows
