"""The incremental refresh of ``user_product_interactions``, all of it inside PostgreSQL.

One row per (user, product) that has a counting purchase:

- ``interaction_score``: the time-decayed number of purchases as of ``last_updated_at``,
  ``sum of 0.5 ** ((last_updated_at - purchased_at) / half_life)``, between 1 and the count;
- ``purchase_count``: orders of this user with this product;
- ``last_updated_at``: the time of the newest of them.

A row is a function of the user's current orders alone - no clock, no earlier row - so that a
refresh can be repeated, overlapped or interrupted without changing what it arrives at, and old rows
need no rewriting: two scores come to one date by ``0.5 ** (dt / half_life)``.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from recsys_assets.shop import Shop
from recsys_assets.tables import (
    INTERACTIONS,
    batch_metadata_table,
    create_tables,
    interactions_table,
)

Log = Callable[[str], object]


class Interaction(NamedTuple):
    """A row of the interactions."""

    user_id: Any
    product_id: Any
    interaction_score: float
    purchase_count: int
    last_updated_at: datetime


@dataclass(frozen=True)
class Refresh:
    """What one refresh did. Times are the shop database's, never ours."""

    rebuilt: bool
    changed_orders: int
    users_recomputed: int
    rows_written: int
    rows_deleted: int
    watermark_before: datetime | None
    watermark: datetime | None
    orders_in_future: int
    newest: list[Interaction]
    """A few of the recomputed rows, those of the latest purchases first."""
    seconds: float


# A purchase more than a thousand half-lives older than the newest weighs 1e-301, not an underflow.
_COMPUTE = sql.SQL("""
CREATE TEMPORARY TABLE fresh ON COMMIT DROP AS
WITH purchases AS (
    SELECT user_id, product_id, purchased_at,
           max(purchased_at) OVER (PARTITION BY user_id, product_id) AS newest
    FROM ({purchases}) AS counted
)
SELECT user_id, product_id, newest AS last_updated_at, count(*)::integer AS purchase_count,
       sum(power(0.5::float8, least(1000,
           extract(epoch FROM newest - purchased_at)::float8 / {half_life}))) AS interaction_score
FROM purchases
GROUP BY user_id, product_id, newest
""")
_DELETE_GONE = sql.SQL("""
DELETE FROM {interactions} AS old
WHERE {users} AND NOT EXISTS (
    SELECT FROM fresh WHERE fresh.user_id = old.user_id AND fresh.product_id = old.product_id)
""")
# The order in which PostgreSQL adds up is its own, so equal sums may differ in their last bits.
_UPDATE_CHANGED = sql.SQL("""
UPDATE {interactions} AS old
SET interaction_score = fresh.interaction_score,
    purchase_count = fresh.purchase_count,
    last_updated_at = fresh.last_updated_at
FROM fresh
WHERE fresh.user_id = old.user_id AND fresh.product_id = old.product_id
  AND (fresh.purchase_count <> old.purchase_count
       OR fresh.last_updated_at <> old.last_updated_at
       OR abs(fresh.interaction_score - old.interaction_score) > 1e-12 * fresh.interaction_score)
""")
_INSERT_NEW = sql.SQL("""
INSERT INTO {interactions}
    (user_id, product_id, interaction_score, purchase_count, last_updated_at)
SELECT user_id, product_id, interaction_score, purchase_count, last_updated_at FROM fresh
WHERE NOT EXISTS (
    SELECT FROM {interactions} AS old
    WHERE old.user_id = fresh.user_id AND old.product_id = fresh.product_id)
ORDER BY user_id, product_id
""")


def refresh_interactions(
    connection: psycopg.Connection,
    shop: Shop,
    *,
    half_life: timedelta,
    overlap: timedelta,
    rebuild: bool = False,
    log: Log = lambda _: None,
) -> Refresh:
    """Bring the interactions up to the orders, in one transaction on ``connection``.

    Locks our watermark row, so that two refreshes at once run one after the other; finds the orders
    changed since the watermark less ``overlap``; recomputes their users from all of their counting
    orders, writing the rows that differ and deleting those no order stands behind; advances the
    watermark to the latest change that is not in the database's future. ``rebuild``, a first run
    and a change of what the rows depend on (half-life, statuses, columns) recompute every user.
    """
    started = time.monotonic()
    half_life_seconds = half_life.total_seconds()
    signature = shop.signature(half_life_seconds / 86400)
    with connection.transaction():
        create_tables(connection, shop)
        before, parameters = _lock_watermark(connection, shop)
        rebuild = rebuild or before is None or parameters != signature
        since = before - overlap if before and not rebuild else None
        log("recomputing every user" if rebuild else f"reading orders changed since {since}")

        changed, in_future, latest = _find_changed(connection, shop, since)
        users = _touched_users(connection) if since is not None else None
        written, deleted, newest = 0, 0, []
        if users != 0:
            written, deleted = _recompute(
                connection, shop, half_life_seconds, every_user=users is None
            )
            newest = _newest(connection)
        watermark = max(filter(None, (before, latest)), default=None)
        connection.execute(
            sql.SQL(
                "UPDATE {} SET last_processed_at = %s, parameters = %s WHERE job_name = %s"
            ).format(batch_metadata_table(shop)),
            [watermark, json.dumps(signature), INTERACTIONS],
        )
        if users is None:
            users = _count_users(connection, shop)
    return Refresh(
        rebuilt=rebuild,
        changed_orders=changed,
        users_recomputed=users,
        rows_written=written,
        rows_deleted=deleted,
        watermark_before=before,
        watermark=watermark,
        orders_in_future=in_future,
        newest=newest,
        seconds=time.monotonic() - started,
    )


