"""Whose lists are to be published: the marks that a refresh leaves, and what was published last.

A refresh marks the users it changes in the same transaction; a mark is taken away once the user's
list is written. So no change is lost between the two, whatever ends in between: at worst a list is
written twice.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from recsys_assets.ingest.watermark import orders_watermark
from recsys_assets.shop import Shop
from recsys_assets.tables import USER_TOP_BUYS, batch_metadata_table, changed_users_table

EVERY = sql.SQL("true")
_TRY_SECONDS = 0.05

Mark = tuple[Any, int]
"""The user's id and the transaction that has changed their interactions."""


@dataclass(frozen=True)
class Lengths:
    """Products in a user's lists, at most, and how many of Top Buys are explained."""

    top_buys: int = 120
    explained: int = 20
    buy_again: int = 60


@dataclass(frozen=True)
class Plan:
    """What the users' lists are published from: the artifact's version, and their lengths.

    ``by_affinity`` says whether the model makes them, or own purchases alone; ``complete``
    says whether every user has a list of it; until then a publication is under way, or
    was broken off.
    """

    model_version: str
    lengths: Lengths
    by_affinity: bool
    complete: bool = False


def read_plan(connection: psycopg.Connection, shop: Shop) -> Plan | None:
    """The plan of the last publication of all users; None when the next has to be one of all."""
    row = connection.execute(
        sql.SQL("SELECT parameters FROM {} WHERE job_name = %s").format(batch_metadata_table(shop)),
        [USER_TOP_BUYS],
    ).fetchone()
    if row is None:
        return None
    try:
        lengths = Lengths(**row[0].pop("lengths", {}))
        return Plan(lengths=lengths, **row[0])
    except TypeError:  # another release's
        return None


def save_plan(
    connection: psycopg.Connection, shop: Shop, plan: Plan, orders_through: datetime | None
) -> None:
    """Note what the users' lists are published from, and the orders they know."""
    connection.execute(
        sql.SQL(
            "INSERT INTO {} (job_name, last_processed_at, parameters) VALUES (%s, %s, %s)"
            " ON CONFLICT (job_name) DO UPDATE SET parameters = excluded.parameters,"
            " last_processed_at = excluded.last_processed_at"
        ).format(batch_metadata_table(shop)),
        [USER_TOP_BUYS, orders_through, json.dumps(asdict(plan))],
    )


def complete_plan(
    connection: psycopg.Connection, shop: Shop, plan: Plan, orders_through: datetime | None
) -> None:
    """Note that every user has a list of the plan, unless it was forgotten in the meantime."""
    incomplete, complete = (
        json.dumps(asdict(replace(plan, complete=done))) for done in (False, True)
    )
    connection.execute(
        sql.SQL(
            "UPDATE {} SET parameters = %s, last_processed_at = %s"
            " WHERE job_name = %s AND parameters = %s::jsonb"
        ).format(batch_metadata_table(shop)),
        [complete, orders_through, USER_TOP_BUYS, incomplete],
    )


def marked_users(
    connection: psycopg.Connection,
    shop: Shop,
    *,
    most: int | None = None,
    whose: sql.Composable = EVERY,
) -> tuple[datetime | None, list[Mark]]:
    """Marks of users, and a watermark up to which every change is marked or published.

    Up to ``most`` of those for which ``whose`` holds, a condition on ``user_id``.
    """
    watermark = orders_watermark(connection, shop)  # before the marks, which may then be of more
    rows = connection.execute(
        sql.SQL("SELECT user_id, change FROM {} WHERE {} ORDER BY user_id LIMIT %s").format(
            changed_users_table(shop), whose
        ),
        [most],
    )
    return watermark, rows.fetchall()


def take_marks(connection: psycopg.Connection, shop: Shop, marks: list[Mark]) -> None:
    """Take these marks away; one that was set anew in the meantime stays."""
    connection.execute(
        sql.SQL(
            "DELETE FROM {marks} WHERE user_id IN (SELECT marks.user_id FROM {marks} AS marks"
            " JOIN unnest(%s::text[], %s::bigint[]) AS done(user_id, change)"
            " ON marks.user_id = done.user_id::{id_type} AND marks.change = done.change"
            " ORDER BY marks.user_id FOR UPDATE OF marks)"
        ).format(marks=changed_users_table(shop), id_type=sql.SQL(shop.user_id_type)),
        [[str(user_id) for user_id, _ in marks], [change for _, change in marks]],
    )


@contextmanager
def publishing(connection: psycopg.Connection, shop: Shop, what: str) -> Iterator[None]:
    """Wait until nobody else publishes ``what``, and keep others waiting; ends with the session."""
    while not _try_lock(connection, shop, what):  # a statement that waits would hold a snapshot
        time.sleep(_TRY_SECONDS)
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):  # the session is lost, and its lock with it
            _unlock(connection, shop, what)


def is_under_way(connection: psycopg.Connection, shop: Shop, what: str) -> bool:
    """Whether somebody else publishes ``what``."""
    if not _try_lock(connection, shop, what):
        return True
    _unlock(connection, shop, what)
    return False


def give_way() -> None:
    """Let others have their turn, between two turns of one's own."""
    time.sleep(2 * _TRY_SECONDS)


def _try_lock(connection: psycopg.Connection, shop: Shop, what: str) -> bool:
    row = connection.execute(
        "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"{shop.schema} {what}"]
    ).fetchone()
    return row == (True,)


def _unlock(connection: psycopg.Connection, shop: Shop, what: str) -> None:
    connection.execute(
        "SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [f"{shop.schema} {what}"]
    )
