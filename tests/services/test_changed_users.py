"""The plan, the marks and the locks of publication, in a real PostgreSQL."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from recsys_assets import tables
from recsys_assets.database import connect
from recsys_assets.publish.changed_users import (
    Lengths,
    Plan,
    is_under_way,
    marked_users,
    publishing,
    read_plan,
    save_plan,
    take_marks,
)
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import Shop, inspect_shop
from recsys_assets.tables import changed_users_table, create_tables, forget_publication, mark_users
from tests.shops import create_shop, day, id_of

PLAN = Plan("20250301T030000.000000Z", lengths=Lengths(top_buys=20, explained=10), by_affinity=True)
IDS = ["bigint", "text", "uuid"]
USERS = st.sets(st.integers(1, 8))


@pytest.fixture
def id_type() -> str:
    """The type of the shop's ids, which tests may set."""
    return "bigint"


@pytest.fixture
def connection(database_url: str, id_type: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database_url, autocommit=True)) as connection:
        create_shop(connection, id_type=id_type)
        yield connection


@pytest.fixture
def shop(connection: psycopg.Connection) -> Shop:
    shop = inspect_shop(connection, ShopSettings())
    create_tables(connection, shop)
    return shop


@contextmanager
def somebody_else(database_url: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database_url, autocommit=True)) as connection:
        yield connection


def mark(connection: psycopg.Connection, shop: Shop, *users: int) -> None:
    """What a refresh does with users whose interactions it has changed."""
    ids = [str(id_of(user, shop.user_id_type)) for user in users]
    mark_users(
        connection,
        shop,
        sql.SQL("SELECT unnest({}::text[])::{} AS user_id").format(
            sql.Literal(ids), sql.SQL(shop.user_id_type)
        ),
    )


def ids(shop: Shop, *users: int) -> list[Any]:
    return [id_of(user, shop.user_id_type) for user in users]


def marked(connection: psycopg.Connection, shop: Shop, **narrowed: Any) -> list[Any]:
    return [user for user, _ in marked_users(connection, shop, **narrowed)[1]]


# --- The plan


def test_the_plan_is_the_one_saved_last(connection: psycopg.Connection, shop: Shop) -> None:
    assert read_plan(connection, shop) is None
    save_plan(connection, shop, PLAN, None)
    assert read_plan(connection, shop) == PLAN
    complete = replace(PLAN, lengths=Lengths(top_buys=100), complete=True)
    save_plan(connection, shop, complete, day(3))
    assert read_plan(connection, shop) == complete
    forget_publication(connection, shop)
    assert read_plan(connection, shop) is None
    save_plan(connection, shop, PLAN, day(1))
    connection.execute(
        "UPDATE batch_metadata SET parameters = parameters || '{\"later\": 1}'"
        " WHERE job_name = 'user_top_buys'"
    )
    assert read_plan(connection, shop) is None  # it is another release's


# --- Marks


@pytest.mark.parametrize("id_type", IDS)
def test_marks_are_taken_by_those_who_have_read_them(
    connection: psycopg.Connection, shop: Shop
) -> None:
    mark(connection, shop, 1, 2, 3)
    _, marks = marked_users(connection, shop)
    assert [user for user, _ in marks] == ids(shop, 1, 2, 3)
    mark(connection, shop, 2, 4)  # while the lists of the first three are written
    take_marks(connection, shop, marks)
    assert marked(connection, shop) == ids(shop, 2, 4)
    take_marks(connection, shop, marks)
    assert marked(connection, shop) == ids(shop, 2, 4)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(turns=st.lists(st.tuples(USERS, USERS), max_size=6))
def test_no_change_is_lost(
    connection: psycopg.Connection, shop: Shop, turns: list[tuple[set[int], set[int]]]
) -> None:
    """Each turn some change before the marks are read, and some before they are taken."""
    connection.execute(sql.SQL("TRUNCATE {}").format(changed_users_table(shop)))
    for before, meanwhile in turns:
        waiting = set(marked(connection, shop))
        mark(connection, shop, *before)
        _, marks = marked_users(connection, shop)
        assert {user for user, _ in marks} == waiting | before
        mark(connection, shop, *meanwhile)
        take_marks(connection, shop, marks)
        assert set(marked(connection, shop)) == meanwhile


def test_a_mark_that_is_not_committed_is_not_seen(
    connection: psycopg.Connection, shop: Shop, database_url: str
) -> None:
    with somebody_else(database_url) as refreshing, refreshing.transaction():
        mark(refreshing, shop, 1)
        assert marked(connection, shop) == []
    assert marked(connection, shop) == [1]


def test_some_marks(connection: psycopg.Connection, shop: Shop) -> None:
    mark(connection, shop, *range(1, 7))
    assert marked(connection, shop, most=2) == [1, 2]
    assert marked(connection, shop, whose=sql.SQL("user_id > 4")) == [5, 6]
    assert marked(connection, shop, most=1, whose=sql.SQL("user_id > 4")) == [5]


def test_marks_come_with_the_watermark(connection: psycopg.Connection, shop: Shop) -> None:
    assert marked_users(connection, shop) == (None, [])
    connection.execute(
        sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(tables.batch_metadata_table(shop)),
        [tables.INTERACTIONS, day(9)],
    )
    assert marked_users(connection, shop) == (day(9), [])


# --- Taking turns


def test_one_publishes_while_others_wait(
    connection: psycopg.Connection, shop: Shop, database_url: str
) -> None:
    done: list[str] = []

    def publish() -> None:
        with somebody_else(database_url) as other, publishing(other, shop, "lists"):
            done.append("other")

    waiting = threading.Thread(target=publish)
    with publishing(connection, shop, "lists"):
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        done.append("first")
    waiting.join()
    assert done == ["first", "other"]


def test_what_is_under_way_is_known_to_others(
    connection: psycopg.Connection, shop: Shop, database_url: str
) -> None:
    elsewhere = replace(shop, schema="elsewhere")
    with somebody_else(database_url) as other:
        assert not is_under_way(other, shop, "lists")
        with publishing(connection, shop, "lists"):
            assert is_under_way(other, shop, "lists")
            assert not is_under_way(other, shop, "other lists")
            assert not is_under_way(other, elsewhere, "lists")
        assert not is_under_way(other, shop, "lists")
        with publishing(other, shop, "lists"):  # to ask has left no lock behind
            assert is_under_way(connection, shop, "lists")


class BrokenOff(Exception):
    """Raised in the middle of a publication."""


def test_an_error_ends_the_turn(
    connection: psycopg.Connection, shop: Shop, database_url: str
) -> None:
    with pytest.raises(BrokenOff), publishing(connection, shop, "lists"):
        raise BrokenOff
    with somebody_else(database_url) as other:
        assert not is_under_way(other, shop, "lists")


def test_a_lost_session_ends_the_turn(
    connection: psycopg.Connection, shop: Shop, database_url: str
) -> None:
    with somebody_else(database_url) as other:
        with publishing(other, shop, "lists"):
            assert is_under_way(connection, shop, "lists")
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [other.info.backend_pid])
        assert not is_under_way(connection, shop, "lists")
