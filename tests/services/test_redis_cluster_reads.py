"""Reads of a Redis Cluster of three nodes, while slots move and nodes die."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from redis import RedisCluster
from redis.crc import key_slot

from recsys_assets.publish.redis_client import connect
from serving.app import create_app
from serving.contract import (
    Family,
    blocked_key,
    global_top_buys_key,
    publication_key,
    unavailable_key,
    user_top_buys_key,
)
from serving.redis.reads import RedisReads
from serving.redis.turn import RedisUnavailable
from serving.settings import ServingSettings
from tests.clusters import SLOTS, Server, addresses, cluster_of, replica_of, until
from tests.published import Publisher

TIMEOUT = 2.0
USERS = 60
TOP_BUYS = "/api/recommendations/top-buys"

# What is read for every user's list lies on the first two nodes.
COMMON = [
    *map(publication_key, (Family.USER_TOP_BUYS, Family.GLOBAL_TOP_BUYS)),
    global_top_buys_key(),
    blocked_key(),
    unavailable_key(),
]
LAST_OF_COMMON = max(key_slot(key.encode()) for key in COMMON) + 1
ENDS = (LAST_OF_COMMON // 2, LAST_OF_COMMON, SLOTS)


def slot_of(user_id: int) -> int:
    slot: int = key_slot(user_top_buys_key(user_id).encode())
    return slot


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three nodes; who kills one leaves it so."""
    with cluster_of(tmp_path_factory.mktemp("cluster"), *ENDS) as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: list[Server]) -> list[Server]:
    """Three nodes; each of the users from 1 on has a list of their own, of product 10 * user."""
    for node in cluster:
        node.start()
    until(lambda: published(cluster))
    return cluster


def published(nodes: list[Server]) -> bool:
    with closing(connect(f"redis+cluster://{addresses(nodes)}")) as client:
        assert isinstance(client, RedisCluster)
        some: Any = client
        publisher = Publisher(some)
        publisher.top_buys(None, 1)
        publisher.record(Family.USER_TOP_BUYS)
        for user_id in range(1, USERS):
            publisher.top_buys(user_id, 10 * user_id)
    return True


async def lists(reads: RedisReads) -> list[bytes | None]:
    """What is stored for each of the users, read at once."""
    commands = [("GET", user_top_buys_key(user_id)) for user_id in range(1, USERS)]
    found = await asyncio.gather(*(reads.read([command]) for command in commands))
    return [value for (value,) in found]


def assert_right(values: list[bytes | None]) -> None:
    for user_id, value in enumerate(values, start=1):
        assert value
        assert b'"product_id":%d,' % (10 * user_id) in value


def move_list(source: Server, target: Server, user_id: int) -> str:
    """Move a user's list, and of its slot all but the end, which is told all nodes; the target."""
    slot, key = slot_of(user_id), user_top_buys_key(user_id)
    with source.client() as old, target.client() as new:
        old_id, new_id = old.execute_command("CLUSTER MYID"), new.execute_command("CLUSTER MYID")
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old_id)
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new_id)
        old.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    return str(new_id)


def test_reads_span_nodes_and_follow_slots(nodes: list[Server]):
    moved = next(user_id for user_id in range(1, USERS) if slot_of(user_id) >= LAST_OF_COMMON)

    async def scenario() -> None:
        async with RedisReads(f"redis+cluster://{addresses(nodes)}", TIMEOUT) as reads:
            assert_right(await lists(reads))
            for source, target in [(nodes[2], nodes[0]), (nodes[0], nodes[2])]:
                new_id = move_list(source, target, moved)
                assert_right(await lists(reads))  # ASK
                for node in nodes:
                    with node.client() as client:
                        client.execute_command("CLUSTER SETSLOT", slot_of(moved), "NODE", new_id)
                for _ in range(3):
                    assert_right(await lists(reads))  # MOVED, and known from then on
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_a_plain_url_of_any_node_leads_to_all(nodes: list[Server]):
    async def scenario() -> None:
        for node in nodes:
            async with RedisReads(node.url, TIMEOUT) as reads:
                assert_right(await lists(reads))

    asyncio.run(scenario())


def api_over(nodes: list[Server]) -> TestClient[Any]:
    """A client of the API, to which these nodes are named."""
    url = f"redis+cluster://{addresses(nodes)}"
    app: Any = create_app(ServingSettings(redis_url=url, redis_timeout_ms=int(TIMEOUT * 1000)))
    return TestClient(app)


def test_a_dead_node_takes_its_own_keys_readers_down_alone(nodes: list[Server]):
    with api_over(nodes) as client:

        def answers() -> dict[int, int]:
            paths = {user_id: f"{TOP_BUYS}?user_id={user_id}" for user_id in range(1, USERS)}
            return {user_id: client.get(path).status_code for user_id, path in paths.items()}

        everybody = range(1, USERS)
        assert answers() == dict.fromkeys(everybody, 200)
        nodes[2].kill()
        expected = {user: 503 if slot_of(user) >= LAST_OF_COMMON else 200 for user in everybody}
        assert set(expected.values()) == {200, 503}
        assert answers() == expected
        nodes[2].start()
        until(lambda: answers() == dict.fromkeys(everybody, 200))


@pytest.mark.parametrize("dead", [0, 1])
def test_any_of_the_nodes_named_may_be_dead_at_the_start(nodes: list[Server], dead: int):
    url = f"redis+cluster://{addresses(nodes[::2])}"  # the first and the third
    nodes[::2][dead].kill()
    alive = next(u for u in range(1, USERS) if slot_of(u) // LAST_OF_COMMON == 1 - dead)

    async def scenario() -> None:
        async with RedisReads(url, TIMEOUT) as reads:
            async with asyncio.timeout(10):
                while reads.state != "closed":
                    await asyncio.sleep(0.01)
            (value,) = await reads.read([("GET", user_top_buys_key(alive))])
            assert b'"product_id":%d,' % (10 * alive) in value

    asyncio.run(scenario())


def test_a_cluster_that_is_gone_is_unavailable(nodes: list[Server]):
    async def scenario() -> None:
        async with RedisReads(nodes[0].url, TIMEOUT) as reads:
            for node in nodes:
                node.kill()
            with pytest.raises(RedisUnavailable):
                await lists(reads)

    asyncio.run(scenario())


def products(client: TestClient[Any]) -> dict[int, list[int]]:
    """What each of the users is answered; nothing where that is an error."""
    bodies = {user: client.get(f"{TOP_BUYS}?user_id={user}").json() for user in range(1, USERS)}
    return {
        user: [product["product_id"] for product in body.get("products", ())]
        for user, body in bodies.items()
    }


@pytest.mark.parametrize("dead", [0, 2])
def test_a_replica_that_takes_over_is_found(tmp_path: Path, dead: int):
    own = {user_id: [10 * user_id] for user_id in range(1, USERS)}
    with (
        cluster_of(tmp_path, *ENDS) as nodes,
        replica_of(nodes[dead], nodes, tmp_path) as replica,
        api_over(nodes) as client,
    ):
        assert published(nodes)
        with nodes[dead].client() as primary, replica.client() as successor:
            until(lambda: successor.dbsize() == primary.dbsize())
            assert products(client) == own
            nodes[dead].kill()
            assert [] in products(client).values()
            successor.execute_command("CLUSTER FAILOVER", "TAKEOVER")
        until(lambda: products(client) == own)
