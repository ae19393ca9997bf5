"""All users' lists published while orders, trainings and others who publish come between."""

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import psycopg
import pytest

from recsys_assets.publish.changed_users import publishing as a_turn_of
from recsys_assets.publish.changed_users import read_plan
from recsys_assets.publish.personal import FAMILY
from tests.publications import Publishing, order, publishing, texts
from tests.shops import day, id_of


class BrokenOff(Exception):
    """Raised in the middle of a publication."""


def break_off(_: int) -> None:
    raise BrokenOff


def test_one_that_was_broken_off_is_made_anew(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    first = shop.maker().plan.model_version
    shop.everybody()
    second = shop.train(seed=8)
    with pytest.raises(BrokenOff):
        shop.everybody(chunk_interactions=4, progress=break_off)
    plan = read_plan(shop.session.connection, shop.session.shop)
    assert plan is not None
    assert (plan.model_version, plan.complete) == (second, False)
    assert shop.record is not None
    assert shop.record.model_version == first
    assert {top_buys.model_version for top_buys in shop.lists().values()} == {first, second}
    come(order(7))
    shop.refresh()
    assert shop.changed() is None
    assert shop.users(only_changed=True).written == 7
    assert {top_buys.model_version for top_buys in shop.lists().values()} == {second}
    assert shop.record.model_version == second
    assert shop.marked() == []


class BetweenChunks:
    """A connection on which something happens before each chunk of users is sought."""

    def __init__(self, connection: psycopg.Connection, happens: Callable[[], object]) -> None:
        self._connection = connection
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: Any, *parameters: Any) -> Any:
        if isinstance(query, psycopg.sql.Composed) and "OFFSET" in query.as_string(None):
            self._happens()
        return self._connection.execute(query, *parameters)


def test_changed_users_are_published_while_all_are(
    shop: Publishing, come: Callable[..., None], id_type: str, database_url: str, redis_url: str
) -> None:
    """Before a chunk a user changes and one is new, some of them behind the finished chunks."""
    first = shop.maker().plan.model_version
    shop.everybody()
    second = shop.train(seed=8)
    numbers = iter([10, 0, 11, 12])
    came: list[int] = []
    records: list[str] = []

    with publishing(database_url, redis_url, shop.folder) as other:

        def change() -> None:
            for number in islice(numbers, 1):
                now = day(100 + len(came))
                come(
                    order(number, updated_at=now),
                    order(number + 100, user=number % 6 + 1, updated_at=now),
                )
                other.refresh()
                published = other.changed()
                assert published is not None
                assert (published.model_version, published.written) == (second, 2)
                assert other.lists()[str(id_of(number, id_type))].model_version == second
                assert other.record is not None
                records.append(other.record.model_version)
                came.append(number)

        connection: Any = BetweenChunks(shop.session.connection, change)
        session = replace(shop.session, connection=connection)
        published = replace(shop, session=session).everybody(chunk_interactions=4)
    assert len(came) == 4
    assert set(records) == {first}, "the record is ahead of the lists"
    assert published.model_version == second
    assert shop.record is not None
    assert (shop.record.model_version, shop.record.keys) == (second, len(shop.values()))
    assert set(shop.values()) == texts(id_type, *range(1, 7), *came)
    assert shop.marked() == []
    contents = shop.contents()
    shop.everybody()
    assert shop.contents() == contents


def test_a_user_who_comes_in_behind_the_chunks_has_a_list_at_the_end(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    chunks: list[int] = []

    def change() -> None:
        chunks.append(len(chunks))
        if len(chunks) == 3:
            come(order(10, user=0), order(11))
            shop.refresh()

    connection: Any = BetweenChunks(shop.session.connection, change)
    session = replace(shop.session, connection=connection)
    replace(shop, session=session).everybody(chunk_interactions=4)
    assert len(chunks) > 3
    assert set(shop.values()) == texts(id_type, *range(7), 11)
    assert shop.marked() == []


def test_two_who_publish_at_once(
    shop: Publishing, come: Callable[..., None], database_url: str, redis_url: str
) -> None:
    """One publishes all users again and again, the other those who change."""
    shop.everybody()
    rounds = 5
    errors: list[BaseException] = []

    def publish_all() -> None:
        try:
            with publishing(database_url, redis_url, shop.folder) as other:
                for _ in range(rounds):
                    other.everybody(chunk_interactions=4)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=publish_all)
    thread.start()
    number = 10
    while thread.is_alive() and number < 30:
        come(order(number), order(number + 1000, user=number % 6 + 1, at=day(number)))
        shop.refresh()
        assert shop.changed() is not None
        number += 1
    thread.join()
    assert errors == []
    assert shop.changed() is not None
    assert set(shop.values()) == texts("bigint", *range(1, 7), *range(10, number))
    assert shop.record is not None
    assert shop.record.keys == len(shop.values())
    contents = shop.contents()
    shop.everybody()
    assert shop.contents() == contents


def test_who_waits_for_a_publication_of_all_goes_on_with_its_model(
    shop: Publishing, come: Callable[..., None], database_url: str, redis_url: str
) -> None:
    shop.everybody()
    second = shop.train(seed=8)
    come(order(10))
    shop.refresh()
    tried = threading.Event()

    def publish_changed() -> None:
        with publishing(database_url, redis_url, shop.folder) as other:
            tried.set()
            other.changed()

    connection, tables_of = shop.session.connection, shop.session.shop
    with a_turn_of(connection, tables_of, FAMILY):
        waiting = threading.Thread(target=publish_changed)
        waiting.start()
        tried.wait(30)
        shop.everybody()
    waiting.join()
    assert shop.record is not None
    assert shop.record.model_version == second
    assert {top_buys.model_version for top_buys in shop.lists().values()} == {second}


def test_all_lists_are_made_again_after_a_rebuild_in_the_middle(
    shop: Publishing, database_url: str, redis_url: str
) -> None:
    rebuilt: list[bool] = []

    def rebuild(_: int) -> None:
        if not rebuilt:
            with publishing(database_url, redis_url, shop.folder) as other:
                rebuilt.append(other.refresh(rebuild=True).rebuilt)

    shop.everybody(progress=rebuild)
    assert rebuilt == [True]
    assert shop.changed() is None
    shop.users(only_changed=True)
    assert shop.changed() is not None
