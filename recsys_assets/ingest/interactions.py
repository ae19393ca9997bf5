"""The refresh of ``user_product_interactions`` from the orders that have changed.

One row per (user, product) that has a counting purchase:

- ``interaction_score``: the time-decayed number of purchases as of ``last_updated_at``,
  ``sum of 0.5 ** ((last_updated_at - purchased_at) / half_life)``, between 1 and the count;
- ``purchase_count``: orders of this user with this product;
- ``first_purchased_at``, ``last_updated_at``: the times of the oldest and the newest of them.

A row is a function of the user's current orders alone - no clock, no earlier row - so that a
refresh can be repeated, overlapped or interrupted without changing what it arrives at, and old rows
need no rewriting: two scores come to one date by ``0.5 ** (dt / half_life)``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from recsys_assets.ingest.backfill import CHUNK_ORDERS, begin_backfill, run_backfill
from recsys_assets.ingest.counting import Difference, Scope, count_orders
from recsys_assets.ingest.watermark import (
    database_now,
    lock_state,
    require_signature,
    save_state,
    signature_of,
)
from recsys_assets.shop import EVERYTHING, LATEST_DATE, Shop, identifier
from recsys_assets.tables import create_tables, interactions_table

Log = Callable[[str], object]
Progress = Callable[[int, int], object]


SHOWN = sql.Literal(5)
_LATEST_CHANGES = sql.SQL(
    "JOIN (SELECT user_id, product_id FROM pg_temp.changes WHERE user_id IS NOT NULL"
    " GROUP BY user_id, product_id ORDER BY max(purchased_at) DESC, user_id, product_id LIMIT {})"
    " AS latest USING (user_id, product_id)"
).format(SHOWN)


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
    """Orders read again, those behind the watermark included."""
    difference: Difference
    watermark_before: datetime | None
    watermark: datetime | None
    orders_in_future: int
    """Orders whose change is later than the database's clock: read again until it is not."""
    orders_dated_ahead: int
    """Changed orders placed, as they say, more than a day from now: they do not count."""
    newest: list[Interaction]
    """A few of the recomputed rows, those of the latest purchases first."""
    seconds: float

    @property
    def users_recomputed(self) -> int:
        """Users of whom interactions were computed."""
        return self.difference.users

    @property
    def rows_written(self) -> int:
        """Interactions that are new or other than before."""
        return self.difference.rows_written

    @property
    def rows_deleted(self) -> int:
        """Interactions that no order stands behind any more."""
        return self.difference.rows_deleted


def refresh_interactions(
    connection: psycopg.Connection,
    shop: Shop,
    *,
    half_life: timedelta,
    overlap: timedelta,
    rebuild: bool = False,
    as_before: bool = False,
    chunk_orders: int = CHUNK_ORDERS,
    log: Log = lambda _: None,
    progress: Progress = lambda _done, _total: None,
) -> Refresh:
    """Bring the interactions up to the orders, on a connection in autocommit mode.

    In one transaction, which holds our watermark row, so that two refreshes at once run one after
    the other: reads the orders changed since the watermark less ``overlap``, recomputes what they
    have changed, advances the watermark to the latest change that is not in the database's future.

    ``rebuild``, a first run and a change of what the rows depend on (half-life, statuses, columns)
    recompute everything before, in chunks, of which ``progress`` is told the orders done and all
    orders (:mod:`recsys_assets.ingest.backfill`). ``as_before``: ShopError upon such a change.
    """
    started = time.monotonic()
    create_tables(connection, shop)
    signature = signature_of(shop, half_life)
    with connection.transaction():
        state = lock_state(connection, shop)
        if as_before and state.signature is not None:
            require_signature(state, signature)
        stale = state.watermark is None or state.signature != signature
        under_way = state.backfill is not None and state.signature == signature
        if not under_way and (rebuild or stale):
            begin_backfill(connection, shop, state, signature)
            under_way = True
    total, orders = Difference(), 0
    if under_way:
        log("recomputing every user")
        for backfill, difference in run_backfill(
            connection, shop, half_life, signature, chunk_orders
        ):
            total, orders = total + difference, backfill.orders
            progress(backfill.done, backfill.orders)
    with connection.transaction():
        refresh = refresh_changed(connection, shop, half_life=half_life, overlap=overlap, log=log)
        if under_way:
            ahead, users = _count_all(connection, shop)
            total = replace(total, users=users)
            refresh = replace(
                refresh,
                changed_orders=orders,
                orders_dated_ahead=ahead,
                newest=_newest(connection, shop),
            )
    return replace(
        refresh,
        rebuilt=under_way,
        difference=total + refresh.difference,
        watermark_before=state.watermark,
        seconds=time.monotonic() - started,
    )


