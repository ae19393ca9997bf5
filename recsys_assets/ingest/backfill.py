"""The first run and rebuilds: all orders, in chunks of users, each chunk a transaction of its own.

How far it has got stands beside the watermark: what ends in the middle is continued by the next
refresh, whoever's, and two at once take turns at the chunks. The shop's tables are read as any
query reads them, which blocks no writer. Orders that change in the meantime are left to the refresh
that follows, which starts from where the backfill began.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql

from recsys_assets.ids import comparable_id, id_range
from recsys_assets.ingest import popularity
from recsys_assets.ingest.counting import Difference, Scope, recount_orders
from recsys_assets.ingest.watermark import (
    Backfill,
    Stage,
    State,
    database_now,
    lock_state,
    require_signature,
    save_state,
)
from recsys_assets.shop import Shop, identifier
from recsys_assets.tables import (
    counted_orders_table,
    forget_publication,
    interactions_table,
    popularity_table,
)

CHUNK_ORDERS = 100_000
FOLLOWING: dict[Stage, Stage] = {"users": "guests", "guests": "popularity"}


def begin_backfill(
    connection: psycopg.Connection, shop: Shop, state: State, signature: dict[str, Any]
) -> None:
    """Note that a backfill is to be done, in a transaction that holds ``state``.

    Where the interactions depended on something else, there is no watermark until it is finished.
    """
    row = connection.execute(
        sql.SQL("SELECT ({latest}), (SELECT count(*) FROM {orders})").format(
            latest=shop.last_change(), orders=identifier(shop.orders)
        )
    ).fetchone()
    assert row is not None
    watermark = state.watermark if state.signature == signature else None
    save_state(connection, shop, State(watermark, signature, Backfill(*row)))


def run_backfill(
    connection: psycopg.Connection,
    shop: Shop,
    half_life: timedelta,
    signature: dict[str, Any],
    chunk_orders: int = CHUNK_ORDERS,
) -> Iterator[tuple[Backfill, Difference]]:
    """Work off the backfill that is under way, a chunk of about ``chunk_orders`` at a time.

    Yields how far it has got after each, and what the chunk changed. Ends when the backfill is
    finished, by us or by another. Raises ShopError when another process has begun one by other
    settings.
    """
    while True:
        with connection.transaction():
            state = lock_state(connection, shop)
            require_signature(state, signature)
            if state.backfill is None:
                return
            if state.backfill.stage == "popularity":
                _finish(connection, shop, state, half_life)
                return
            scope, backfill = _next_chunk(connection, shop, state.backfill, chunk_orders)
            users = state.backfill.stage == "users"
            difference = recount_orders(connection, shop, scope, half_life=half_life, users=users)
            save_state(connection, shop, replace(state, backfill=backfill))
        yield backfill, difference


def _finish(connection: psycopg.Connection, shop: Shop, state: State, half_life: timedelta) -> None:
    """Count popularity, and let the refresh that follows start from where the backfill began."""
    assert state.backfill is not None
    watermark = state.backfill.watermark
    as_of = watermark or database_now(connection)
    popularity.recount(connection, shop, as_of, half_life)
    forget_publication(connection, shop)
    for table in (counted_orders_table(shop), interactions_table(shop), popularity_table(shop)):
        connection.execute(sql.SQL("ANALYZE {}").format(table))
    save_state(connection, shop, State(watermark, state.signature, None))


def _next_chunk(
    connection: psycopg.Connection, shop: Shop, backfill: Backfill, chunk_orders: int
) -> tuple[Scope, Backfill]:
    """The next chunk, and how far the backfill has got once it is done."""
    user_id = sql.Identifier("o", shop.user_id)
    if backfill.stage == "users":
        whose, ours = sql.SQL("{} IS NOT NULL").format(user_id), sql.SQL("user_id IS NOT NULL")
        column, our_column, id_type = user_id, sql.Identifier("user_id"), shop.user_id_type
    else:
        whose, ours = sql.SQL("{} IS NULL").format(user_id), sql.SQL("user_id IS NULL")
        column = sql.Identifier("o", shop.order_id)
        our_column, id_type = sql.Identifier("order_id"), shop.order_id_type
    row = connection.execute(
        sql.SQL(
            "SELECT {column}::text FROM {orders} o WHERE {whose} AND {range}"
            " ORDER BY {ordered} OFFSET {most} LIMIT 1"
        ).format(
            column=column,
            orders=identifier(shop.orders),
            whose=whose,
            range=id_range(column, id_type, backfill.after, None),
            ordered=comparable_id(column, id_type),
            most=chunk_orders - 1,
        )
    ).fetchone()
    last = row[0] if row else None
    scope = Scope(
        sql.SQL("{} AND {}").format(whose, id_range(column, id_type, backfill.after, last)),
        sql.SQL("{} AND {}").format(ours, id_range(our_column, id_type, backfill.after, last)),
    )
    done = min(backfill.done + chunk_orders, backfill.orders)
    if last is not None:
        return scope, replace(backfill, after=last, done=done)
    return scope, replace(backfill, stage=FOLLOWING[backfill.stage], after=None, done=done)
