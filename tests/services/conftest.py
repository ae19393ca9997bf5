"""The API in the test's process over a real Redis; sessions with shops whose orders are counted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
import redis
from litestar import Litestar
from litestar.testing import TestClient

from recsys_assets.database import connect
from recsys_assets.shop_session import ShopSession
from serving.app import create_app
from serving.settings import ServingSettings
from tests.publications import Open, Publishing, order, publishing, refreshed, shop_session
from tests.published import Publisher
from tests.shops import Order, add_orders, create_shop


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


@pytest.fixture
def id_type() -> str:
    """The type of the shop's ids, which tests may set."""
    return "bigint"


@pytest.fixture
def shop(database_url: str, redis_url: str, tmp_path: Path, id_type: str) -> Iterator[Publishing]:
    """Users 1 to 6 with an order each, of products that their neighbours have as well."""
    with closing(connect(database_url)) as connection:
        create_shop(connection, [order(n) for n in range(1, 7)], id_type=id_type)
    with publishing(database_url, redis_url, tmp_path) as shop:
        shop.refresh()
        shop.train()
        yield shop


@pytest.fixture
def come(database_url: str) -> Iterator[Callable[..., None]]:
    """Orders come in."""
    with closing(connect(database_url)) as connection:
        yield lambda *orders: add_orders(connection, orders)
