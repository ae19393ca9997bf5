"""Connections to PostgreSQL: the zone, the limits, and errors that say what to do."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from recsys_assets.database import ShopError, columns_of, connect, read_arrow


def zone_of_the_server(url: str, zone: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET timezone TO {}").format(database, zone))


def test_times_are_read_in_utc_whatever_the_servers_zone(database_url: str) -> None:
    zone_of_the_server(database_url, "America/New_York")
    noon = "timestamp '2025-03-01 12:00'::timestamptz AS noon"
    with closing(connect(database_url)) as connection:
        row = connection.execute(f"SELECT {noon}").fetchone()
    assert row == (datetime(2025, 3, 1, 12, tzinfo=UTC),)
    table = read_arrow(database_url, sql.SQL("SELECT {}").format(sql.SQL(noon)))
    assert table["noon"].to_pylist() == [datetime(2025, 3, 1, 12, tzinfo=UTC)]


def test_a_statement_that_takes_too_long_ends(database_url: str) -> None:
    with (
        closing(connect(database_url, statement_timeout_seconds=0.05)) as connection,
        pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"),
    ):
        connection.execute("SELECT pg_sleep(10)")


def read_one(url: str) -> object:
    return read_arrow(url, sql.SQL("SELECT {}").format(1))


@pytest.mark.parametrize("ask", [connect, read_one])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:secret@127.0.0.1:1/shop",
        "postgresql://shop:secret@/shop?host=/nowhere",
        "postgresql://shop:secret@127.0.0.1:port/shop",
        "postgres//shop:secret@127.0.0.1/shop",
    ],
)
def test_a_server_that_is_not_there_is_told_without_the_password(
    ask: Callable[[str], object], url: str
) -> None:
    with pytest.raises(ShopError, match="RECSYS_DATABASE_URL") as raised:
        ask(url)
    assert "secret" not in str(raised.value)


def test_a_query_that_fails_is_told(database_url: str) -> None:
    with pytest.raises(ShopError, match="division by zero"):
        read_arrow(database_url, sql.SQL("SELECT 1 / {}").format(0))


def test_columns_of_a_table(database_url: str) -> None:
    with closing(connect(database_url)) as connection:
        connection.execute('CREATE TABLE "Odd name" (b uuid, gone int, "A a" varchar(5))')
        connection.execute('ALTER TABLE "Odd name" DROP gone')
        assert columns_of(connection, "Odd name") == {"b": "uuid", "A a": "character varying(5)"}
        assert columns_of(connection, "public.Odd name") != {}
        assert columns_of(connection, "other.Odd name") == {}
        assert columns_of(connection, 'x"; DROP TABLE "Odd name') == {}
