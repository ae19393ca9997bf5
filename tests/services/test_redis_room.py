"""The memory that a publication will take, beside what a real Redis says it took."""

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.local.redis import RedisServer
from recsys_assets.publish.redis_room import (
    Limits,
    Room,
    Value,
    allocated,
    bytes_of,
    bytes_per_key,
    room_for,
    shortened,
)
from recsys_assets.publish.redis_writer import (
    Client,
    Edition,
    RedisUnavailableError,
    connect,
    publish,
    write,
)
from serving.contract import (
    Family,
    Pairing,
    ScoredProduct,
    TopBuys,
    decode_top_buys,
    encode_also,
    encode_top_buys,
)
from tests.clusters import redis_cluster

NOW = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)
EDITION = Edition("v1", NOW, None)
KEYS = 2000


def users(length: int, keys: int = KEYS) -> list[tuple[str, Value]]:
    """Lists of users as they are published, of products with seven digits."""
    chance = random.Random(length)

    def top_buys() -> bytes:
        products = [
            ScoredProduct(chance.randrange(10**6, 10**7), round(chance.random(), 6))
            for _ in range(length)
        ]
        return encode_top_buys(
            TopBuys(
                source="personal",
                model_version="v1",
                generated_at=NOW,
                orders_through=None,
                products=products,
            )
        )

    return [(f"user:{number}:top_buys", top_buys()) for number in range(keys)]


def products(length: int, name: str = "{}", keys: int = KEYS) -> list[tuple[str, Value]]:
    """Sorted sets of products, whose ids are numbers put into ``name``."""
    chance = random.Random(length)
    return [
        (
            f"product:{number}:bought_together",
            {
                name.format(product): round(chance.random() * 10, 6)
                for product in chance.sample(range(10**6, 10**7), length)
            },
        )
        for number in range(keys)
    ]


def hashes(fields: int, pairings: int, name: str = "{}", keys: int = KEYS) -> list[tuple[str, Any]]:
    """What products lead to with ``fields`` others, whose ids are numbers put into ``name``."""
    chance = random.Random(fields)

    def also() -> bytes:
        numbers = (chance.randrange(10**6, 10**7) for _ in range(pairings))
        return encode_also([Pairing(number, round(chance.random(), 6)) for number in numbers])

    return [
        (
            f"product:{number}:bought_together_also",
            {name.format(other): also() for other in chance.sample(range(10**6, 10**7), fields)},
        )
        for number in range(keys)
    ]


def family_of(items: list[tuple[str, Value]]) -> Family:
    return Family.USER_TOP_BUYS if isinstance(items[0][1], bytes) else Family.BOUGHT_TOGETHER


def used_memory(client: Client) -> int:
    return int(client.info("memory")["used_memory"])


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with closing(connect(redis_url)) as client:
        yield client


@contextmanager
def limited(folder: Path, megabytes: int, policy: str = "noeviction") -> Iterator[Client]:
    """A Redis that has so much memory beyond what it needs itself."""
    server = RedisServer(folder, options={"maxmemory-policy": policy})
    with server.in_use(), closing(connect(server.url)) as client:
        client.config_set("maxmemory", used_memory(client) + megabytes * 10**6)
        yield client


