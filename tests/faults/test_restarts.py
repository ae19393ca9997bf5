"""A part of the running system, or all of it, ends while a run is in flight, and is started again.

The run that was in flight ends with the system and must not stand in the way of the next ones.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from tests.commands import Home, Started, eventually, free_ports
from tests.faults.outages import held_mid_refresh, wait_until_held
from tests.faults.system import FILL, System, create_shop, fresh_database, kill

NEWCOMERS_ORDER = """
WITH placed AS (
    INSERT INTO orders SELECT max(id) + 1, max(user_id) + 1, 'paid', now(), now() FROM orders
    RETURNING id, user_id
), filled AS (INSERT INTO order_items SELECT id, 1, 1 FROM placed)
SELECT user_id FROM placed
"""
UNDER_WAY = "SELECT count(*) FROM dagster.runs WHERE status = 'STARTED'"
SECONDS_UNTIL_PUBLISHED = 60  # Dagster looks every 10 s after runs whose process is gone


@pytest.fixture(scope="module")
def shop(
    own_postgres: PostgresServer, own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """A shop of its own, everything materialized, refreshed by itself while ``recsys up`` runs."""
    with fresh_database(own_postgres, "restarts") as url:
        create_shop(url, FILL)
        more = {
            "RECSYS_DATABASE_URL": url,
            "RECSYS_REDIS_URL": f"{own_redis.url}?db=2",
            "RECSYS_AUTOMATION_ENABLED": "true",
        }
        system = System(Home(tmp_path_factory.mktemp("restarts"), more), own_postgres, own_redis)
        with system.store() as client:
            client.flushdb()
        system.home.recsys("materialize", "--force")
        yield system


@pytest.fixture
def system(shop: System) -> Iterator[System]:
    """The shop, with nothing left running at the end."""
    try:
        yield shop
    finally:
        kill_all(shop)


@contextmanager
def up(system: System) -> Iterator[Started]:
    """``recsys up``, once it is; ended with the block if it still runs."""
    ports = free_ports()
    with system.home.started("up", "--ui-port", ports, "--api-port", ports + 5) as command:
        command.wait_for("Ctrl-C ends all of it")
        yield command
        if command.process.poll() is None:
            command.interrupt()


def kill_all(system: System) -> None:
    """``kill -9`` of every process that was started for the home."""
    for pid in system.home.pids_of(""):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_the_daemon(system: System) -> None:
    """The daemon alone; ``recsys up`` then ends with an error, and the rest with it."""
    with run_in_flight(system) as command:
        for pid in system.home.pids_of("dagster-daemon"):
            os.kill(pid, signal.SIGKILL)
        assert command.process.wait(60) == 1
        assert "dagster-daemon ended" in command.printed()


def kill_the_command(system: System) -> None:
    """``recsys up`` alone, which cannot end what it has started."""
    with run_in_flight(system) as command:
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait()
        eventually(lambda: not system.home.processes(), "the end of all processes", seconds=30)


def interrupt(system: System) -> None:
    """Ctrl-C."""
    with run_in_flight(system) as command:
        assert command.interrupt() == 0, command.printed()


def kill_everything(system: System) -> None:
    """All processes of ``recsys up`` and of the run at once, as when the machine restarts."""
    with run_in_flight(system):
        kill_all(system)


def kill_a_materialization(system: System) -> None:
    """A run that was begun on the command line."""
    system.change_orders()
    with system.home.started("materialize", "--force") as command, held_mid_refresh(system):
        wait_until_held(system)
        kill(command)


@contextmanager
def run_in_flight(system: System) -> Iterator[Started]:
    """``recsys up`` with the run that follows the orders in the midst of a transaction."""
    with up(system) as command, held_mid_refresh(system):
        system.change_orders()
        wait_until_held(system)
        yield command


def runs_under_way(connection: psycopg.Connection) -> int:
    """How many runs have begun and not ended, as Dagster has recorded it."""
    (count,) = connection.execute(UNDER_WAY).fetchone() or (0,)
    return int(count)


@pytest.mark.full
@pytest.mark.parametrize("end", [kill_the_daemon, kill_the_command, interrupt])
def test_the_runs_of_a_system_that_ends_end_with_it(system: System, end: Callable[[System], None]):
    end(system)
    assert system.home.processes() == set()
    with system.database() as connection:
        assert runs_under_way(connection) == 0


@pytest.mark.full
@pytest.mark.parametrize("fault", [kill_the_daemon, kill_everything, kill_a_materialization])
def test_new_orders_are_published_after_a_restart(system: System, fault: Callable[[System], None]):
    fault(system)
    with up(system), system.database() as connection, system.store() as client:
        ((newcomer,),) = connection.execute(NEWCOMERS_ORDER).fetchall()
        eventually(
            lambda: client.exists(f"user:{newcomer}:top_buys"),
            "the newcomer's list",
            seconds=SECONDS_UNTIL_PUBLISHED,
        )
        eventually(lambda: runs_under_way(connection) == 1, "the old run's end")
