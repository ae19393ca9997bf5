"""Servers that tests may kill, one materialized shop for all faults, and the report at the end.

The short form is part of every test run; ``RECSYS_TEST_FAULTS=full`` (``make test-faults``) asks
for the full one.
"""

from collections.abc import Callable, Iterator

import pytest

from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from tests.commands import Home
from tests.faults.system import FILL, System, create_shop, fresh_database

FAST_POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
REPORT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests of this folder reported."""
    if lines := terminalreporter.config.stash.get(REPORT, None):
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the summary at the end of the session."""
    return request.config.stash.setdefault(REPORT, []).append


@pytest.fixture(scope="session")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL that tests of this folder may stop; who does starts it again."""
    server = PostgresServer(tmp_path_factory.mktemp("own_postgres"), options=FAST_POSTGRES)
    with server.in_use():
        yield server


@pytest.fixture(scope="session")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that tests of this folder may kill; who does starts it again."""
    server = RedisServer(tmp_path_factory.mktemp("own_redis"))
    with server.in_use():
        yield server


@pytest.fixture(scope="session")
def system(
    own_postgres: PostgresServer,
    own_redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[System]:
    """The shop with everything materialized; every test leaves it so that the next run succeeds."""
    with fresh_database(own_postgres, "faults") as url:
        create_shop(url, FILL)
        more = {"RECSYS_DATABASE_URL": url, "RECSYS_REDIS_URL": own_redis.url}
        with Home(tmp_path_factory.mktemp("faults"), more).in_use() as home:
            home.recsys("materialize", "--force")
            yield System(home, own_postgres, own_redis)
