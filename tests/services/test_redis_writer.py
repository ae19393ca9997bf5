"""Publication to a real Redis and a real Redis Cluster, read by others while it happens."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import numpy as np
import pytest
import redis

from recsys_assets.learn.matrix import Ids
from recsys_assets.publish.redis_writer import (
    BATCH,
    Client,
    Edition,
    NotPublishedError,
    Published,
    connect,
    finish,
    publish,
    publish_some,
    write,
)
from serving.contract import (
    Family,
    Pairing,
    ScoredProduct,
    TopBuys,
    encode_pairings,
    encode_top_buys,
)
from tests.clusters import redis_cluster

GENERATED = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)
THROUGH = datetime(2025, 3, 1, 2, 59, tzinfo=UTC)


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the running cluster of this session."""
    with redis_cluster(tmp_path_factory.mktemp("cluster", numbered=False)) as url:
        yield url


@pytest.fixture(params=["single", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty Redis, then an empty Redis Cluster."""
    if request.param == "single":
        return str(request.getfixturevalue("redis_url"))
    url = str(request.getfixturevalue("cluster_url"))
    with redis.Redis.from_url(url) as node:
        node.flushall()
    return url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with closing(connect(url)) as client:
        yield client


def integers(*ids: int) -> Ids:
    return np.array(ids, np.int64)


def text(*ids: str) -> Ids:
    return np.array(ids, object)


def top_buys(source: Any, version: str, length: int = 3) -> bytes:
    products = [ScoredProduct(number, 1 / number) for number in range(1, length + 1)]
    return encode_top_buys(
        TopBuys(
            source=source,
            model_version=version,
            generated_at=GENERATED,
            orders_through=THROUGH,
            products=products,
        )
    )


def publish_users(client: Client, ids: Ids, version: str = "v1", **options: Any) -> Published:
    items = ((f"user:{i}:top_buys", top_buys("personal", version)) for i in ids.tolist())
    edition = Edition(version, GENERATED, THROUGH)
    return publish(client, Family.USER_TOP_BUYS, edition, items, ids, **options)


def publish_products(
    client: Client, ids: Ids, version: str = "v1", *, strength: float = 2.5, length: int = 2
) -> Published:
    members = encode_pairings(Pairing(100 + n, strength + n) for n in range(length))
    items = ((f"product:{i}:bought_together", members) for i in ids.tolist())
    edition = Edition(version, GENERATED, THROUGH)
    return publish(client, Family.BOUGHT_TOGETHER, edition, items, ids)


def publish_guests(client: Client, version: str = "v1") -> Published:
    items = [("global:top_buys", top_buys("global", version))]
    edition = Edition(version, GENERATED, None)
    return publish(client, Family.GLOBAL_TOP_BUYS, edition, items, integers(1, 2, 3))


def record(client: Client, family: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(client.get(f"publication:{family}"))
    finished = datetime.fromisoformat(value.pop("finished_at"))
    assert abs((datetime.now(UTC) - finished).total_seconds()) < 60
    return value


def keys(client: Client) -> list[str]:
    return sorted(key.decode() for key in client.scan_iter())


# --- What is written


def test_the_lists_of_users(client: Client) -> None:
    assert publish_users(client, integers(3, 7)) == Published(keys=2, removed=0)
    assert keys(client) == ["publication:user_top_buys", "user:3:top_buys", "user:7:top_buys"]
    assert client.get("user:7:top_buys") == top_buys("personal", "v1")
    assert client.ttl("user:7:top_buys") == -1
    assert record(client, "user_top_buys") == {
        "schema": 1,
        "family": "user_top_buys",
        "model_version": "v1",
        "generated_at": "2025-03-01T03:00:00Z",
        "orders_through": "2025-03-01T02:59:00Z",
        "keys": 2,
        "id_kind": "integer",
    }


def test_the_list_of_guests(client: Client) -> None:
    assert publish_guests(client) == Published(keys=1, removed=0)
    assert keys(client) == ["global:top_buys", "publication:global_top_buys"]
    assert client.get("global:top_buys") == top_buys("global", "v1")
    assert record(client, "global_top_buys")["keys"] == 1
    assert record(client, "global_top_buys")["orders_through"] is None


def test_the_lists_of_products(client: Client) -> None:
    assert publish_products(client, text("a b", "ü:1")) == Published(keys=2, removed=0)
    assert keys(client) == [
        "product:a b:bought_together",
        "product:ü:1:bought_together",
        "publication:bought_together",
    ]
    assert client.type("product:ü:1:bought_together") == b"zset"
    members = client.zrange("product:ü:1:bought_together", 0, -1, desc=True, withscores=True)
    assert [tuple(member) for member in members] == [(b"101", 3.5), (b"100", 2.5)]
    assert record(client, "bought_together")["id_kind"] == "text"


def test_a_sorted_set_is_replaced_and_not_added_to(client: Client) -> None:
    publish_products(client, integers(1), length=5)
    publish_products(client, integers(1), length=1, strength=9)
    members = client.zrange("product:1:bought_together", 0, -1, withscores=True)
    assert [tuple(member) for member in members] == [(b"100", 9)]


def test_more_keys_than_one_batch(client: Client) -> None:
    ids = integers(*range(2 * BATCH + 3))
    reports: list[int] = []
    assert publish_users(client, ids, progress=reports.append).keys == len(ids)
    assert reports == [BATCH, 2 * BATCH, 2 * BATCH + 3]
    publish_products(client, ids)
    assert len(keys(client)) == 2 * len(ids) + 2
    assert publish_products(client, ids[:1]).removed == len(ids) - 1


# --- What is removed


def test_keys_of_others_are_removed_and_no_more(client: Client) -> None:
    publish_users(client, integers(-5, 7, 8, 2**63 - 1))
    publish_products(client, integers(7, 8))
    publish_guests(client)
    client.set("user:7:profile", "the shop's own")
    assert publish_users(client, integers(8, 9, 2**63 - 1), "v2") == Published(3, removed=2)
    assert publish_products(client, integers(8)) == Published(1, removed=1)
    assert publish_guests(client).removed == 0
    assert [key for key in keys(client) if not key.startswith("publication")] == [
        "global:top_buys",
        "product:8:bought_together",
        "user:7:profile",
        "user:8:top_buys",
        "user:9223372036854775807:top_buys",
        "user:9:top_buys",
    ]


@pytest.mark.parametrize(
    "other", ["x", "007", "--5", "+7", "\u0667", "7:7", " 7", "9" * 19, "9" * 30, "-0", b"\xff"]
)
@pytest.mark.parametrize("ids", [integers(0, 7), text("0", "7")], ids=["integer", "text"])
def test_what_only_looks_like_an_id_is_removed(
    redis_url: str, other: str | bytes, ids: Ids
) -> None:
    with closing(connect(redis_url)) as client:
        raw = other if isinstance(other, bytes) else other.encode()
        client.set(b"user:" + raw + b":top_buys", "?")
        assert publish_users(client, ids) == Published(2, removed=1)
        assert keys(client) == ["publication:user_top_buys", "user:0:top_buys", "user:7:top_buys"]


def test_the_ids_may_change_their_kind(client: Client) -> None:
    publish_users(client, integers(1, 2))
    assert publish_users(client, text("1", "one")) == Published(2, removed=1)
    assert record(client, "user_top_buys")["id_kind"] == "text"


@pytest.mark.parametrize("none", [integers(), text()], ids=["integer", "text"])
def test_a_family_may_become_empty(client: Client, none: Ids) -> None:
    publish_users(client, integers(1, 2))
    publish_products(client, integers(1, 2))
    assert publish_users(client, none) == Published(0, removed=2)
    assert publish_products(client, none) == Published(0, removed=2)
    assert keys(client) == ["publication:bought_together", "publication:user_top_buys"]


# --- In parts


def test_users_may_be_written_in_chunks(client: Client) -> None:
    publish_users(client, integers(1, 2, 9))
    edition = Edition("v2", GENERATED, THROUGH)
    keys_written = 0
    for chunk in ([2, 3], [5], [7, 8]):
        items = [(f"user:{i}:top_buys", top_buys("personal", "v2")) for i in chunk]
        keys_written += write(client, Family.USER_TOP_BUYS, items)
        assert record(client, "user_top_buys")["model_version"] == "v1"
    ids = integers(2, 3, 5, 7, 8)
    published = finish(client, Family.USER_TOP_BUYS, edition, ids, keys_written)
    assert published == Published(5, removed=2)
    assert keys(client)[1:] == [f"user:{i}:top_buys" for i in (2, 3, 5, 7, 8)]
    assert record(client, "user_top_buys")["keys"] == 5


@pytest.mark.parametrize("kind", [integers, text], ids=["integer", "text"])
def test_some_users_are_renewed_and_the_others_left_alone(client: Client, kind: Any) -> None:
    all_ids = kind(1, 2, 3, 4) if kind is integers else kind("1", "2", "3", "4")
    publish_users(client, all_ids)
    client.set("user:99:profile", "the shop's own")
    later = datetime(2025, 3, 2, tzinfo=UTC)
    edition = Edition("v2", later, later)
    items = [(f"user:{i}:top_buys", top_buys("personal", "v2")) for i in (2, 7, 8)]
    gone = [4, 99, "no\nid"]
    published = publish_some(client, Family.USER_TOP_BUYS, edition, iter(items), gone)
    assert published == Published(keys=3, removed=1)
    versions = {i: "v2" if i in {2, 7, 8} else "v1" for i in (1, 2, 3, 7, 8)}
    assert keys(client)[1:] == sorted(
        [f"user:{i}:top_buys" for i in versions] + ["user:99:profile"]
    )
    for i, version in versions.items():
        assert client.get(f"user:{i}:top_buys") == top_buys("personal", version)
    assert record(client, "user_top_buys") == {
        "schema": 1,
        "family": "user_top_buys",
        "model_version": "v2",
        "generated_at": "2025-03-02T00:00:00Z",
        "orders_through": "2025-03-02T00:00:00Z",
        "keys": 5,
        "id_kind": "integer" if kind is integers else "text",
    }
    publish_some(client, Family.USER_TOP_BUYS, edition, [], [1, 1, 2])
    assert record(client, "user_top_buys")["keys"] == 3


def test_there_must_be_a_whole_before_a_part(client: Client) -> None:
    items = [("user:1:top_buys", top_buys("personal", "v1"))]
    with pytest.raises(NotPublishedError, match="materialize user_top_buys as a whole first"):
        publish_some(client, Family.USER_TOP_BUYS, Edition("v1", GENERATED, None), items, [1])
    assert keys(client) == []


# --- In which order


def commands(monitor: Any) -> list[str]:
    """The commands up to an ECHO, with their first arguments."""
    words = (command["command"].split(" ") for command in monitor.listen())
    return [" ".join(each[:2]) for each in takewhile(lambda each: each[0] != "ECHO", words)]


def test_new_keys_come_first_and_the_record_last(redis_url: str) -> None:
    with closing(connect(redis_url)) as client, redis.Redis.from_url(redis_url) as observer:
        publish_users(client, integers(1, 2))
        with observer.monitor() as monitor:
            publish_users(client, integers(2, 3), "v2")
            client.echo("that was all")
            assert commands(monitor) == [
                "SET user:2:top_buys",
                "SET user:3:top_buys",
                "SCAN 0",
                "UNLINK user:1:top_buys",
                "SET publication:user_top_buys",
            ]


def test_a_part_is_recorded_last(redis_url: str) -> None:
    with closing(connect(redis_url)) as client, redis.Redis.from_url(redis_url) as observer:
        publish_users(client, integers(1, 2))
        items = [("user:3:top_buys", top_buys("personal", "v2"))]
        with observer.monitor() as monitor:
            publish_some(client, Family.USER_TOP_BUYS, Edition("v2", GENERATED, None), items, [1])
            client.echo("that was all")
            assert commands(monitor) == [
                "GET publication:user_top_buys",
                "EXISTS user:3:top_buys",
                "SET user:3:top_buys",
                "UNLINK user:1:top_buys",
                "SET publication:user_top_buys",
            ]


def test_a_publication_that_fails_removes_nothing_and_keeps_the_record(client: Client) -> None:
    publish_users(client, integers(1, 2))

    def items() -> Iterator[tuple[str, bytes]]:
        for number in range(5, 5 + BATCH):
            yield f"user:{number}:top_buys", top_buys("personal", "v2")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish(client, Family.USER_TOP_BUYS, Edition("v2", GENERATED, None), items(), integers(5))
    assert record(client, "user_top_buys")["model_version"] == "v1"
    assert client.get("user:1:top_buys") == top_buys("personal", "v1")


# --- While others read


@contextmanager
def reading(url: str, look: Callable[[Client], object]) -> Iterator[set[object]]:
    """Look again and again, in a thread, while the block runs; yields what was seen."""
    seen: set[object] = set()
    stop = threading.Event()

    def read() -> None:
        with closing(connect(url)) as client:
            while not stop.is_set():
                seen.add(look(client))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        stop.set()
        reader.join()


def test_a_reader_sees_whole_lists_of_one_edition(client: Client, url: str) -> None:
    ids = integers(*range(1, 300))
    publish_users(client, ids, "v0")
    with reading(url, lambda reader: reader.get("user:150:top_buys")) as seen:
        for number in range(1, 15):
            publish_users(client, ids, f"v{number % 2}")
    assert seen == {top_buys("personal", "v0"), top_buys("personal", "v1")}


def test_a_reader_sees_whole_sorted_sets_of_one_edition(client: Client, url: str) -> None:
    def look(reader: Client) -> object:
        members = reader.zrange("product:5:bought_together", 0, -1, withscores=True)
        return len(members), members[0][1] if members else None

    ids = integers(*range(1, 10))
    long = 3000  # more than Redis reads from a connection at once: others get their turn between
    publish_products(client, ids, strength=2, length=long)
    with reading(url, look) as seen:
        for number in range(1, 15):
            publish_products(client, ids, strength=2 + number % 2, length=long + number % 2)
    assert seen == {(long, 2), (long + 1, 3)}
