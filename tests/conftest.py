"""Servers and shops for all tests: started once, a fresh database for each test.

Nothing is mocked: PostgreSQL and Redis are the embedded ones, in a temporary folder, and end with
the session.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count

import psycopg
import pytest
import redis
from psycopg import sql

from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from recsys_assets.local.sample_shop import load_sample

SMALL_SAMPLE_HOUSEHOLDS = 200

# Tests may lose their data with the machine; they need not wait for its disk.
FAST_POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
FAST_REDIS = {"appendfsync": "no"}

# A terminal's width that pytest was started in is not that of the commands tested.
os.environ.pop("COLUMNS", None)

# Tests with these markers are left out unless the variable has the value.
ASKED_FOR_BY = {
    "slow": ("RECSYS_TEST_SLOW", "1"),
    "browser": ("RECSYS_TEST_BROWSER", "1"),
    "full": ("RECSYS_TEST_FAULTS", "full"),
}

_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Know the markers of what takes long and is not run every time."""
    for marker, (variable, value) in ASKED_FOR_BY.items():
        config.addinivalue_line("markers", f"{marker}: only with {variable}={value}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked so, unless it is asked for."""
    markers = [
        m for m, (variable, value) in ASKED_FOR_BY.items() if os.environ.get(variable) != value
    ]
    left_out = [item for item in items if any(map(item.get_closest_marker, markers))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_developer() -> Iterator[None]:
    """The tests see the defaults, whatever the shell they were started from has set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("RECSYS_", "OTEL_"))]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The running server of this session; most tests want ``database_url`` instead."""
    folder = tmp_path_factory.mktemp("postgres", numbered=False)
    server = PostgresServer(folder, options=FAST_POSTGRES)
    with server.in_use():
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The running server of this session; most tests want ``redis_url`` instead."""
    server = RedisServer(tmp_path_factory.mktemp("redis", numbered=False), options=FAST_REDIS)
    with server.in_use():
        yield server


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    with _database(postgres_server, template="template0") as url:
        yield url


@pytest.fixture
def sample_database_url(postgres_server: PostgresServer, _sample: str) -> Iterator[str]:
    """The URL of this test's own copy of the whole sample shop."""
    with _database(postgres_server, template=_sample) as url:
        yield url


@pytest.fixture
def small_sample_database_url(postgres_server: PostgresServer, _small_sample: str) -> Iterator[str]:
    """The URL of this test's own copy of the sample shop's first 200 households."""
    with _database(postgres_server, template=_small_sample) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis."""
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def _sample(postgres_server: PostgresServer) -> str:
    return _sample_template(postgres_server, "sample_template", households=None)


@pytest.fixture(scope="session")
def _small_sample(postgres_server: PostgresServer) -> str:
    return _sample_template(
        postgres_server, "small_sample_template", households=SMALL_SAMPLE_HOUSEHOLDS
    )


def _sample_template(server: PostgresServer, name: str, *, households: int | None) -> str:
    _execute(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(server.database_url(name)) as connection:
        load_sample(connection, households=households)
    return name


@contextmanager
def _database(server: PostgresServer, *, template: str) -> Iterator[str]:
    name = sql.Identifier(f"test_{next(_numbers)}")
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    _execute(server, create.format(name, sql.Identifier(template)))
    try:
        yield server.database_url(name.as_string().strip('"'))
    finally:
        _execute(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _execute(server: PostgresServer, statement: sql.Composed) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement)
