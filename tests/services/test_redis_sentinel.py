"""A primary that sentinels watch over, and what becomes of readers and writers when it fails."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from litestar.testing import TestClient

from recsys_assets.publish.redis_client import connect
from serving.app import create_app
from serving.redis.reads import RedisReads
from serving.settings import ServingSettings
from tests.clusters import Sentinels, sentinels_of, until
from tests.published import Publisher
from tests.wires import FakeRedis

FULL = os.environ.get("RECSYS_TEST_FAULTS") == "full"
TOP_BUYS = "/api/recommendations/top-buys?user_id=1"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """For all tests of this module; the last one kills."""
    with sentinels_of(tmp_path_factory.mktemp("sentinels")) as shop:
        yield shop


def published(client: Any, product_id: int) -> bool:
    """Whether a list of one product could be published, in the replica, too."""
    Publisher(client).top_buys(1, product_id)
    return bool(client.wait(1, 2000))


def products(client: TestClient[Any]) -> list[int]:
    response = client.get(TOP_BUYS)
    return [p["product_id"] for p in response.json().get("products", ())]


def test_sentinels_that_hang_are_passed(shop: Sentinels):
    silent = FakeRedis(lambda _: b"")
    at, slash, service = shop.url.rpartition("/")
    url = at.replace("://", f"://127.0.0.1:{silent.port},") + slash + service

    async def scenario() -> None:
        async with RedisReads(url, 2.0) as reads:
            assert await reads.read([("GET", "a")]) == [None]

    with silent.in_use():
        asyncio.run(scenario())


def test_a_service_that_no_sentinel_knows_is_told(shop: Sentinels):
    with pytest.raises(RuntimeError, match=r"No master .* RECSYS_REDIS_URL"):
        connect(shop.url.replace("/shop", "/other"))


def test_the_api_and_the_publisher_follow_the_primary(shop: Sentinels):
    app: Any = create_app(ServingSettings(redis_url=shop.url, redis_timeout_ms=1000))
    with closing(connect(shop.url)) as publisher, TestClient(app) as client:
        assert isinstance(publisher, redis.Redis)
        assert published(publisher, 11)
        assert products(client) == [11]

        shop.sentinels[0].kill()  # the others are the majority
        shop.primary.kill()
        with shop.replica.client() as replica:
            until(lambda: replica.info("replication")["role"] == "master")
        until(lambda: Publisher(publisher).top_buys(1, 22) is None)
        until(lambda: products(client) == [22])

        if not FULL:  # the sentinels take ten seconds for what follows
            return
        shop.primary.start()  # and is told to follow; who reads and writes stays with the other
        with shop.primary.client() as replica:
            until(lambda: replica.info("replication")["role"] == "slave")
        until(lambda: published(publisher, 33))
        assert products(client) == [33]
