"""Reads over the shared connection while its server, or the way to it, fails in every manner."""

import asyncio
import gc
import logging
import random
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis
from litestar.testing import TestClient

from serving.app import create_app
from serving.contract import ContractError
from serving.redis.reads import RedisReads
from serving.redis.turn import RedisUnavailable
from serving.settings import ServingSettings
from serving.store import RecommendationStore
from tests.clusters import Server
from tests.serving_processes import free_port
from tests.wires import NO_CLUSTER, NONE, PONG, FakeRedis, Proxy, Wire, healthy

TIMEOUT = 0.2
# What a read may take at most on a busy machine: the timeout and much scheduling.
BOUND = 2.0
LISTS = 200
TOP_BUYS = "/api/recommendations/top-buys"


@contextmanager
def bounded() -> Iterator[None]:
    """Does not take longer than the timeout and much scheduling."""
    start = monotonic()
    yield
    assert monotonic() - start < BOUND


async def state_becomes(reads: RedisReads, state: str) -> None:
    async with asyncio.timeout(10):
        while reads.state != state:
            await asyncio.sleep(0.005)


async def value(reads: RedisReads, number: int) -> bytes | None:
    """What is stored under a number; None when Redis is given up."""
    try:
        (found,) = await reads.read([("GET", f"list:{number}")])
    except RedisUnavailable:
        return None
    assert isinstance(found, bytes)
    return found