# --- The estimate


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(users(1, keys=20_000), id="lists of 1"),
        pytest.param(users(5, keys=20_000), id="lists of 5"),
        pytest.param(users(30), id="lists of 30"),
        pytest.param(users(100), id="lists of 100"),
        pytest.param(products(1, keys=20_000), id="sets of 1"),
        pytest.param(products(5, keys=20_000), id="sets of 5"),
        pytest.param(products(50), id="sets of 50"),
        pytest.param(products(200), id="sets of 200"),
        pytest.param(products(50, "{}-0b5f3c1e-7c3e-4a52-9d7b-0d2f0c"), id="sets of uuids"),
        pytest.param(products(200, "{}-0b5f3c1e-7c3e-4a52-9d7b-0d2f0c"), id="long sets of uuids"),
        pytest.param(products(5, "x" * 70 + "{}"), id="sets of long ids"),
        pytest.param(products(50, "{}0000000000000"), id="sets of ids of 20 digits"),
    ],
)
def test_the_memory_of_a_publication_is_known_before(
    client: Client, items: list[tuple[str, Value]]
) -> None:
    sample = items[::20]
    before = used_memory(client)
    room = room_for(client, family_of(items), sample, len(items), 100)
    write(client, family_of(items), items)
    took = used_memory(client) - before
    assert room.needed == pytest.approx(took, rel=0.1)
    usage = np.mean([client.memory_usage(key, samples=0) for key, _ in sample])
    assert bytes_per_key(sample) == pytest.approx(float(usage) + 16, rel=0.1)


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(hashes(1, 1, keys=20_000), id="hashes of 1"),
        pytest.param(hashes(1, 10), id="hashes of 1 with 10"),
        pytest.param(hashes(4, 3, keys=20_000), id="hashes of 4"),
        pytest.param(hashes(9, 10), id="hashes of 9 with 10"),
        pytest.param(hashes(100, 1), id="hashes of 100"),
        pytest.param(hashes(600, 1, keys=200), id="hashes of 600"),
        pytest.param(hashes(20, 2, "{}-0b5f3c1e-7c3e-4a52-9d7b-0d2f0c"), id="hashes of uuids"),
        pytest.param(hashes(5, 1, "x" * 70 + "{}"), id="hashes of long ids"),
    ],
)
def test_the_memory_of_hashes_is_known_before(client: Client, items: list[tuple[str, Any]]) -> None:
    before = used_memory(client)
    write(client, Family.BOUGHT_TOGETHER_ALSO, items)
    took = used_memory(client) - before
    sample = items[::20]
    assert len(items) * bytes_per_key(sample) == pytest.approx(took, rel=0.1)
    usage = np.mean([client.memory_usage(key, samples=0) for key, _ in sample])
    assert bytes_per_key(sample) == pytest.approx(float(usage) + 16, rel=0.1)


@pytest.mark.parametrize("member", ["0", "127", "128", "-1", "-4097", "40000", "3000000000", "-0"])
@pytest.mark.parametrize("score", [0, 3.0, -2.5, 1e17, 0.1234567890123])
def test_members_and_scores_of_every_encoding(client: Client, member: str, score: float) -> None:
    members = {member: score} | {f"{member}{number:03}": score + number for number in range(20)}
    key = "product:1:bought_together"
    write(client, Family.BOUGHT_TOGETHER, [(key, members)])
    assert bytes_of(key, members) - 16 == pytest.approx(client.memory_usage(key), abs=64)


def test_the_limits_of_the_server_count(client: Client) -> None:
    items = products(50)
    client.config_set("zset-max-listpack-entries", 20)
    try:
        room = room_for(client, Family.BOUGHT_TOGETHER, items[::20], KEYS, 50)
    finally:
        client.config_set("zset-max-listpack-entries", 128)
    assert room.bytes_per_key == pytest.approx(
        bytes_per_key(items[::20], Limits(entries=20)), abs=1
    )
    assert room.bytes_per_key > 3 * bytes_per_key(items[::20])


def test_the_limits_of_the_server_for_hashes_count(client: Client) -> None:
    lists, beside = products(1), hashes(20, 1)
    client.config_set("hash-max-listpack-entries", 10)
    try:
        room = room_for(client, Family.BOUGHT_TOGETHER, lists, KEYS, 1, beside=beside)
    finally:
        client.config_set("hash-max-listpack-entries", 512)
    both = bytes_per_key(lists) + bytes_per_key(beside, Limits(fields=10))
    assert room.bytes_per_key == pytest.approx(both, abs=1)
    assert both > bytes_per_key(lists) + 1.5 * bytes_per_key(beside)


