"""Mass writes: what is sent, and what a refusing, moving or ending Redis leaves of it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.local.redis import RedisServer
from recsys_assets.publish.redis_client import Client, RedisUnavailableError, connect
from recsys_assets.publish.redis_pipe import (
    BATCH,
    BATCH_BYTES,
    Write,
    batched,
    hash_write,
    in_batches,
    set_write,
    sorted_set_write,
    string_write,
    write_all,
)
from tests.clusters import redis_cluster

NUMBER = 300


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with closing(connect(redis_url)) as client:
        yield client


def strings(value: str, number: int = NUMBER) -> list[Write]:
    return [string_write(f"string:{n}", f"{value} {n}".encode()) for n in range(number)]


def sorted_sets(score: float, number: int = NUMBER) -> list[Write]:
    return [sorted_set_write(f"set:{n}", {"a": score, "b": score + n}) for n in range(number)]


def assert_written(client: Client, value: str, score: float, number: int = NUMBER) -> None:
    for n in range(number):
        assert client.get(f"string:{n}") == f"{value} {n}".encode()
        members = client.zrange(f"set:{n}", 0, -1, withscores=True)
        assert [tuple(member) for member in members] == [(b"a", score), (b"b", score + n)]


# --- What is sent


@given(st.text(), st.binary())
def test_a_string_is_packed_as_the_client_does(key: str, value: bytes) -> None:
    assert string_write(key, value) == Write(key, packed(("SET", key, value)), 1)


@given(st.text(), st.dictionaries(st.text(), st.floats(allow_nan=False), min_size=1))
def test_a_sorted_set_is_packed_as_the_client_does(key: str, members: dict[str, float]) -> None:
    flat = [word for member, score in members.items() for word in (score, member)]
    commands = [("MULTI",), ("DEL", key), ("ZADD", key, *flat), ("EXEC",)]
    assert sorted_set_write(key, members) == Write(key, packed(*commands), 4)


def packed(*commands: tuple[Any, ...]) -> bytes:
    return b"".join(redis.Connection().pack_commands(commands))


def test_batches_are_bounded_by_number_and_size() -> None:
    small, large = Write("small", b"x", 1), Write("large", b"x" * (BATCH_BYTES // 2), 1)
    batches = list(in_batches([small] * (BATCH + 1) + [large] * 3))
    assert batches == [[small] * BATCH, [small, large, large], [large]]
    assert list(in_batches([])) == []


def test_batches_of_anything() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []


def test_a_value_may_be_larger_than_a_batch(client: Client) -> None:
    value = b"\r\n" * BATCH_BYTES
    assert write_all(client, [string_write("a", value), string_write("b", b"")]) == 2
    assert (client.get("a"), client.get("b")) == (value, b"")


# --- What Redis refuses


def test_the_first_refusal_ends_the_work(client: Client, redis_url: str) -> None:
    client.acl_setuser("shop", enabled=True, nopass=True, keys=["string:1*"], commands=["+@all"])
    told: list[int] = []
    try:
        with (
            closing(connect(f"{redis_url}?username=shop&password=any")) as shop,
            pytest.raises(
                RedisUnavailableError,
                match=r"Redis did not write string:0: .*permissions.* RECSYS_REDIS_URL names\.$",
            ),
        ):
            write_all(shop, strings("v"), told.append)
    finally:
        client.acl_deluser("shop")
    assert told == []


def test_the_cause_of_an_aborted_transaction_is_told(client: Client) -> None:
    client.zadd("set:0", {"old": 1})
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory", used // 2)
    try:
        with pytest.raises(RedisUnavailableError, match=r"set:0: .*maxmemory.* shorter lists"):
            write_all(client, sorted_sets(1))
    finally:
        client.config_set("maxmemory", 0)
    assert client.zrange("set:0", 0, -1) == [b"old"]
    assert write_all(client, sorted_sets(1)) == NUMBER, "no reply is left over"


def test_a_replica_is_told_from_a_primary(client: Client) -> None:
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(RedisUnavailableError, match="lead to the primary"):
            write_all(client, strings("v"))
    finally:
        client.replicaof("NO", "ONE")


def test_a_member_that_cannot_be_is_refused_with_its_key(client: Client) -> None:
    writes = [sorted_set_write("good", {"a": 1.0}), sorted_set_write("bad", {"a": float("nan")})]
    with pytest.raises(RedisUnavailableError, match=r"did not write bad: .*not a valid float"):
        write_all(client, writes)
    assert client.zrange("good", 0, -1) == [b"a"]


def test_hashes_and_sets_are_replaced_as_wholes(client: Client) -> None:
    client.hset("hash", mapping={"gone": "1", "kept": "1"})
    client.sadd("set", "gone", "kept")
    client.sadd("emptied", "gone")
    fields = {"kept": b"2", "für:2": b'[["a", 1.5]]'}
    writes = [
        hash_write("hash", fields),
        set_write("set", {"kept", "Käse"}),
        set_write("emptied", ()),
        string_write("after", b"v"),
    ]
    assert write_all(client, writes) == len(writes)
    assert client.hgetall("hash") == {name.encode(): value for name, value in fields.items()}
    assert client.smembers("set") == {b"kept", "Käse".encode()}
    assert not client.exists("emptied")
    assert client.get("after") == b"v", "no reply is left over"


# --- What is sent again


def test_a_connection_that_breaks_is_no_matter(client: Client, redis_url: str) -> None:
    def writes() -> Iterator[Write]:
        for number, write in enumerate(strings("v", 4 * BATCH)):
            if number % BATCH == 7:
                for other in client.client_list(_type="normal"):
                    client.client_kill_filter(_id=other["id"], skipme=True)
            yield write

    with closing(connect(redis_url)) as killed:
        assert write_all(killed, writes()) == 4 * BATCH
    assert client.dbsize() == 4 * BATCH


def test_a_server_that_ends_is_told(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    with server.in_use() as url, closing(connect(url)) as client:
        assert write_all(client, strings("v")) == NUMBER
    with pytest.raises(RedisUnavailableError, match=r"did not write string:0: .* Check that it"):
        write_all(client, strings("w"))


# --- A cluster whose slots move


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[redis.Redis, redis.Redis]]:
    """A cluster of two nodes; the first has all slots."""
    with (
        redis_cluster(folder / "1") as first_url,
        redis_cluster(folder / "2", slots=False) as second_url,
        redis.Redis.from_url(first_url, decode_responses=True) as first,
        redis.Redis.from_url(second_url, decode_responses=True) as second,
    ):
        bus = second.config_get("cluster-port")["cluster-port"]
        first.execute_command("CLUSTER MEET", "127.0.0.1", urlsplit(second_url).port, bus)
        for node in (first, second):
            while (
                node.execute_command("CLUSTER INFO")["cluster_state"] != "ok"
                or "handshake" in str(node.execute_command("CLUSTER NODES"))
                or len(node.execute_command("CLUSTER NODES")) < 2
            ):
                pass
        yield first, second


def test_writes_follow_the_slots(tmp_path: Path) -> None:
    keys = [f"{kind}:{n}" for kind in ("string", "set") for n in range(NUMBER)]
    with two_nodes(tmp_path) as (first, second):
        second_id = second.execute_command("CLUSTER MYID")
        first_id = first.execute_command("CLUSTER MYID")
        url = f"redis://127.0.0.1:{first.connection_pool.connection_kwargs['port']}"
        with closing(connect(url)) as client:
            assert isinstance(client, redis.RedisCluster)
            write_all(client, [*strings("v"), *sorted_sets(1)])
            assert_written(client, "v", 1)
            assert second.dbsize() == 0
            first.flushall()
            slots = {client.keyslot(key) for key in keys}  # type: ignore[no-untyped-call]
            half = sorted(slots)[::2]
            for slot in half:  # the keys are created where the slot moves to: ASK
                second.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", first_id)
                first.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", second_id)
            write_all(client, [*strings("w"), *sorted_sets(2)])
            assert first.dbsize() + second.dbsize() == 2 * NUMBER
            assert second.dbsize() > NUMBER / 2
            for slot in half:  # and has moved: MOVED
                for node in (second, first):
                    node.execute_command("CLUSTER SETSLOT", slot, "NODE", second_id)
            write_all(client, [*strings("x"), *sorted_sets(3)])
            assert first.dbsize() + second.dbsize() == 2 * NUMBER
            assert_written(client, "x", 3)
