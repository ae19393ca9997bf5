"""What is told and known of the nodes of a Redis Cluster, and of the one that is named first."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from prometheus_client import REGISTRY
from redis import RedisCluster
from redis.crc import key_slot

from recsys_assets.publish.redis_client import connect
from serving import metrics
from serving.redis.reads import RedisReads
from serving.redis.turn import CommandRefused, RedisUnavailable
from tests.clusters import SLOTS, Server, addresses, cluster_of, redis_cluster, until

TIMEOUT = 2.0
SECONDS_TO_RECOVER = 10
ENDS = (SLOTS // 2, SLOTS)
KEYS = [f"key-{number}" for number in range(40)]
"""Some of them on either node; each holds its own name."""
ENDPOINTS = "cluster-preferred-endpoint-type"
NOWHERE = "1"
"""A port on which nobody listens."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two nodes; who kills one leaves it so."""
    with cluster_of(tmp_path_factory.mktemp("cluster"), *ENDS) as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: list[Server]) -> list[Server]:
    """Two nodes that run, with all keys."""
    for node in cluster:
        node.start()
    until(lambda: filled(cluster))
    return cluster


def filled(nodes: list[Server]) -> bool:
    with closing(connect(f"redis+cluster://{addresses(nodes)}")) as client:
        assert isinstance(client, RedisCluster)
        for key in KEYS:
            client.set(key, key)
    return True


def is_on_the_first(key: str) -> bool:
    return bool(key_slot(key.encode()) < ENDS[0])


async def read(reads: RedisReads, *keys: str) -> list[str | None]:
    """What the keys hold, asked for at once by as many readers."""
    found = await asyncio.gather(*(reads.read([("GET", key)]) for key in keys))
    return [value and value.decode() for (value,) in found]


def counted(series: str) -> float:
    metrics.flush()
    return REGISTRY.get_sample_value(series) or 0.0


def test_all_reads_of_a_turn_are_counted_in_one_round_trip(nodes: list[Server]):
    of_reads, of_seconds = "recsys_redis_reads_per_round_trip", "recsys_redis_round_trip_seconds"
    series = [f"{of_reads}_sum", f"{of_reads}_count", f"{of_seconds}_count"]

    async def scenario(url: str) -> list[float]:
        async with RedisReads(url, TIMEOUT) as reads:
            await read(reads, *KEYS[:2])
            before = [counted(each) for each in series]
            assert await read(reads, *KEYS) == KEYS
            return [counted(each) - old for each, old in zip(series, before, strict=True)]

    assert {is_on_the_first(key) for key in KEYS} == {True, False}
    assert asyncio.run(scenario(nodes[0].url)) == [len(KEYS), 1, 1]


def test_a_node_without_an_endpoint_is_where_the_one_asked_is(nodes: list[Server]):
    moving = next(key for key in KEYS if is_on_the_first(key))
    with nodes[0].client() as first, nodes[1].client() as second:
        first_id, second_id = (each.execute_command("CLUSTER MYID") for each in (first, second))

        def give(node_id: str) -> None:
            for client in (first, second):
                client.execute_command(
                    "CLUSTER SETSLOT", key_slot(moving.encode()), "NODE", node_id
                )

        async def scenario() -> None:
            async with RedisReads(nodes[0].url, TIMEOUT) as reads:
                assert await read(reads, *KEYS) == KEYS
                first.delete(moving)
                give(second_id)
                second.set(moving, "moved")
                assert await read(reads, moving) == ["moved"]

        for client in (first, second):
            client.config_set(ENDPOINTS, "unknown-endpoint")
        try:
            asyncio.run(scenario())
        finally:
            second.delete(moving)
            give(first_id)
            for client in (first, second):
                client.config_set(ENDPOINTS, "ip")


def test_the_node_named_first_tells_where_all_are_whose_addresses_change(tmp_path: Path):
    async def scenario(url: str, admin: redis.Redis) -> None:
        async with RedisReads(url, TIMEOUT) as reads:
            with pytest.raises(RedisUnavailable):
                await read(reads, "a")
            admin.config_set("cluster-announce-port", 0)  # the one that it listens on
            async with asyncio.timeout(SECONDS_TO_RECOVER):
                while True:
                    try:
                        assert await read(reads, "a") == ["1"]
                        break
                    except RedisUnavailable:
                        await asyncio.sleep(0.02)

    with redis_cluster(tmp_path) as url, closing(redis.Redis.from_url(url)) as admin:
        admin.set("a", 1)
        admin.config_set("cluster-announce-port", NOWHERE)
        asyncio.run(scenario(url, admin))


def test_a_slot_that_no_node_has_is_asked_for_where_the_url_leads(tmp_path: Path):
    def give(how: str) -> None:
        admin.execute_command(f"CLUSTER {how}", key_slot(b"a"))

    async def scenario(url: str) -> None:
        async with RedisReads(url, TIMEOUT) as reads:
            with pytest.raises(CommandRefused, match="CLUSTERDOWN"):
                await read(reads, "a")
            give("ADDSLOTS")
            assert await read(reads, "a") == [None]

    with redis_cluster(tmp_path) as url, closing(redis.Redis.from_url(url)) as admin:
        admin.config_set("cluster-require-full-coverage", "no")
        give("DELSLOTS")
        asyncio.run(scenario(url))


def test_the_breaker_is_that_of_the_node_that_is_worst_off(nodes: list[Server]):
    async def becomes(reads: RedisReads, *states: str) -> None:
        async with asyncio.timeout(SECONDS_TO_RECOVER):
            while reads.state not in states:
                await asyncio.sleep(0.005)

    async def scenario() -> None:
        async with RedisReads(nodes[0].url, TIMEOUT) as reads:
            assert await read(reads, *KEYS) == KEYS
            assert reads.state == "closed"
            nodes[1].kill()
            await becomes(reads, "open", "half-open")
            assert await read(reads, *filter(is_on_the_first, KEYS))
            nodes[1].start()
            await becomes(reads, "closed")

    asyncio.run(scenario())