@given(st.integers(1, 10**9))
def test_the_allocator_rounds_up_by_a_quarter_at_most(size: int) -> None:
    assert size <= allocated(size) <= max(size + 7, size * 1.25)
    assert allocated(allocated(size)) == allocated(size)


def test_the_classes_of_the_allocator() -> None:
    sizes = [1, 8, 9, 64, 65, 128, 129, 160, 161, 256, 257, 4096, 4097]
    classes = [8, 8, 16, 64, 80, 128, 160, 160, 192, 256, 320, 4096, 5120]
    assert [allocated(size) for size in sizes] == classes


def test_shorter_lists_keep_the_best() -> None:
    ((_, value),) = users(9, keys=1)
    assert isinstance(value, bytes)
    shorter = shortened(value, 4)
    assert isinstance(shorter, bytes)
    assert decode_top_buys(shorter).products == decode_top_buys(value).products[:4]
    assert shortened({"a": 1.0, "b": 3.0, "c": 2.0}, 2) == {"b": 3.0, "c": 2.0}


# --- The room


def test_a_republication_needs_no_more(client: Client) -> None:
    items = users(50)
    publish(client, Family.USER_TOP_BUYS, EDITION, items, np.arange(KEYS))
    room = room_for(client, Family.USER_TOP_BUYS, items[::20], KEYS, 50)
    assert abs(room.needed) < 0.01 * KEYS * room.bytes_per_key
    longer = room_for(client, Family.USER_TOP_BUYS, users(100)[::20], KEYS, 100)
    assert longer.needed == pytest.approx(KEYS * (longer.bytes_per_key - room.bytes_per_key), 0.1)


def test_lists_that_are_only_removed_afterwards_make_no_room(client: Client) -> None:
    items = users(50)
    publish(client, Family.USER_TOP_BUYS, EDITION, items, np.arange(KEYS))
    others = [(f"user:{number}x:top_buys", value) for number, (_, value) in enumerate(items)]
    room = room_for(client, Family.USER_TOP_BUYS, others[::20], KEYS, 50)
    assert room.needed == KEYS * room.bytes_per_key


def test_what_is_published_beside_the_lists_counts_with_them(tmp_path: Path) -> None:
    lists = users(20)
    beside = [(key.replace(":top_buys", ":beside"), b"x" * 700) for key, _ in lists]
    family = Family.USER_TOP_BUYS
    with limited(tmp_path / "redis", 2) as client:
        room = room_for(client, family, lists[::20], KEYS, 20, beside=beside[::20])
        assert not room.fits
        alone = room_for(client, family, lists[::20], KEYS, 20)
        assert room.bytes_per_key > alone.bytes_per_key + 700
        assert 0 < room.keys_that_fit < alone.keys_that_fit
        assert room.length_that_fits < alone.length_that_fits
        client.config_set("maxmemory", 0)
        write(client, family, [*lists, *beside])
        again = room_for(client, family, lists[::20], KEYS, 20, beside=beside[::20])
        assert abs(again.needed) < 0.02 * room.needed


def test_nothing_is_written(client: Client) -> None:
    changes = client.info("persistence")["rdb_changes_since_last_save"]
    room_for(client, Family.USER_TOP_BUYS, users(10)[::20], KEYS, 10)
    room_for(client, Family.BOUGHT_TOGETHER, products(10)[::20], KEYS, 10)
    assert client.info("persistence")["rdb_changes_since_last_save"] == changes
    assert client.dbsize() == 0


@pytest.mark.parametrize("items", [users(100), products(100)], ids=["users", "products"])
def test_as_many_keys_fit_as_it_says(tmp_path: Path, items: list[tuple[str, Value]]) -> None:
    with limited(tmp_path / "redis", 2) as client:
        family, sample = family_of(items), items[::20]
        room = room_for(client, family, sample, KEYS, 100)
        assert not room.fits
        assert 100 < room.keys_that_fit < KEYS
        with pytest.raises(RedisUnavailableError, match=r"used memory.*Raise its maxmemory"):
            write(client, family, items)
        assert client.dbsize() == pytest.approx(room.keys_that_fit, rel=0.1)