def right(number: int) -> bytes:
    """What is stored under a number: of a length of its own."""
    return b"%d;" % number * (1 + number % 50)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    """The way to a Redis with some lists."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.mset({f"list:{number}": right(number) for number in range(LISTS)})
    proxy = Proxy(redis_url.removeprefix("unix://"))
    with proxy.in_use():
        yield proxy


def assert_unavailable(response: Any) -> None:
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"


def test_nobody_gets_another_ones_list_while_the_connection_is_cut_anywhere(proxy: Proxy):
    chance = random.Random(1)
    proxy.pieces = lambda: chance.choice(
        [None, chance.randrange(40, 400), chance.randrange(20_000)]
    )

    numbers = range(LISTS)

    async def reader(reads: RedisReads, seed: int) -> list[bool]:
        own = random.Random(seed)
        answered = []
        while len(answered) < 100 or sum(answered) < 3:
            number = own.randrange(LISTS)
            found = await value(reads, number)
            assert found in (right(number), None)
            answered.append(found is not None)
            await asyncio.sleep(0 if found else 0.005)
        return answered

    async def cutter() -> None:
        while True:
            await asyncio.sleep(chance.random() / 50)
            proxy.cut()

    async def scenario() -> None:
        async with RedisReads(proxy.url, TIMEOUT) as reads:
            cuts = asyncio.create_task(cutter())
            async with asyncio.timeout(60):
                answered = await asyncio.gather(*(reader(reads, seed) for seed in range(40)))
            cuts.cancel()
            assert sum(map(sum, answered)) > 100
            proxy.pieces = lambda: None
            proxy.cut()
            async with asyncio.timeout(10):
                while None in (found := await asyncio.gather(*(value(reads, n) for n in numbers))):
                    await asyncio.sleep(0.01)  # the cut may not have been noticed yet
            assert found == [right(number) for number in numbers]

    asyncio.run(scenario())
    assert proxy.connections > 3


def test_readers_who_leave_disturb_nobody(proxy: Proxy):
    async def scenario() -> None:
        async with RedisReads(proxy.url, TIMEOUT) as reads:
            chance = random.Random(2)
            for _ in range(20):
                readers = [asyncio.create_task(value(reads, n)) for n in range(60)]
                leaving = chance.sample(range(60), 30)
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                for number in leaving:
                    readers[number].cancel()
                found = await asyncio.gather(*readers, return_exceptions=True)
                for number, each in enumerate(found):
                    if number not in leaving:
                        assert each == right(number)
                    else:
                        assert isinstance(each, asyncio.CancelledError) or each == right(number)
            assert reads.state == "closed"

    asyncio.run(scenario())
    assert proxy.connections == 1


def test_the_reads_of_a_turn_are_one_round_trip(proxy: Proxy):
    async def scenario() -> None:
        async with RedisReads(proxy.url, BOUND) as reads:
            turns = set()

            async def read(number: int) -> bytes | None:
                turns.add(reads.turn())
                return await value(reads, number)

            found = await asyncio.gather(*(read(n % 10) for n in range(100)))
            assert found == [right(n % 10) for n in range(100)]
            assert len(turns) == 1

    asyncio.run(scenario())


def test_a_slow_way_is_given_up_and_found_again(proxy: Proxy):
    async def scenario() -> None:
        async with RedisReads(proxy.url, TIMEOUT) as reads:
            proxy.delay = TIMEOUT * 3
            with bounded():
                assert await asyncio.gather(*(value(reads, n) for n in range(50))) == [None] * 50
            assert reads.state != "closed"
            proxy.delay = 0.0
            await state_becomes(reads, "closed")
            assert await value(reads, 7) == right(7)

    asyncio.run(scenario())


def test_an_open_breaker_asks_nobody():
    fake = FakeRedis(lambda _: b"")  # answers the greeting and nothing else

    async def scenario() -> None:
        async with RedisReads(fake.url, TIMEOUT) as reads:
            assert await value(reads, 1) is None
            assert reads.state == "open"
            commands, connections = fake.commands, fake.connections
            with bounded():
                for _ in range(2000):
                    assert await value(reads, 1) is None  # without giving the loop a turn
            assert (fake.commands, fake.connections) == (commands, connections)

    with fake.in_use():
        asyncio.run(scenario())


FAILURES = {
    "silence": lambda _: b"",
    "half a reply, then silence": lambda _: b"$100\r\nabc",
    "garbage": lambda _: b"\xff\x00HTTP/1.1 400\r\n",
    "too many replies": lambda _: NONE * 50 + PONG,
    "closing": lambda _: None,
    "loading": lambda _: b"-LOADING Redis is loading the dataset in memory\r\n",
    "no login": lambda _: b"-NOAUTH Authentication required.\r\n",
    "a replica cut off": lambda _: b"-MASTERDOWN Link with MASTER is down\r\n",
    "read-only": lambda _: b"-READONLY You can't write against a read only replica.\r\n",
    "a reply of another kind": lambda name: NONE if name == b"SCARD" else b"*0\r\n",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_api_outlives_every_failure(failure: str):
    """503 in bounded time, and 200 without a restart once it is over."""
    fake = FakeRedis(healthy)
    settings = ServingSettings(redis_url=fake.url, redis_timeout_ms=int(TIMEOUT * 1000))
    app: Any = create_app(settings)
    with fake.in_use(), TestClient(app) as client:
        assert client.get(TOP_BUYS).status_code == 200
        fake.reply = FAILURES[failure]
        for path in [TOP_BUYS, f"{TOP_BUYS}?user_id=1", f"{TOP_BUYS}?explain=true"]:
            with bounded():
                assert_unavailable(client.get(path))
        assert client.get("/health/live").status_code == 200
        fake.reply = healthy
        with bounded():
            while client.get(TOP_BUYS).status_code == 503:
                pass
        assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("failure", FAILURES)
def test_nothing_grows_while_it_fails(failure: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.CRITICAL)  # pytest keeps what is logged
    fake = FakeRedis(FAILURES[failure])

    async def failed(reads: RedisReads) -> None:
        with pytest.raises((RedisUnavailable, ContractError)):
            await RecommendationStore(reads).guest_top_buys()

    async def round_of_failures(reads: RedisReads) -> None:
        for _ in range(20):
            await asyncio.gather(*(failed(reads) for _ in range(50)))
            await asyncio.sleep(0.002)

    async def scenario() -> None:
        async with RedisReads(fake.url, 0.02) as reads:
            await round_of_failures(reads)
            tasks = len(asyncio.all_tasks())
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(5):
                await round_of_failures(reads)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
            assert after - before < 500_000  # of 5,000 failures
            assert len(asyncio.all_tasks()) <= tasks

    with fake.in_use():
        try:
            asyncio.run(scenario())
        finally:
            tracemalloc.stop()


def test_a_server_that_closes_after_each_reply_is_not_besieged():
    """Every connection that is made has been worth it: one reply, or a pause before the next."""
    fake = OneReply()

    async def scenario() -> None:
        async with RedisReads(fake.url, TIMEOUT) as reads:
            for number in range(30):
                with suppress(RedisUnavailable):
                    assert await reads.read([("GET", f"list:{number}")]) == [None]
                await asyncio.sleep(0.01)
            before = fake.connections
            await asyncio.sleep(0.3)  # nobody reads
            assert fake.connections - before <= 4

    with fake.in_use():
        asyncio.run(scenario())
    assert fake.connections < 30 * 3


class OneReply(FakeRedis):
    """Closes each connection after the first reply that is not of the greeting."""

    def __init__(self) -> None:
        super().__init__(healthy)

    def serve(self, client: socket.socket) -> None:
        done = False

        def replied(name: bytes) -> bytes | None:
            nonlocal done
            if done:
                return None
            done = name not in (b"PING", b"CLUSTER")
            return super(OneReply, self)._answer(name)

        self._answer = replied  # type: ignore[method-assign]
        super().serve(client)


class Closing(Wire):
    """Closes after the greeting."""

    def serve(self, client: socket.socket) -> None:
        client.recv(65_536)
        client.sendall(PONG + NO_CLUSTER)


def test_a_server_that_closes_after_the_greeting_is_not_besieged():
    wire = Closing()

    async def scenario() -> None:
        async with RedisReads(wire.url, TIMEOUT) as reads:
            await asyncio.sleep(0.5)
            with pytest.raises(RedisUnavailable):
                await reads.read([("GET", "a")])

    with wire.in_use():
        asyncio.run(scenario())
    assert wire.connections < 12  # pauses of 50, 100, 200, ... ms in between


def test_too_many_clients_are_unavailable(redis_url: str):
    with closing(redis.Redis.from_url(redis_url)) as admin:
        admin.ping()
        most = admin.config_get("maxclients")["maxclients"]
        admin.config_set("maxclients", len(admin.client_list()))
        try:

            async def scenario() -> None:
                async with RedisReads(redis_url, TIMEOUT) as reads:
                    with pytest.raises(RedisUnavailable, match=r"max number of clients|pipe|reset"):
                        await reads.read([("GET", "a")])
                    admin.config_set("maxclients", most)
                    await state_becomes(reads, "closed")
                    assert await reads.read([("GET", "a")]) == [None]

            asyncio.run(scenario())
        finally:
            admin.config_set("maxclients", most)


def test_a_port_without_a_server_is_unavailable_until_there_is_one(tmp_path: Path):
    server = Server(tmp_path / "redis", free_port())

    async def scenario() -> None:
        async with RedisReads(server.url, TIMEOUT) as reads:
            with pytest.raises(RedisUnavailable, match=r"[Cc]onnect"):
                await reads.read([("GET", "a")])
            assert reads.state in {"open", "half-open"}
            server.start()
            await state_becomes(reads, "closed")
            assert await reads.read([("GET", "a")]) == [None]

    try:
        asyncio.run(scenario())
    finally:
        server.kill()


def test_reads_of_one_that_has_ended_fail(redis_url: str):
    async def scenario() -> None:
        async with RedisReads(redis_url, TIMEOUT) as reads:
            pass
        with pytest.raises(RedisUnavailable, match="ends"):
            await reads.read([("GET", "a")])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
