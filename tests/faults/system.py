"""The system under fault: a small shop on servers of its own, driven through the command line.

Nothing of the product's graph is imported here; what a test sees is what a user or a reader of
PostgreSQL, Redis and the data folder sees.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg import sql

from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from tests.commands import BIN, ROOT, SECONDS, Home, Started
from tests.graphs import value_of

# Read here, for the tests themselves run without any setting of the shell.
FULL = os.environ.get("RECSYS_TEST_FAULTS") == "full"
FOLLOWING = "refresh_on_new_orders"
USERS, PRODUCTS, ORDERS, LINES_PER_ORDER = 3_000, 150, 12_000, 5

# Nothing is forbidden by the tables, so that anything can be in them.
SHOP = """
CREATE TABLE orders (
    id bigint, user_id bigint, status text, created_at timestamptz, updated_at timestamptz
);
CREATE TABLE order_items (order_id bigint, product_id bigint, quantity numeric);
CREATE INDEX ON orders (id);
CREATE INDEX ON orders (user_id);
CREATE INDEX ON orders (updated_at);
CREATE INDEX ON order_items (order_id)
"""
FILL = f"""
SELECT setseed(0.5);
INSERT INTO orders
SELECT number, 1 + number % {USERS}, 'completed', placed, placed FROM (
    SELECT number, now() - interval '1 hour' - random() * interval '300 days' AS placed
    FROM generate_series(1, {ORDERS}) AS number) AS numbered;
INSERT INTO order_items
SELECT id, 1 + floor({PRODUCTS} * random() * random()), 1
FROM orders, generate_series(1, {LINES_PER_ORDER})
"""
# A hundred orders come, ten are cancelled, ten come to hold other products, ten leave the statuses
# that count or come back to them.
CHANGES = f"""
INSERT INTO orders SELECT top + number, 1 + floor({USERS} * random()), 'paid', now(), now()
FROM generate_series(1, 100) AS number, (SELECT max(id) AS top FROM orders) AS known;
INSERT INTO order_items SELECT id, 1 + floor({PRODUCTS} * random()), 1
FROM orders, generate_series(1, 3) WHERE updated_at = now();
CREATE TEMPORARY TABLE chosen ON COMMIT DROP AS
SELECT id, row_number() OVER () AS place FROM (
    SELECT id FROM orders WHERE updated_at < now() ORDER BY random() LIMIT 30) AS drawn;
UPDATE orders SET status = CASE status WHEN 'completed' THEN 'cancelled' ELSE 'completed' END
WHERE id IN (SELECT id FROM chosen WHERE place <= 20);
UPDATE order_items SET product_id = product_id + 1, quantity = 2
WHERE order_id IN (SELECT id FROM chosen WHERE place > 20);
UPDATE orders SET updated_at = now() WHERE id IN (SELECT id FROM chosen)
"""


@dataclass(frozen=True)
class System:
    """A home whose commands work on one database and one Redis."""

    home: Home
    postgres: PostgresServer
    redis: RedisServer

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """A connection that commits every statement."""
        with psycopg.connect(
            self.home.environment["RECSYS_DATABASE_URL"], autocommit=True
        ) as connection:
            yield connection

    @contextmanager
    def store(self) -> Iterator[redis.Redis]:
        """A plain client of Redis that returns text."""
        url = self.home.environment["RECSYS_REDIS_URL"]
        with closing(redis.Redis.from_url(url, decode_responses=True)) as client:
            yield client

    def change_orders(self) -> None:
        """Let a shop's quarter of an hour pass, in one transaction."""
        with self.database() as connection:
            connection.execute(CHANGES)

    @contextmanager
    def following(self, *, minutes: float = 60) -> Iterator[Started]:
        """A run that follows the orders, or refreshes once for 0 minutes; killed with the block."""
        config = self.home.folder / "following.yaml"
        config.write_text(f"ops: {{follow_orders: {{config: {{minutes: {minutes}}}}}}}")
        log = self.home.folder / "following.log"
        definitions = ("-m", "recsys_assets.definitions", "-a", "defs", "-d", ROOT)
        with log.open("w") as output:
            process = subprocess.Popen(
                [BIN / "dagster", "job", "execute", "-j", FOLLOWING, "-c", config, *definitions],
                env={**self.home.environment, "DAGSTER_HOME": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = Started(process, log)
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                kill(started)

    def refresh(self) -> None:
        """Let such a run refresh once, which must succeed."""
        with self.following(minutes=0) as run:
            assert run.process.wait(SECONDS) == 0, run.printed()

    def lists(self) -> dict[str, Any]:
        """Every key of Redis with its value: text, a hash, a set, or members and scores."""
        with self.store() as client:
            return {key: value_of(client, key) for key in client.scan_iter(count=10_000)}

    def last_run(self) -> "Run":
        """The run that was begun last."""
        environment = self.home.environment
        url = environment.get("RECSYS_DAGSTER_DATABASE_URL", environment["RECSYS_DATABASE_URL"])
        with psycopg.connect(url) as connection:
            return Run(*connection.execute(_LAST_RUN).fetchone() or ("", "none", None, None))

    def metadata(self, asset: str) -> dict[str, Any]:
        """Numbers and texts that the asset was last materialized with, as the UI shows them."""
        with self.database() as connection:
            row = connection.execute(_LAST_MATERIALIZATION, [asset]).fetchone()
        assert row, f"{asset} was never materialized"
        made = json.loads(row[0])["dagster_event"]["event_specific_data"]["materialization"]
        return {e["label"]: e["entry_data"].get("value") for e in made["metadata_entries"]}


@dataclass(frozen=True)
class Run:
    """A run as Dagster's storage has it; ``step`` is the one that has begun and not ended."""

    id: str
    status: str
    step: str | None
    made: str | None
    """The asset that it has made last."""


_LAST_RUN = """
SELECT run_id, status, (
    SELECT step_key FROM dagster.event_logs AS log
    WHERE log.run_id = runs.run_id AND dagster_event_type LIKE 'STEP_%'
    GROUP BY step_key
    HAVING count(*) FILTER (WHERE dagster_event_type = 'STEP_START') >
           count(*) FILTER (WHERE dagster_event_type IN ('STEP_SUCCESS', 'STEP_FAILURE'))
    LIMIT 1), (
    SELECT asset_key::json ->> 0 FROM dagster.event_logs AS log
    WHERE log.run_id = runs.run_id AND dagster_event_type = 'ASSET_MATERIALIZATION'
    ORDER BY id DESC LIMIT 1)
FROM dagster.runs ORDER BY id DESC LIMIT 1
"""
_LAST_MATERIALIZATION = """
SELECT event FROM dagster.event_logs
WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND step_key = %s ORDER BY id DESC LIMIT 1
"""


def create_shop(url: str, *statements: str) -> None:
    """Create the shop's tables and fill them."""
    with psycopg.connect(url) as connection:
        for statement in (SHOP, *statements):
            connection.execute(statement)


@contextmanager
def fresh_database(server: PostgresServer, name: str) -> Iterator[str]:
    """The URL of an empty database, dropped at the end."""
    database = sql.Identifier(name)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
    try:
        yield server.database_url(name)
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


def kill(run: Started) -> None:
    """``kill -9`` of a command and whatever it has started in its session."""
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()


def is_alive(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
