"""Finds and repairs what no refresh can see by itself.

A refresh learns of an order from the time of its change. An order that was deleted, one that was
committed later than the overlap with an older time, or one that was altered without a new time
escapes it. So every counting order of the shop is compared with ours, as a set, and so is every
user's sum of purchases with their interactions. Only what differs is read again; the comparison
itself holds no lock.
"""

import time
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg import sql

from recsys_assets.ingest import popularity
from recsys_assets.ingest.counting import Difference, Scope, count_orders, recount_orders
from recsys_assets.ingest.interactions import Log, Refresh, refresh_changed, refresh_interactions
from recsys_assets.ingest.watermark import database_now
from recsys_assets.shop import Shop
from recsys_assets.tables import counted_orders_table, interactions_table, mark_users


@dataclass(frozen=True)
class Reconciliation:
    """What was found to differ, and repaired."""

    refresh: Refresh
    """The refresh it began with, for what has changed in the ordinary way."""
    repaired: Difference
    """Orders that no refresh had seen, and what was written for their sake."""
    users_unsound: int
    """Users whose interactions did not add up to their orders; computed again."""
    seconds: float


_SUSPECT_ORDERS = sql.SQL("""
CREATE TEMPORARY TABLE suspect_orders AS
SELECT order_id FROM ({counted}) AS shops FULL JOIN {counted_orders} AS ours USING (order_id)
WHERE shops.purchased_at IS NULL OR ours.purchased_at IS NULL
   OR shops.purchased_at <> ours.purchased_at OR shops.product_ids <> ours.product_ids
   OR shops.user_id IS DISTINCT FROM ours.user_id
""")
# A checksum of a user's purchases: their number, the newest, and the sum of their products' hashes.
_SUSPECT_USERS = sql.SQL("""
CREATE TEMPORARY TABLE suspect_users AS
WITH ordered AS (
    SELECT user_id, sum(cardinality(product_ids)) AS purchases, max(purchased_at) AS newest,
           sum((SELECT sum(hashtext(id::text)) FROM unnest(product_ids) AS id)) AS checksum
    FROM {counted_orders} WHERE user_id IS NOT NULL GROUP BY user_id
), held AS (
    SELECT user_id, sum(purchase_count) AS purchases, max(last_updated_at) AS newest,
           sum(purchase_count * hashtext(product_id::text)::bigint) AS checksum
    FROM {interactions} GROUP BY user_id
)
SELECT user_id FROM ordered FULL JOIN held USING (user_id)
WHERE (ordered.purchases, ordered.newest, ordered.checksum)
      IS DISTINCT FROM (held.purchases, held.newest, held.checksum)
""")


def reconcile_interactions(
    connection: psycopg.Connection,
    shop: Shop,
    *,
    half_life: timedelta,
    overlap: timedelta,
    log: Log = lambda _: None,
) -> Reconciliation:
    """Refresh, compare every order and every user, and repair what differs.

    ``connection`` is in autocommit mode. Refreshes may run meanwhile.
    """
    started = time.monotonic()
    refresh = refresh_interactions(connection, shop, half_life=half_life, overlap=overlap, log=log)
    log("comparing every order with what it counted for")
    _suspect(connection, shop)
    with connection.transaction():
        # What has come in the ordinary way since is no repair.
        latest = refresh_changed(connection, shop, half_life=half_life, overlap=overlap, log=log)
        as_of = latest.watermark or database_now(connection)
        orders = Scope.listed(shop, "suspect_orders")
        repaired = count_orders(connection, shop, orders, as_of=as_of, half_life=half_life)
        unsound = _repair_users(connection, shop, half_life)
        popularity.recount(connection, shop, as_of, half_life)
    log(f"{repaired.orders:,} orders and {unsound:,} users repaired")
    return Reconciliation(refresh, repaired, unsound, time.monotonic() - started)


def _repair_users(connection: psycopg.Connection, shop: Shop, half_life: timedelta) -> int:
    """Compute the interactions of ``suspect_users`` from all of their orders; how many they are."""
    ids = sql.SQL("IN (SELECT user_id FROM pg_temp.suspect_users)")
    scope = Scope(
        sql.SQL("{} {}").format(sql.Identifier("o", shop.user_id), ids),
        sql.SQL("user_id {}").format(ids),
    )
    row = connection.execute("SELECT count(*) FROM pg_temp.suspect_users").fetchone()
    assert row is not None
    if row[0]:
        recount_orders(connection, shop, scope, half_life=half_life, users=True)
        mark_users(connection, shop, sql.SQL("SELECT user_id FROM pg_temp.suspect_users"))
    return int(row[0])


def _suspect(connection: psycopg.Connection, shop: Shop) -> None:
    """Fill the temporary tables ``suspect_orders`` and ``suspect_users``, from one snapshot."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SET LOCAL work_mem = '256MB'")
        connection.execute("DROP TABLE IF EXISTS pg_temp.suspect_orders, pg_temp.suspect_users")
        ours = {
            "counted_orders": counted_orders_table(shop),
            "interactions": interactions_table(shop),
        }
        connection.execute(_SUSPECT_ORDERS.format(counted=shop.counted_orders(), **ours))
        connection.execute(_SUSPECT_USERS.format(**ours))
        for table in ("suspect_orders", "suspect_users"):
            connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pg_temp", table)))
