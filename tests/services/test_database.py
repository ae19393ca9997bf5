"""Connections to PostgreSQL: the zone, the limits, and errors that say what to do."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from recsys_assets.database import ShopError, arrow_reader, columns_of, connect, read_arrow
from recsys_assets.resources import ShopDatabase


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


def test_a_query_that_takes_too_long_ends(database_url: str) -> None:
    with pytest.raises(ShopError, match=r"statement timeout.*RECSYS_STATEMENT_TIMEOUT_SECONDS"):
        read_arrow(database_url, sql.SQL("SELECT pg_sleep(10)"), statement_timeout_seconds=0.05)


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


# --- Several queries on one connection

PID = sql.SQL("SELECT pg_backend_pid() AS pid")


def test_queries_of_a_reader_share_a_connection_that_ends_with_it(database_url: str) -> None:
    with arrow_reader(database_url) as read:
        first, second = (read(PID)["pid"].to_pylist() for _ in range(2))
        assert first == second
    with closing(connect(database_url, autocommit=True)) as observer:
        while observer.execute(
            "SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", [first]
        ).fetchall():
            pass  # the server is about to notice


def test_a_reader_sees_what_others_commit_between_its_queries(database_url: str) -> None:
    with closing(connect(database_url, autocommit=True)) as writer:
        writer.execute("CREATE TABLE seen AS SELECT 1 AS number")
        with arrow_reader(database_url) as read:
            query = sql.SQL("SELECT number FROM seen")
            assert read(query)["number"].to_pylist() == [1]
            writer.execute("UPDATE seen SET number = 2")
            assert read(query)["number"].to_pylist() == [2]


def test_a_reader_goes_on_after_a_query_that_fails(database_url: str) -> None:
    with arrow_reader(database_url) as read:
        with pytest.raises(ShopError, match="division by zero"):
            read(sql.SQL("SELECT 1 / 0"))
        assert read(sql.SQL("SELECT 1 AS one"))["one"].to_pylist() == [1]


def test_a_reader_whose_session_is_ended_tells_so(database_url: str) -> None:
    with arrow_reader(database_url) as read, closing(connect(database_url)) as other:
        other.execute("SELECT pg_terminate_backend(%s)", read(PID)["pid"].to_pylist())
        with pytest.raises(ShopError, match=r"broke off.*RECSYS_DATABASE_URL"):
            read(PID)


# --- What a connection of the graph is told as


def test_a_connection_that_breaks_off_is_told(database_url: str) -> None:
    shop = ShopDatabase(url=database_url)
    with (
        pytest.raises(ShopError, match=r"broke off.*RECSYS_DATABASE_URL"),
        shop.connect() as connection,
    ):
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_a_statement_that_takes_too_long_is_told(database_url: str) -> None:
    shop = ShopDatabase(url=database_url, statement_timeout_seconds=0.05)
    with (
        pytest.raises(ShopError, match="RECSYS_STATEMENT_TIMEOUT_SECONDS"),
        shop.connect() as connection,
    ):
        connection.execute("SELECT pg_sleep(10)")


def test_other_errors_of_a_connection_stay_what_they_are(database_url: str) -> None:
    shop = ShopDatabase(url=database_url)
    with pytest.raises(psycopg.errors.DivisionByZero), shop.connect() as connection:
        connection.execute("SELECT 1 / 0")
    with pytest.raises(psycopg.errors.LockNotAvailable), shop.connect() as connection:
        connection.execute("DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$")


def test_columns_of_a_table(database_url: str) -> None:
    with closing(connect(database_url)) as connection:
        connection.execute('CREATE TABLE "Odd name" (b uuid, gone int, "A a" varchar(5))')
        connection.execute('ALTER TABLE "Odd name" DROP gone')
        assert columns_of(connection, "Odd name") == {"b": "uuid", "A a": "character varying(5)"}
        assert columns_of(connection, "public.Odd name") != {}
        assert columns_of(connection, "other.Odd name") == {}
        assert columns_of(connection, 'x"; DROP TABLE "Odd name') == {}