def refresh_changed(
    connection: psycopg.Connection,
    shop: Shop,
    *,
    half_life: timedelta,
    overlap: timedelta,
    log: Log = lambda _: None,
) -> Refresh:
    """The refresh proper, in the caller's transaction, which then holds the watermark.

    Nothing is done when a backfill is under way: whoever does it goes on from there.
    """
    started = time.monotonic()
    state = lock_state(connection, shop)
    require_signature(state, signature_of(shop, half_life))
    since = state.watermark - overlap if state.watermark else None
    if state.backfill:
        log("a backfill is under way; whoever does it goes on from there")
        changed, in_future, dated_ahead, latest = 0, 0, 0, None
    else:
        log(f"reading orders changed since {since}")
        changed, in_future, dated_ahead, latest = _find_changed(connection, shop, since)
    watermark = max(filter(None, (state.watermark, latest)), default=None)
    difference, newest = Difference(), []
    if changed:
        as_of = watermark or database_now(connection)
        scope = Scope.listed(shop, "changed")
        difference = count_orders(connection, shop, scope, as_of=as_of, half_life=half_life)
        newest = _newest(connection, shop, _LATEST_CHANGES) if difference.users else []
    save_state(connection, shop, replace(state, watermark=watermark))
    return Refresh(
        rebuilt=False,
        changed_orders=changed,
        difference=difference,
        watermark_before=state.watermark,
        watermark=watermark,
        orders_in_future=in_future,
        orders_dated_ahead=dated_ahead,
        newest=newest,
        seconds=time.monotonic() - started,
    )


def _find_changed(
    connection: psycopg.Connection, shop: Shop, since: datetime | None
) -> tuple[int, int, int, datetime | None]:
    """Fill the temporary table ``changed`` with the ids of the orders changed since then.

    Returns how many there are, how many changed in the future, how many are dated ahead, and the
    latest change that is not in the future.
    """
    # The watermark is taken from the same rows that are then read again, and later statements see
    # at least what this one saw: an order committed in between is read again next time.
    connection.execute("DROP TABLE IF EXISTS pg_temp.changed")
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE changed ON COMMIT DROP AS {}").format(
            shop.changed_orders(since)
        )
    )
    connection.execute("ANALYZE pg_temp.changed")
    row = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE changed_at > now()),"
        " count(*) FILTER (WHERE dated_ahead), max(changed_at) FILTER (WHERE changed_at <= now())"
        " FROM pg_temp.changed"
    ).fetchone()
    assert row is not None
    return row


def _newest(
    connection: psycopg.Connection, shop: Shop, among: sql.Composable = EVERYTHING
) -> list[Interaction]:
    rows = connection.execute(
        sql.SQL(
            "SELECT user_id, product_id, interaction_score, purchase_count, last_updated_at"
            " FROM {} {} ORDER BY last_updated_at DESC, user_id, product_id LIMIT {}"
        ).format(interactions_table(shop), among, SHOWN)
    )
    return [Interaction(*row) for row in rows]


def _count_all(connection: psycopg.Connection, shop: Shop) -> tuple[int, int]:
    """Orders dated more than a day ahead, and users with interactions."""
    row = connection.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM {orders} WHERE {created_at} > {latest_date}),"
            " (SELECT count(DISTINCT user_id) FROM {interactions})"
        ).format(
            orders=identifier(shop.orders),
            created_at=sql.Identifier(shop.created_at),
            latest_date=LATEST_DATE,
            interactions=interactions_table(shop),
        )
    ).fetchone()
    assert row is not None
    return row
