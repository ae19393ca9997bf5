"""Two processes with other settings do not mix what they compute."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

from recsys_assets.database import ShopError, connect
from recsys_assets.ingest.interactions import refresh_interactions
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop
from tests.refreshes import HALF_LIFE, OVERLAP
from tests.shops import Order, create_shop, day


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database_url, autocommit=True)) as connection:
        create_shop(
            connection,
            [Order(n, n % 4, [5], day(1 + 10 * (n // 4))) for n in range(8)],
        )
        yield connection


def scores(connection: psycopg.Connection) -> list[float]:
    rows = connection.execute("SELECT interaction_score FROM user_product_interactions")
    return [score for (score,) in rows]


def test_a_backfill_by_other_settings_ends_the_one_under_way(
    connection: psycopg.Connection, database_url: str
) -> None:
    shop = inspect_shop(connection, ShopSettings())
    other_half_life: timedelta = 2 * HALF_LIFE
    came: list[int] = []

    def come_in_between(done: int, _total: int) -> None:
        if not came:
            came.append(done)
            with closing(connect(database_url, autocommit=True)) as other:
                refresh_interactions(other, shop, half_life=other_half_life, overlap=OVERLAP)

    with pytest.raises(ShopError, match="the same RECSYS_"):
        refresh_interactions(
            connection,
            shop,
            half_life=HALF_LIFE,
            overlap=OVERLAP,
            chunk_orders=2,
            progress=come_in_between,
        )
    assert scores(connection) == pytest.approx([1 + 0.5**0.5] * 4)  # all by the other
    done = refresh_interactions(connection, shop, half_life=HALF_LIFE, overlap=OVERLAP)
    assert done.rebuilt
    assert scores(connection) == [1.5] * 4
