"""Dagster's storage: the connections to PostgreSQL that it keeps."""

from collections.abc import Iterator

import psycopg
import pytest

from recsys_assets.dagster_storage import SchemaPostgresStorage

SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"


@pytest.fixture
def storage(database_url: str, monkeypatch: pytest.MonkeyPatch) -> SchemaPostgresStorage:
    monkeypatch.setenv("RECSYS_DATABASE_URL", database_url)
    monkeypatch.setenv("RECSYS_REDIS_URL", "redis://127.0.0.1:1")
    return SchemaPostgresStorage.from_config_value(None, {"schema": "dagster"})


@pytest.fixture
def watching(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def sessions(watching: psycopg.Connection) -> set[int]:
    return {pid for (pid,) in watching.execute(SESSIONS, [watching.info.backend_pid])}


def ask(storage: SchemaPostgresStorage) -> None:
    """Something of each part, which finds nothing."""
    assert not storage.run_storage.get_runs()
    assert not storage.event_log_storage.all_asset_keys()
    assert not storage.schedule_storage.all_instigator_state()


def test_it_opens_no_connection_for_each_statement(
    storage: SchemaPostgresStorage, watching: psycopg.Connection
) -> None:
    ask(storage)
    kept = sessions(watching)
    for _ in range(5):
        ask(storage)
    assert len(kept) == 3
    assert sessions(watching) == kept


def test_a_server_that_has_restarted_meanwhile_fails_nothing(
    storage: SchemaPostgresStorage,
    watching: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ask(storage)
    kept = sessions(watching)
    for pid in kept:
        watching.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    ask(storage)
    assert sessions(watching).isdisjoint(kept)
    assert not caplog.records  # Dagster says so when it has to try again