def test_lists_as_long_as_it_says_fit(tmp_path: Path) -> None:
    with limited(tmp_path / "redis", 4) as client:
        room = room_for(client, Family.USER_TOP_BUYS, users(100)[::20], KEYS, 100)
        assert 10 < room.length_that_fits < 90
        for length, fit in [(room.length_that_fits, True), (room.length_that_fits + 1, False)]:
            cut = [(key, shortened(value, length)) for key, value in users(100)]
            assert room_for(client, Family.USER_TOP_BUYS, cut[::20], KEYS, length).fits is fit
        shorter = [(key, shortened(value, room.length_that_fits - 3)) for key, value in users(100)]
        assert write(client, Family.USER_TOP_BUYS, shorter) == KEYS


def test_no_room_at_all(tmp_path: Path) -> None:
    with limited(tmp_path / "redis", 0) as client:
        client.config_set("maxmemory", 1000)
        room = room_for(client, Family.USER_TOP_BUYS, users(9)[::20], KEYS, 9)
        assert (room.free, room.keys_that_fit, room.length_that_fits) == (0, 0, 0)


def test_an_empty_publication_fits(client: Client) -> None:
    room = room_for(client, Family.USER_TOP_BUYS, [], 0, 100)
    assert room.fits
    assert room.needed == room.keys_that_fit == 0


def test_eviction_is_told(tmp_path: Path) -> None:
    with limited(tmp_path / "redis", 2, "allkeys-lru") as client:
        room = room_for(client, Family.USER_TOP_BUYS, users(100)[::20], KEYS, 100)
        assert not room.fits
        assert "Redis would evict keys, by its maxmemory-policy allkeys-lru" in str(room)


def test_a_cluster_has_room_as_well(tmp_path: Path) -> None:
    with redis_cluster(tmp_path / "redis") as url, closing(connect(url)) as client:
        room = room_for(client, Family.USER_TOP_BUYS, users(10)[::20], KEYS, 10)
        assert room.fits
        assert room.maxmemory_policy is None
        assert room.free > 10**8


def test_an_administrator_may_hide_the_limits(client: Client, redis_server: RedisServer) -> None:
    client.acl_setuser("shop", enabled=True, nopass=True, keys="*", commands=["+@all", "-config"])
    try:
        with closing(connect(f"{redis_server.url}?username=shop&password=any")) as shop:
            assert room_for(shop, Family.BOUGHT_TOGETHER, products(5)[::20], KEYS, 5).fits
    finally:
        client.acl_deluser("shop")


# --- What people read


def room(**changes: Any) -> Room:
    values: dict[str, Any] = {
        "family": Family.USER_TOP_BUYS,
        "keys": 100_000,
        "length": 100,
        "bytes_per_key": 8_120,
        "needed": 812_000_000,
        "free": 300_000_000,
        "keys_that_fit": 36_945,
        "length_that_fits": 40,
        "maxmemory_policy": "noeviction",
    }
    return Room(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "needs 812 MB more, Redis has 300 MB: 36,945 of 100,000 users fit, or lists of 40"
            " products instead of 100; raise maxmemory or lower the length",
        ),
        (
            {"length_that_fits": 0, "family": Family.BOUGHT_TOGETHER, "free": 1_250_000},
            "needs 812 MB more, Redis has 1.2 MB: 36,945 of 100,000 products fit; raise maxmemory"
            " or lower the length",
        ),
        (
            {"maxmemory_policy": None},
            "needs 812 MB more, the machine of Redis has 300 MB: 36,945 of 100,000 users fit,"
            " or lists of 40 products instead of 100; give the machine more memory or lower the"
            " length",
        ),
        ({"needed": -5}, "needs 0.0 MB more, Redis has 300 MB: all 100,000 users fit"),
    ],
)
def test_the_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert str(room(**changes)) == sentence
