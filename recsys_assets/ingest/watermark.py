"""How far the orders are processed: one row of ``batch_metadata``, which is also the lock.

Whoever changes the interactions holds this row, so that two refreshes run one after the other.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import psycopg
from psycopg import sql

from recsys_assets.database import ShopError
from recsys_assets.shop import Shop
from recsys_assets.tables import INTERACTIONS, batch_metadata_table

Stage = Literal["users", "guests", "popularity"]


@dataclass(frozen=True)
class Backfill:
    """How far a backfill has got: a rebuild from all orders, the users', then the guests'.

    ``watermark`` is the latest change when it began, ``orders`` the number of orders then, ``done``
    about how many of them are done; ``after`` is the text of the last user, or guest's order, that
    is.
    """

    watermark: datetime | None
    orders: int
    done: int = 0
    stage: Stage = "users"
    after: str | None = None


@dataclass(frozen=True)
class State:
    """The watermark, what the interactions depended on, and the backfill that is under way."""

    watermark: datetime | None
    signature: dict[str, Any] | None
    backfill: Backfill | None


def signature_of(shop: Shop, half_life: timedelta) -> dict[str, Any]:
    """What the interactions depend on beside the orders; when it changes, they are rebuilt."""
    return shop.signature(half_life / timedelta(days=1))


def lock_state(connection: psycopg.Connection, shop: Shop) -> State:
    """The state, whose row this transaction then holds; our tables must be there."""
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
    watermark, parameters = row
    backfill = parameters.get("backfill")
    return State(watermark, parameters.get("signature"), _from_json(backfill) if backfill else None)


def require_signature(state: State, signature: dict[str, Any]) -> None:
    """Raise ShopError when the interactions depend on other settings than ours."""
    if state.signature != signature:
        raise ShopError(
            "another process has begun to compute the interactions by other settings (half-life,"
            f" statuses or columns): by {state.signature}, here {signature}. Give all processes the"
            " same RECSYS_* settings and restart those that run."
        )


def save_state(connection: psycopg.Connection, shop: Shop, state: State) -> None:
    """Replace the row that :func:`lock_state` holds."""
    parameters: dict[str, Any] = {"signature": state.signature}
    if state.backfill:
        parameters["backfill"] = vars(state.backfill)
    connection.execute(
        sql.SQL("UPDATE {} SET last_processed_at = %s, parameters = %s WHERE job_name = %s").format(
            batch_metadata_table(shop)
        ),
        [state.watermark, json.dumps(parameters, default=datetime.isoformat), INTERACTIONS],
    )


def database_now(connection: psycopg.Connection) -> datetime:
    """The time of the transaction, by the database's clock."""
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


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


def backfill_under_way(connection: psycopg.Connection, shop: Shop) -> Backfill | None:
    """The backfill that is not finished; our tables must be there."""
    row = connection.execute(
        sql.SQL("SELECT parameters->'backfill' FROM {} WHERE job_name = %s").format(
            batch_metadata_table(shop)
        ),
        [INTERACTIONS],
    ).fetchone()
    return _from_json(row[0]) if row and row[0] else None


def required_watermark(
    connection: psycopg.Connection, shop: Shop, half_life: timedelta | None = None
) -> datetime:
    """The watermark; :class:`ShopError` before the first refresh.

    Also when the interactions are kept by another half-life than the one given.
    """
    watermark = orders_watermark(connection, shop)
    if watermark is None:
        raise ShopError(
            "no order is in the interactions yet: load orders, then materialize"
            " user_product_interactions"
        )
    if half_life is not None:
        _require_half_life(connection, shop, half_life / timedelta(days=1))
    return watermark


def _require_half_life(connection: psycopg.Connection, shop: Shop, days: float) -> None:
    row = connection.execute(
        sql.SQL(
            "SELECT (parameters #>> '{{signature,half_life_days}}')::float8 FROM {}"
            " WHERE job_name = %s"
        ).format(batch_metadata_table(shop)),
        [INTERACTIONS],
    ).fetchone()
    kept = row[0] if row else None
    if kept is not None and kept != days:
        raise ShopError(
            f"the interactions are kept by a half-life of {kept:g} days, here it is {days:g}: give"
            " all processes the same settings (RECSYS_HALF_LIFE_DAYS, data/tuned.toml), restart"
            " those that run, then materialize user_product_interactions"
        )


def _from_json(content: dict[str, Any]) -> Backfill:
    watermark = content["watermark"]
    return Backfill(
        **{**content, "watermark": datetime.fromisoformat(watermark) if watermark else None}
    )
