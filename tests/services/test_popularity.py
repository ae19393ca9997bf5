"""The guests' list, from the popularity in real PostgreSQL to a real Redis."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
import redis

from recsys_assets.database import ShopError
from recsys_assets.ingest.interactions import refresh_interactions
from recsys_assets.publish.popularity import publish_popular
from recsys_assets.publish.redis_client import connect
from recsys_assets.publish.redis_reader import read_global_top_buys
from recsys_assets.publish.selection import current_assortment, read_assortment
from recsys_assets.shop_session import ShopSession
from serving.contract import ScoredProduct
from tests.publications import shop_session
from tests.shops import Order, create_shop, day

LENGTH = 10
PRODUCTS = 60


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with closing(connect(redis_url)) as client:
        assert isinstance(client, redis.Redis)
        yield client


@pytest.fixture
def session(database_url: str) -> Iterator[ShopSession]:
    """A shop that sold product 1 in 60 orders, product 2 in 59, and so on; none is refreshed."""
    orders = [Order(n, None, [*range(1, PRODUCTS + 2 - n)], day(1)) for n in range(1, PRODUCTS + 1)]
    names = {product: str(product % 3) for product in range(1, PRODUCTS + 1)}
    with psycopg.connect(database_url) as connection:
        create_shop(connection, orders, names=names)
        connection.execute("ALTER TABLE products ADD is_active boolean DEFAULT true")
    with shop_session(database_url, products_category_column="name") as session:
        yield session


def refresh(session: ShopSession) -> None:
    refresh_interactions(
        session.connection, session.shop, half_life=timedelta(days=30), overlap=timedelta(0)
    )


def published(client: redis.Redis) -> list[ScoredProduct]:
    top_buys = read_global_top_buys(client)
    assert top_buys is not None
    return top_buys.products


def test_before_the_first_refresh_it_is_told(session: ShopSession, client: redis.Redis) -> None:
    with pytest.raises(ShopError, match="user_product_interactions"):
        publish_popular(session, client, LENGTH, current_assortment(session))


def test_an_older_releases_tables_do(session: ShopSession, client: redis.Redis) -> None:
    refresh(session)
    session.connection.execute("DROP TABLE recommendation_rules, unavailable_products")
    publish_popular(session, client, LENGTH, current_assortment(session))
    assert [p.product_id for p in published(client)] == [*range(1, LENGTH + 1)]


def test_of_products_not_sold_now_none_is_listed(session: ShopSession, client: redis.Redis) -> None:
    refresh(session)
    session.connection.execute("UPDATE products SET is_active = false WHERE id = 1")
    publish_popular(session, client, LENGTH, current_assortment(session))
    assert [p.product_id for p in published(client)] == [*range(2, LENGTH + 2)]


BLOCK = "(1, 'block', NULL), (3, 'block', NULL), (4711, 'block', NULL)"
PIN = "(2, 'pin', 1), (50, 'pin', 2), (4711, 'pin', 3)"
BOOST = "(55, 'boost', 1000)"
DEMOTE = "(1, 'boost', 0.001), (2, 'boost', 0.001)"


@pytest.mark.parametrize(
    ("rules", "unavailable", "read"),
    [
        ("", "", LENGTH),
        (BLOCK, "", LENGTH + 3),
        (PIN, "", LENGTH),
        (f"{BLOCK}, {PIN}", "4, 50", LENGTH + 5),
        ("", "1, 2, 3, 4, 5", LENGTH + 5),
        (BOOST, "", PRODUCTS),
        (DEMOTE, "3", PRODUCTS),
        (f"{BLOCK}, {PIN}, {BOOST}, {DEMOTE}", "4, 50", PRODUCTS),
    ],
)
def test_the_list_is_that_of_all_the_popularity(
    session: ShopSession, client: redis.Redis, rules: str, unavailable: str, read: int
) -> None:
    refresh(session)
    connection = session.connection
    if unavailable:
        connection.execute(f"UPDATE products SET is_active = false WHERE id IN ({unavailable})")
    assortment = current_assortment(session)
    if rules:
        connection.execute(
            f"INSERT INTO recommendation_rules (product_id, action, weight) VALUES {rules}"
        )
        assortment = read_assortment(session)
    _, popularity = publish_popular(session, client, LENGTH, assortment)
    expected = published(client)
    assert len(popularity) == PRODUCTS
    client.flushall()
    _, popularity = publish_popular(session, client, LENGTH, assortment, whole=False)
    assert published(client) == expected
    assert len(expected) == LENGTH
    assert len(popularity) == read


def test_with_a_cap_all_the_popularity_is_read(session: ShopSession, client: redis.Redis) -> None:
    refresh(session)
    capped = replace(session, most_per_category=1)
    _, popularity = publish_popular(capped, client, LENGTH, current_assortment(capped), whole=False)
    assert [p.product_id for p in published(client)] == [1, 2, 3]
    assert len(popularity) == PRODUCTS
