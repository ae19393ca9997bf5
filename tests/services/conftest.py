"""The API in the test's process, over a real Redis, and what is published in it."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from litestar import Litestar
from litestar.testing import TestClient

from serving.app import create_app
from serving.settings import ServingSettings
from tests.published import Publisher


@pytest.fixture
def published(redis_url: str) -> Iterator[Publisher]:
    """Publishes to the Redis that ``api`` reads, which is empty at first."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        yield Publisher(client)


@pytest.fixture
def api(redis_url: str) -> Iterator[TestClient[Litestar]]:
    """A client of the API."""
    settings = ServingSettings(redis_url=redis_url, redis_timeout_ms=2000)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client
