"""Talking to PostgreSQL: connections in UTC, rows as Arrow, and what a table looks like.

Timestamps without time zone are read as UTC, whatever the server's own zone is.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    import adbc_driver_manager.dbapi
    import pyarrow as pa

# Codes of errors, or their beginnings; PostgreSQL's own, and none where it could not send any.
ENDED, BROKEN_OFF, SHUT_DOWN = "57014", "08", "57P"


class ShopError(RuntimeError):
    """The shop's database is not as the settings describe it: what is missing, what to set."""


def connect(url: str, *, statement_timeout_seconds: float = 0, **kwargs: Any) -> psycopg.Connection:
    """A connection whose session runs in UTC and ends statements that take too long.

    Raises :class:`ShopError` when the server cannot be reached, without the URL's password.
    """
    options = (
        f"-c timezone=UTC -c statement_timeout={int(statement_timeout_seconds * 1000)}"
        # The locks of a machine that is gone end with its session, which TCP would keep for hours.
        " -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
    )
    try:
        return psycopg.connect(
            url, options=options, application_name="recsys_assets", connect_timeout=10, **kwargs
        )
    except psycopg.Error as error:
        raise _unreachable(url, error) from None


def read_arrow(
    url: str, query: sql.Composed, *, statement_timeout_seconds: float = 0
) -> "pa.Table":
    """The rows of a query as an Arrow table, streamed in PostgreSQL's binary COPY format.

    Parameters must already stand in the query. Raises :class:`ShopError` as :func:`connect` does.
    """
    with arrow_reader(url, statement_timeout_seconds=statement_timeout_seconds) as read:
        return read(query)


@contextmanager
def arrow_reader(
    url: str, *, statement_timeout_seconds: float = 0
) -> "Iterator[Callable[[sql.Composed], pa.Table]]":
    """:func:`read_arrow` for several queries, on one connection, which is closed at the end.

    The first query opens it, for the driver reads all of the server's types then.
    """
    from adbc_driver_manager import Error

    @cache
    def connection() -> "adbc_driver_manager.dbapi.Connection":
        from adbc_driver_postgresql import dbapi

        try:
            opened: adbc_driver_manager.dbapi.Connection = dbapi.connect(url, autocommit=True)
        except Error as error:
            raise _unreachable(url, error) from None
        return closing.enter_context(opened)

    def read(query: sql.Composed) -> "pa.Table":
        try:
            with connection().cursor() as cursor:
                cursor.execute("SET timezone TO 'UTC'")
                cursor.execute(f"SET statement_timeout TO {int(statement_timeout_seconds * 1000)}")
                cursor.execute(query.as_string(None))
                return cursor.fetch_arrow_table()
        except Error as error:
            raise _interrupted(error) or ShopError(
                f"PostgreSQL did not answer a query: {error}"
            ) from error

    with ExitStack() as closing:
        yield read


@contextmanager
def interruptions_told() -> Iterator[None]:
    """Raise :class:`ShopError` where a connection of the block breaks off, or a statement is ended.

    Other errors of statements are left as they are.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        if interrupted := _interrupted(error):
            raise interrupted from error
        raise


def _interrupted(error: "psycopg.Error | adbc_driver_manager.Error") -> ShopError | None:
    reason = " ".join(str(error).split())
    state = error.sqlstate or BROKEN_OFF
    if state == ENDED:
        return ShopError(
            f"PostgreSQL ended a statement: {reason}. How long one may take is"
            " RECSYS_STATEMENT_TIMEOUT_SECONDS."
        )
    if state.startswith((BROKEN_OFF, SHUT_DOWN)):
        return ShopError(
            f"PostgreSQL broke off the connection: {reason}. Check that it runs and that"
            " RECSYS_DATABASE_URL is right, then run again: nothing is lost."
        )
    return None


def _unreachable(url: str, error: Exception) -> ShopError:
    reason = " ".join(str(error).split())
    for part in url.split():  # which the complaint about a malformed URL quotes, password and all
        reason = reason.replace(part, "...")
    return ShopError(
        f"PostgreSQL cannot be reached: {reason} Check that it runs and that RECSYS_DATABASE_URL is"
        " right."
    )


def columns_of(connection: psycopg.Connection, table: str) -> dict[str, str]:
    """Names and types of a table's columns; empty when there is no such table."""
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [".".join(f'"{part}"' for part in table.split("."))],
    ).fetchall()
    return dict(rows)
