"""Refreshes of the interactions for tests, and what they must arrive at."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from recsys_assets.ingest.backfill import CHUNK_ORDERS
from recsys_assets.ingest.interactions import Progress, Refresh, refresh_interactions
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import Shop, inspect_shop
from tests.shops import Order

HALF_LIFE = timedelta(days=10)
OVERLAP = timedelta(minutes=10)

Rows = dict[tuple[Any, Any], tuple[float, int, datetime]]
"""Score, purchases and the time of the newest, by user and product."""


def inspect(connection: psycopg.Connection, **settings: Any) -> Shop:
    """The shop of the default names."""
    return inspect_shop(connection, ShopSettings(**settings))


def refresh(
    connection: psycopg.Connection,
    *,
    half_life: timedelta = HALF_LIFE,
    rebuild: bool = False,
    as_before: bool = False,
    chunk_orders: int = CHUNK_ORDERS,
    progress: Progress = lambda _done, _total: None,
    **settings: Any,
) -> Refresh:
    """Refresh the interactions; ``settings`` are the shop's."""
    result = refresh_interactions(
        connection,
        inspect(connection, **settings),
        half_life=half_life,
        overlap=OVERLAP,
        rebuild=rebuild,
        as_before=as_before,
        chunk_orders=chunk_orders,
        progress=progress,
    )
    connection.commit()
    return result


def interactions(connection: psycopg.Connection) -> Rows:
    """All interactions."""
    rows = connection.execute(
        "SELECT user_id, product_id, interaction_score, purchase_count, first_purchased_at,"
        " last_updated_at FROM user_product_interactions"
    ).fetchall()
    return {(user, product): tuple(values) for user, product, *values in rows}


def row_versions(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """All interactions, with what tells whether a row was written since."""
    return connection.execute(
        "SELECT xmin::text, ctid::text, * FROM user_product_interactions ORDER BY 3, 4"
    ).fetchall()


def by_hand(orders: Mapping[Any, Order], half_life: timedelta = HALF_LIFE) -> Rows:
    """What the interactions of completed orders are, straight from their definition."""
    bought: dict[tuple[Any, Any], list[datetime]] = {}
    for order in orders.values():
        if order.user is None or order.status != "completed":
            continue
        for product in {p for p, quantity in order.lines if p is not None and quantity > 0}:
            bought.setdefault((order.user, product), []).append(order.at)
    return {
        pair: (
            pytest.approx(sum(0.5 ** ((max(times) - time) / half_life) for time in times)),
            len(times),
            min(times),
            max(times),
        )
        for pair, times in bought.items()
    }
