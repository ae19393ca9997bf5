"""What orders count for: read again, and compared with what they counted for before.

``counted_orders`` holds every order that counts, with its user, time and products, as it was when
it was last read. A *scope* of orders - those that have changed, those of a range of users - is read
from the shop's tables and compared with it. What differs tells which purchases are new and which
are gone, also when an order was deleted or is another user's now. New ones are added to their
interactions; where one is gone, the pair is computed again from all orders of its user. It is SQL
on sets, inside PostgreSQL; no order comes to Python.
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


# Joins and sorts of many orders, which the default 4 MB would spill many times over.
ROOM_TO_SORT = "SET LOCAL work_mem = '256MB'"

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
# An order that was altered mostly has the same products as before, which cancel out here.
_CHANGES = sql.SQL("""
CREATE TEMPORARY TABLE changes ON COMMIT DROP AS
SELECT user_id, product_id, purchased_at, sum(sign)::integer AS purchases
FROM differing, unnest(product_ids) AS product_id
GROUP BY user_id, product_id, purchased_at HAVING sum(sign) <> 0
""")
_CHANGED_USERS = sql.SQL("""
CREATE TEMPORARY TABLE changed_users ON COMMIT DROP AS
SELECT DISTINCT user_id FROM pg_temp.changes WHERE user_id IS NOT NULL
""")
_LOSING_PAIRS = sql.SQL("""
CREATE TEMPORARY TABLE losing_pairs ON COMMIT DROP AS
SELECT DISTINCT user_id, product_id FROM pg_temp.changes
WHERE purchases < 0 AND user_id IS NOT NULL
""")
# All terms are positive: what the sum loses to rounding is as little as when it is done at once.
_ADD = sql.SQL("""
INSERT INTO {interactions} AS old (user_id, product_id, interaction_score, purchase_count,
                                 first_purchased_at, last_updated_at)
SELECT user_id, product_id, sum(purchases * {weight}), sum(purchases), min(purchased_at), newest
FROM (
    SELECT user_id, product_id, purchased_at, purchases,
           max(purchased_at) OVER (PARTITION BY user_id, product_id) AS newest
    FROM pg_temp.changes
    WHERE user_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM losing_pairs AS losing
        WHERE losing.user_id = changes.user_id AND losing.product_id = changes.product_id)
) AS added
GROUP BY user_id, product_id, newest
ORDER BY user_id, product_id
ON CONFLICT (user_id, product_id) DO UPDATE SET
    interaction_score = old.interaction_score * {old_weight}
                      + excluded.interaction_score * {new_weight},
    purchase_count = old.purchase_count + excluded.purchase_count,
    first_purchased_at = least(old.first_purchased_at, excluded.first_purchased_at),
    last_updated_at = greatest(old.last_updated_at, excluded.last_updated_at)
""")
# Left to itself, the planner searches every array for every pair.
_PURCHASES_OF_LOSING = sql.SQL("""
WITH purchases AS MATERIALIZED (
    SELECT user_id, product_id, purchased_at
    FROM (SELECT DISTINCT user_id FROM losing_pairs) AS users JOIN {counted_orders} USING (user_id),
         unnest(product_ids) AS product_id
)
SELECT user_id, product_id, purchased_at FROM purchases
WHERE (user_id, product_id) IN (SELECT user_id, product_id FROM losing_pairs)
""")
_FRESH = sql.SQL("""
CREATE TEMPORARY TABLE fresh ON COMMIT DROP AS
SELECT user_id, product_id, sum({decay}) AS interaction_score, count(*)::integer AS purchase_count,
       min(purchased_at) AS first_purchased_at, newest AS last_updated_at
FROM (
    SELECT user_id, product_id, purchased_at,
           max(purchased_at) OVER (PARTITION BY user_id, product_id) AS newest
    FROM ({purchases}) AS purchases
) AS purchases
GROUP BY user_id, product_id, newest
""")
_DELETE_GONE = sql.SQL("""
DELETE FROM {interactions} AS old
USING ({held} EXCEPT SELECT user_id, product_id FROM fresh) AS gone
WHERE gone.user_id = old.user_id AND gone.product_id = old.product_id
""")
# The order in which PostgreSQL adds up is its own, so equal sums may differ in their last bits.
_WRITE = sql.SQL("""
INSERT INTO {interactions} AS old (user_id, product_id, interaction_score, purchase_count,
                                 first_purchased_at, last_updated_at)