def orders_watermark(connection: psycopg.Connection, shop: Shop) -> datetime | None:
    """The time up to which orders are in the interactions; None before the first refresh."""
    if connection.execute(
        "SELECT to_regclass(%s)", [batch_metadata_table(shop).as_string(connection)]
    ).fetchone() == (None,):
        return None
    row = connection.execute(
        sql.SQL("SELECT last_processed_at FROM {} WHERE job_name = %s").format(
            batch_metadata_table(shop)
        ),
        [INTERACTIONS],
    ).fetchone()
    return row[0] if row else None


def _lock_watermark(
    connection: psycopg.Connection, shop: Shop
) -> tuple[datetime | None, dict[str, object]]:
    connection.execute(
        sql.SQL("INSERT INTO {} (job_name) VALUES (%s) ON CONFLICT DO NOTHING").format(
            batch_metadata_table(shop)
        ),
        [INTERACTIONS],
    )
    row = connection.execute(
        sql.SQL(
            "SELECT last_processed_at, parameters FROM {} WHERE job_name = %s FOR UPDATE"
        ).format(batch_metadata_table(shop)),
        [INTERACTIONS],
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def _find_changed(
    connection: psycopg.Connection, shop: Shop, since: datetime | None
) -> tuple[int, int, datetime | None]:
    """Count the changed orders, those of them in the future, and the latest change before now.

    Keeps the incremental ones in the temporary table ``changed``; a rebuild needs no such list.
    """
    # The watermark is taken from the same rows that are then recomputed, and later statements see
    # at least what this one saw: an order committed in between is read again next time.
    if since is None:
        source: sql.Composable = sql.SQL("({}) AS changed").format(shop.changed_orders(None))
    else:
        connection.execute(
            sql.SQL("CREATE TEMPORARY TABLE changed ON COMMIT DROP AS {}").format(
                shop.changed_orders(since)
            )
        )
        source = sql.SQL("changed")
    row = connection.execute(
        sql.SQL(
            "SELECT count(*), count(*) FILTER (WHERE changed_at > now()),"
            " max(changed_at) FILTER (WHERE changed_at <= now()) FROM {}"
        ).format(source)
    ).fetchone()
    assert row is not None
    return row


def _touched_users(connection: psycopg.Connection) -> int:
    connection.execute(
        "CREATE TEMPORARY TABLE touched ON COMMIT DROP AS"
        " SELECT DISTINCT user_id FROM changed WHERE user_id IS NOT NULL"
    )
    connection.execute("ANALYZE touched")
    row = connection.execute("SELECT count(*) FROM touched").fetchone()
    assert row is not None
    return int(row[0])


def _recompute(
    connection: psycopg.Connection, shop: Shop, half_life_seconds: float, *, every_user: bool
) -> tuple[int, int]:
    user_id = sql.Identifier("o", shop.user_id)
    if every_user:
        # A hash join and a sort over all lines; the default 4 MB would spill it many times over.
        connection.execute("SET LOCAL work_mem = '256MB'")
        connection.execute("SET LOCAL hash_mem_multiplier = 4")
        where = sql.SQL("AND {} IS NOT NULL").format(user_id)
        users: sql.Composable = sql.SQL("true")
    else:
        where = sql.SQL("AND {} IN (SELECT user_id FROM touched)").format(user_id)
        users = sql.SQL("old.user_id IN (SELECT user_id FROM touched)")
    connection.execute(
        _COMPUTE.format(purchases=shop.purchases(where), half_life=sql.Literal(half_life_seconds))
    )
    connection.execute("ANALYZE fresh")
    deleted, updated, inserted = (
        connection.execute(
            statement.format(interactions=interactions_table(shop), users=users)
        ).rowcount
        for statement in (_DELETE_GONE, _UPDATE_CHANGED, _INSERT_NEW)
    )
    return updated + inserted, deleted


def _newest(connection: psycopg.Connection, most: int = 5) -> list[Interaction]:
    rows = connection.execute(
        "SELECT user_id, product_id, interaction_score, purchase_count, last_updated_at FROM fresh"
        " ORDER BY last_updated_at DESC, user_id, product_id LIMIT %s",
        [most],
    )
    return [Interaction(*row) for row in rows]


def _count_users(connection: psycopg.Connection, shop: Shop) -> int:
    row = connection.execute(
        sql.SQL("SELECT count(DISTINCT user_id) FROM {}").format(interactions_table(shop))
    ).fetchone()
    assert row is not None
    return int(row[0])
