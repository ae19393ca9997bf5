"""The set of unavailable products in a real Redis, beside what is published there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import redis

from recsys_assets.catalogue import refresh_unavailable
from recsys_assets.publish.changed_users import publishing as a_turn_of
from recsys_assets.publish.redis_client import RedisUnavailableError, connect
from recsys_assets.publish.unavailable import (
    PublishedSet,
    oldest_lists,
    publish_unavailable,
)
from recsys_assets.shop_session import ShopSession
from serving.contract import Family, encode_id, unavailable_key
from tests.commands import eventually
from tests.publications import publishing, shop_session
from tests.published import Publisher
from tests.shops import Order, create_shop, day, id_of

TRAINED = datetime(2025, 3, 1, 3, 0, 0, 123456, tzinfo=UTC)
MARGIN = timedelta(hours=1)


def version(made: datetime) -> str:
    return made.strftime("%Y%m%dT%H%M%S.%fZ")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with closing(connect(redis_url)) as client:
        assert isinstance(client, redis.Redis)
        yield client


@pytest.fixture
def session(database_url: str) -> Iterator[ShopSession]:
    """A shop without products that are unavailable."""
    with psycopg.connect(database_url) as connection:
        create_shop(connection)
    with shop_session(database_url) as session:
        refresh_unavailable(session.connection, session.shop)
        yield session


def become_unavailable(session: ShopSession, *products: object, at: datetime) -> None:
    for product in products:
        session.connection.execute(
            "INSERT INTO unavailable_products VALUES (%s, %s)", [product, at]
        )


def held(client: redis.Redis) -> set[str]:
    return {member.decode() for member in client.smembers(unavailable_key())}  # type: ignore


def test_what_became_unavailable_since_the_oldest_model_is_held(
    session: ShopSession, client: redis.Redis
) -> None:
    publisher = Publisher(client)
    publisher.record(Family.BOUGHT_TOGETHER, model_version=version(TRAINED))
    publisher.record(Family.USER_TOP_BUYS, model_version=version(TRAINED + timedelta(days=1)))
    become_unavailable(session, 1, at=TRAINED - MARGIN - timedelta(seconds=1))
    become_unavailable(session, 2, at=TRAINED - MARGIN)
    become_unavailable(session, 3, 4, at=TRAINED + timedelta(days=2))
    assert publish_unavailable(session, client) == PublishedSet(3, 0, 3)
    assert held(client) == {"2", "3", "4"}
    assert publish_unavailable(session, client) == PublishedSet(0, 0, 3)
    # the lists are made anew
    publisher.record(Family.BOUGHT_TOGETHER, model_version=version(TRAINED + timedelta(days=3)))
    assert publish_unavailable(session, client) == PublishedSet(0, 1, 2)
    assert held(client) == {"3", "4"}
    session.connection.execute("DELETE FROM unavailable_products")
    assert publish_unavailable(session, client) == PublishedSet(0, 2, 0)
    assert not client.exists(unavailable_key())


@pytest.mark.parametrize("of", [[], ["rules-3"], ["rules-3", version(TRAINED)]])
def test_all_are_held_where_it_is_not_known_when_lists_were_made(
    session: ShopSession, client: redis.Redis, of: list[str]
) -> None:
    for family, model_version in zip(Family, of, strict=False):
        Publisher(client).record(family, model_version=model_version)
    assert oldest_lists(client) is None
    become_unavailable(session, 1, at=TRAINED - timedelta(days=900))
    assert publish_unavailable(session, client) == PublishedSet(1, 0, 1)


def rule(session: ShopSession, scope: str, product: int, action: str) -> None:
    session.connection.execute(
        "INSERT INTO recommendation_rules (scope, product_id, action) VALUES (%s, %s, %s)",
        [scope, str(product), action],
    )


def test_what_is_blocked_everywhere_is_held(session: ShopSession, client: redis.Redis) -> None:
    rule(session, "everywhere", 7, "block")
    rule(session, "everywhere", 8, "pin")
    rule(session, "top_buys", 9, "block")
    assert publish_unavailable(session, client) == PublishedSet(1, 0, 1)
    assert held(client) == {"7"}
    rule(session, "somewhere", 7, "block")
    (skipped,) = publish_unavailable(session, client).skipped
    assert "unknown scope 'somewhere'" in str(skipped)
    session.connection.execute("DELETE FROM recommendation_rules")
    assert publish_unavailable(session, client) == PublishedSet(0, 1, 0)


def test_whoever_waits_for_another_reads_the_rules_of_then(
    session: ShopSession, client: redis.Redis, database_url: str
) -> None:
    def waits() -> object:
        return session.connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND query LIKE '%pg_try_advisory_lock%'"
        ).fetchone()

    with shop_session(database_url) as other, ThreadPoolExecutor(1) as thread:
        with a_turn_of(session.connection, session.shop, "unavailable products"):
            waiting = thread.submit(publish_unavailable, other, client)
            eventually(waits, "the other's turn")
            rule(session, "everywhere", 7, "block")
        assert waiting.result(60) == PublishedSet(1, 0, 1)
    assert held(client) == {"7"}


def test_what_is_blocked_while_all_lists_are_published_stays_blocked(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    def block(_: int) -> None:
        with publishing(database_url, redis_url, tmp_path) as other:
            rule(other.session, "everywhere", 10, "block")
            publish_unavailable(other.session, other.client)

    with psycopg.connect(database_url) as connection:
        create_shop(connection, [Order(n, n, [10, 11], day(n)) for n in (1, 2, 3)])
    with publishing(database_url, redis_url, tmp_path) as shop:
        shop.refresh()
        shop.train()
        shop.everybody(progress=block)
        assert shop.client.smembers(unavailable_key()) == {b"10"}


@pytest.mark.parametrize("id_type", ["text", "uuid"])
def test_ids_are_held_as_the_contract_writes_them(
    database_url: str, client: redis.Redis, id_type: str
) -> None:
    with psycopg.connect(database_url) as connection:
        create_shop(connection, id_type=id_type)
    with shop_session(database_url) as session:
        refresh_unavailable(session.connection, session.shop)
        become_unavailable(session, id_of(1, id_type), at=TRAINED)
        if id_type == "text":
            become_unavailable(session, "no\nkey", "grün", at=TRAINED)
        publish_unavailable(session, client)
    expected = {encode_id(str(id_of(1, id_type)))}
    assert held(client) == (expected | {"grün"} if id_type == "text" else expected)


def test_many_products_are_sent_in_parts(session: ShopSession, client: redis.Redis) -> None:
    session.connection.execute(
        "INSERT INTO unavailable_products SELECT n, now() FROM generate_series(1, 1234) AS n"
    )
    assert publish_unavailable(session, client).added == 1234
    session.connection.execute("DELETE FROM unavailable_products WHERE product_id > 3")
    assert publish_unavailable(session, client) == PublishedSet(0, 1231, 3)
    assert held(client) == {"1", "2", "3"}


def test_what_redis_refuses_is_told(session: ShopSession, client: redis.Redis) -> None:
    client.set(unavailable_key(), "something else")
    with pytest.raises(RedisUnavailableError, match="which products are unavailable: WRONGTYPE"):
        publish_unavailable(session, client)