SELECT user_id, product_id, interaction_score, purchase_count, first_purchased_at, last_updated_at
FROM fresh
ORDER BY user_id, product_id
ON CONFLICT (user_id, product_id) DO UPDATE SET
    interaction_score = excluded.interaction_score,
    purchase_count = excluded.purchase_count,
    first_purchased_at = excluded.first_purchased_at,
    last_updated_at = excluded.last_updated_at
WHERE excluded.purchase_count <> old.purchase_count
   OR excluded.first_purchased_at <> old.first_purchased_at
   OR excluded.last_updated_at <> old.last_updated_at
   OR abs(excluded.interaction_score - old.interaction_score) > 1e-12 * excluded.interaction_score
""")


def count_orders(
    connection: psycopg.Connection,
    shop: Shop,
    scope: Scope,
    *,
    as_of: datetime,
    half_life: timedelta,
) -> Difference:
    """Bring interactions and popularity up to the orders of ``scope``; mark the users concerned.

    Popularity is kept as of ``as_of``. To be called in a transaction that holds the watermark. The
    purchases that are new or gone are then in the temporary table ``changes``.
    """
    connection.execute(ROOM_TO_SORT)
    difference = _compare(connection, shop, scope)
    if not _create(connection, "changes", _CHANGES):
        _update_counted_orders(connection, shop)
        return difference
    popularity.add(connection, shop, as_of, half_life)
    _update_counted_orders(connection, shop)
    users = _create(connection, "changed_users", _CHANGED_USERS)
    mark_users(connection, shop, sql.SQL("SELECT user_id FROM pg_temp.changed_users"))
    losing = _create(connection, "losing_pairs", _LOSING_PAIRS)
    written, deleted = _add(connection, shop, half_life), 0
    if losing:
        purchases = _PURCHASES_OF_LOSING.format(counted_orders=counted_orders_table(shop))
        held = sql.SQL("SELECT user_id, product_id FROM losing_pairs")
        rewritten, deleted = _recompute(connection, shop, purchases, held, half_life)
        written += rewritten
    return difference + Difference(users=users, rows_written=written, rows_deleted=deleted)


def recount_orders(
    connection: psycopg.Connection, shop: Shop, scope: Scope, *, half_life: timedelta, users: bool
) -> Difference:
    """Compute every interaction of the orders of ``scope``: all those of some users, or of guests.

    For rebuilds: popularity and the marks of users are left to the caller. ``users`` is false for
    guests, who have no interactions.
    """
    connection.execute(ROOM_TO_SORT)
    difference = _compare(connection, shop, scope)
    _update_counted_orders(connection, shop)
    if not users:
        return difference
    purchases = sql.SQL(
        "SELECT user_id, product_id, purchased_at FROM {}, unnest(product_ids) AS product_id"
        " WHERE {}"
    ).format(counted_orders_table(shop), scope.ours)
    held = sql.SQL("SELECT user_id, product_id FROM {} WHERE {}").format(
        interactions_table(shop), scope.ours
    )
    written, deleted = _recompute(connection, shop, purchases, held, half_life)
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


def _add(connection: psycopg.Connection, shop: Shop, half_life: timedelta) -> int:
    """Add the new purchases to the interactions of the pairs that lose none; the rows written."""

    def weight(since: str, until: str) -> sql.Composed:
        return popularity.decay(sql.SQL(since), sql.SQL(until), half_life)

    latest = "greatest(old.last_updated_at, excluded.last_updated_at)"
    return connection.execute(
        _ADD.format(
            interactions=interactions_table(shop),
            weight=weight("purchased_at", "newest"),
            old_weight=weight("old.last_updated_at", latest),
            new_weight=weight("excluded.last_updated_at", latest),
        )
    ).rowcount


def _recompute(
    connection: psycopg.Connection,
    shop: Shop,
    purchases: sql.Composable,
    held: sql.Composable,
    half_life: timedelta,
) -> tuple[int, int]:
    """Write the interactions of ``purchases`` that differ, delete what is ``held`` without any.

    ``purchases`` is a SELECT of (user_id, product_id, purchased_at), ``held`` one of pairs.
    """
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
