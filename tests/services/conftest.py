"""The API in the test's process over a real Redis; sessions with shops whose orders are counted."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import psycopg
import pytest
import redis
from litestar import Litestar
from litestar.testing import TestClient

from recsys_assets.shop_session import ShopSession
from serving.app import create_app
from serving.settings import ServingSettings
from tests.publications import Open, refreshed, shop_session
from tests.published import Publisher
from tests.shops import Order, create_shop


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


@pytest.fixture
def open_shop(database_url: str) -> Iterator[Open]:
    """Opens a shop of these orders, all of them counted."""
    with ExitStack() as stack:

        def opened(orders: Sequence[Order], *, id_type: str = "bigint") -> ShopSession:
            with closing(psycopg.connect(database_url)) as connection:
                create_shop(connection, orders, id_type=id_type)
            return refreshed(stack.enter_context(shop_session(database_url)))

        yield opened


@pytest.fixture
def sample(small_sample_database_url: str) -> Iterator[ShopSession]:
    """200 households of the sample shop, all of their orders counted."""
    with shop_session(small_sample_database_url) as session:
        yield refreshed(session)
