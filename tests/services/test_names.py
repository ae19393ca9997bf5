"""Names of products and example users, published to a real Redis from a real shop."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_assets.publish.names import (
    PublishedNames,
    count_names,
    hold_names,
    publish_example_users,
    publish_names,
)
from recsys_assets.publish.redis_client import Client, RedisUnavailableError, connect
from serving.contract import (
    Id,
    decode_example_users,
    example_users_key,
    names_key,
    search_key,
    search_members,
    staged_key,
)
from tests.clusters import redis_cluster
from tests.publications import refreshed, shop_session
from tests.shops import Order, create_shop, day, id_of

ORDERS = [
    Order(1, 1, [10, 11], day(1)),
    Order(2, 1, [10, 12], day(2)),
    Order(3, 2, [10], day(2)),
    Order(4, None, [13], day(2)),
]
NAMES = {10: "Whole milk", 11: "Rye  bread\n", 12: " ", 14: "never sold"}


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with closing(connect(redis_url)) as client:
        yield client


def names(client: Client) -> dict[str, str]:
    return {key.decode(): name.decode() for key, name in client.hgetall(names_key()).items()}  # type: ignore[union-attr]


def members(client: Client) -> set[str]:
    return {member.decode() for member in client.zrange(search_key(), 0, -1)}  # type: ignore[union-attr]


def examples(client: Client) -> list[Id]:
    value = client.get(example_users_key())
    assert isinstance(value, bytes)
    return decode_example_users(value).user_ids


def assert_holds(client: Client, wanted: dict[str, str]) -> None:
    assert names(client) == wanted
    assert members(client) == {m for i, name in wanted.items() for m in search_members(name, i)}
    for key in (names_key(), search_key()):
        assert not client.exists(staged_key(key))


# From the shop


@pytest.mark.parametrize("id_type", ["bigint", "uuid", "text"])
def test_names_of_what_is_sold_are_published(database_url: str, client: Client, id_type: str):
    with psycopg.connect(database_url) as connection:
        create_shop(connection, ORDERS, names=NAMES, id_type=id_type)
    with shop_session(database_url) as session:
        refreshed(session)
        wanted = {
            str(id_of(10, id_type)): "Whole milk",
            str(id_of(11, id_type)): "Rye bread",
        }
        assert publish_names(session, client, 100) == PublishedNames(2, 2, 0, 4)
        assert_holds(client, wanted)
        assert publish_names(session, client, 1) == PublishedNames(1, 0, 1, 2)
        assert_holds(client, {str(id_of(10, id_type)): "Whole milk"})


def test_a_shop_without_names_leaves_none(database_url: str, client: Client):
    hold_names(client, {"1": "of another shop"})
    with psycopg.connect(database_url) as connection:
        create_shop(connection, ORDERS)
    with shop_session(database_url) as session:
        refreshed(session)
        assert publish_names(session, client, 100) == PublishedNames(0, 0, 1, 0)
    assert client.dbsize() == 0


def test_users_with_the_most_purchases_are_examples(database_url: str, client: Client):
    with psycopg.connect(database_url) as connection:
        create_shop(connection, [*ORDERS, Order(5, 3, [10], day(2))])
    with shop_session(database_url) as session:
        refreshed(session)
        publish_example_users(session, client)
        assert examples(client) == [1, 2, 3]
        publish_example_users(session, client, 1)
        assert examples(client) == [1]


# By differences


def test_only_what_differs_is_written(client: Client):
    assert isinstance(client, redis.Redis)
    assert count_names(client) == 0
    hold_names(client, {"1": "milk", "2": "rye bread", "3": "gone"})
    assert count_names(client) == 3
    client.config_resetstat()
    assert hold_names(client, {"1": "milk", "2": "rye bread", "3": "gone"}).written == 0
    commands = client.info("commandstats").keys()
    assert {"cmdstat_hset", "cmdstat_zadd", "cmdstat_hdel", "cmdstat_zrem"} & commands == set()
    changed = {"1": "milk", "2": "dark rye bread", "4": "new"}
    assert hold_names(client, changed) == PublishedNames(3, 2, 1, 5)
    assert_holds(client, changed)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["1", "2", "a:b", "ü"]),
            st.text("aAé b-", min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_redis_holds_what_was_published_last(client: Client, publications: list[dict[str, str]]):
    client.flushall()
    for wanted in publications:
        hold_names(client, wanted)
        assert_holds(client, wanted)


@pytest.mark.parametrize("lost", [names_key(), search_key()])
def test_a_lost_key_is_built_anew(client: Client, lost: str):
    wanted = {"1": "whole milk", "2": "rye bread"}
    hold_names(client, wanted)
    client.delete(lost)
    hold_names(client, wanted)
    assert_holds(client, wanted)


def test_what_an_interrupted_call_left_aside_does_not_get_in(client: Client):
    client.hset(staged_key(names_key()), "9", "half")
    client.zadd(staged_key(search_key()), {"half\x1f9": 0})
    hold_names(client, {"1": "milk"})
    assert_holds(client, {"1": "milk"})


def test_a_reader_never_sees_half_of_the_first_publication(client: Client):
    """MONITOR tells every command, and so every state between two of them."""
    assert isinstance(client, redis.Redis)
    wanted = {str(i): f"product {i}" for i in range(1200)}
    with client.monitor() as monitor:
        hold_names(client, wanted)
        client.echo("done")
        heard = []
        for entry in monitor.listen():
            if entry["command"].startswith("ECHO"):
                break
            heard.append(entry["command"].split(" ")[:2])
    writes = [key for command, key in heard if command in {"HSET", "ZADD"}]
    assert set(writes) == {staged_key(names_key()), staged_key(search_key())}
    assert ["RENAME", staged_key(names_key())] in heard


def test_it_works_on_a_cluster(tmp_path: Path):
    with redis_cluster(tmp_path) as url, closing(connect(url)) as client:
        assert isinstance(client, redis.RedisCluster)
        hold_names(client, {"1": "whole milk", "2": "bread"})
        assert_holds(client, {"1": "whole milk", "2": "bread"})
        hold_names(client, {"1": "whole milk", "3": "tea"})
        assert_holds(client, {"1": "whole milk", "3": "tea"})


def test_a_foreign_value_is_told(client: Client):
    client.set(names_key(), "hello")
    with pytest.raises(RedisUnavailableError, match="WRONGTYPE"):
        hold_names(client, {"1": "milk"})
