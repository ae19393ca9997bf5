"""The users' lists, from the orders in PostgreSQL to the keys in Redis.

Small shops: whose lists are written, which marks are left, and what the record tells.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recsys_assets.database import connect
from recsys_assets.publish.changed_users import Plan, read_plan
from recsys_assets.publish.changed_users import publishing as a_turn_of
from recsys_assets.publish.personal import FAMILY
from tests.publications import LENGTHS, Publishing, publishing
from tests.shops import Order, add_orders, create_shop, day, id_of


@pytest.fixture
def id_type() -> str:
    """The type of the shop's ids, which tests may set."""
    return "bigint"


@pytest.fixture
def shop(database_url: str, redis_url: str, tmp_path: Path, id_type: str) -> Iterator[Publishing]:
    """Users 1 to 6 with an order each, of products that their neighbours have as well."""
    with closing(connect(database_url)) as connection:
        create_shop(connection, [order(n) for n in range(1, 7)], id_type=id_type)
    with publishing(database_url, redis_url, tmp_path) as shop:
        shop.refresh()
        shop.train()
        yield shop


@pytest.fixture
def come(database_url: str) -> Iterator[Callable[..., None]]:
    """Orders come in."""
    with closing(connect(database_url)) as connection:
        yield lambda *orders: add_orders(connection, orders)


def order(number: int, user: int | None = None, **changes: Any) -> Order:
    """An order of its number's user and day: products beside one another."""
    products = [100 + number, 101 + number, 102 + number]
    whose = number if user is None else user
    return replace(Order(number, whose, products, day(number)), **changes)


def texts(id_type: str, *users: int) -> set[str]:
    return {str(id_of(user, id_type)) for user in users}


# --- Marks


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
def test_a_user_is_new_changed_or_gone(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    shop.everybody()
    before = shop.values()
    assert set(before) == texts(id_type, 1, 2, 3, 4, 5, 6)
    come(
        order(7),
        order(8, user=2),
        order(3, status="cancelled", updated_at=day(8)),
        order(4, user=5, updated_at=day(8)),
    )
    shop.refresh()
    published = shop.changed()
    assert published is not None
    assert (published.written, published.removed) == (3, 2)
    assert published.orders_through == day(8)
    after = shop.values()
    assert set(after) == texts(id_type, 1, 2, 5, 6, 7)
    same = {user for user, value in after.items() if before.get(user) == value}
    assert same == texts(id_type, 1, 6)
    assert shop.marked() == []
    assert shop.record is not None
    assert (shop.record.keys, shop.record.orders_through) == (5, day(8))
    contents = shop.contents()
    shop.everybody()
    assert shop.contents() == contents


def test_nothing_changed_writes_nothing_but_the_record(
    shop: Publishing, come: Callable[..., None]
) -> None:
    shop.everybody()
    before = shop.values()
    come(order(7, status="open"))
    shop.refresh()
    published = shop.changed()
    assert published is not None
    assert (published.written, published.removed, published.orders_through) == (0, 0, day(7))
    assert shop.values() == before
    assert shop.record is not None
    assert shop.record.orders_through == day(7)


def test_users_wait_for_their_lists_until_they_are_published(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    shop.everybody()
    come(order(7, user=1))
    shop.refresh()  # and whoever was to publish is killed
    come(order(8, user=2))
    shop.refresh()
    published = shop.changed()
    assert published is not None
    assert published.written == 2
    contents = shop.contents()
    shop.everybody()
    assert shop.contents() == contents


@pytest.mark.parametrize("all_users", [True, False])
def test_a_change_that_comes_while_the_list_is_made_is_published_next(
    shop: Publishing, come: Callable[..., None], id_type: str, all_users: bool
) -> None:
    shop.everybody()
    come(order(7, user=1))
    shop.refresh()
    reads: list[int] = []

    def change() -> None:
        reads.append(len(reads))
        come(order(20 + len(reads), user=1))
        shop.refresh()

    if all_users:
        shop.after_reading(change).everybody()
    else:
        shop.after_reading(change).changed()
    assert reads
    assert {str(user) for user in shop.marked()} == texts(id_type, 1)
    shop.changed()
    assert shop.marked() == []
    contents = shop.contents()
    shop.everybody()
    assert shop.contents() == contents


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
def test_the_keys_of_a_user_come_and_go_together(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    def users() -> set[str]:
        """The users that have a key, in every family the same."""
        first, *others = shop.users_by_family().values()
        assert others == [first] * len(others)
        return first

    shop.everybody()
    assert users() == texts(id_type, 1, 2, 3, 4, 5, 6)
    come(order(3, status="cancelled", updated_at=day(8)), order(7))
    shop.refresh()
    shop.changed()
    assert users() == texts(id_type, 1, 2, 4, 5, 6, 7)
    come(order(4, status="cancelled", updated_at=day(9)), order(8))
    shop.refresh()
    shop.everybody()
    assert users() == texts(id_type, 1, 2, 5, 6, 7, 8)


# --- All users


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


# --- The model, the lists' length and their explanations


def test_changed_lists_are_of_the_model_of_all(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    first = shop.train(discovery=0.5)
    shop.everybody(shop.maker(top_buys=3, explained=2))
    second = shop.train(seed=8)
    come(order(7))
    shop.refresh()
    assert shop.users(only_changed=True).model_version == first
    (newcomer,) = texts(id_type, 7)
    assert len(shop.lists()[newcomer].products) == 3
    assert shop.explained()[newcomer] == [p.product_id for p in shop.lists()[newcomer].products][:2]
    contents = shop.contents()
    shop.everybody(
        shop.makers.of(Plan(first, replace(LENGTHS, top_buys=3, explained=2), by_affinity=True))
    )
    assert shop.contents() == contents
    assert shop.users(only_changed=False).model_version == second
    assert len(shop.lists()[newcomer].products) == 9  # all that there are
    assert {top_buys.model_version for top_buys in shop.lists().values()} == {second}


def test_all_lists_are_made_anew_when_their_model_is_not_kept(
    shop: Publishing, come: Callable[..., None]
) -> None:
    shop.everybody()
    version = shop.train(keep=1, seed=8)
    come(order(7))
    shop.refresh()
    published = shop.users(only_changed=True)
    assert (published.model_version, published.written) == (version, 7)
    come(order(8))
    shop.refresh()
    published = shop.users(only_changed=True)
    assert (published.model_version, published.written) == (version, 1)


def test_what_makes_lists_is_kept_as_long_as_the_plan_is(shop: Publishing) -> None:
    makers = shop.makers
    current = makers.of_current_model(LENGTHS)
    assert makers.of(replace(current.plan, complete=True)) is current
    for shorter in (replace(LENGTHS, top_buys=1), replace(LENGTHS, buy_again=1)):
        assert makers.of(replace(current.plan, lengths=shorter)).plan.lengths == shorter
    shop.train(seed=8)
    other = makers.of_current_model(LENGTHS)
    assert other.plan.model_version > current.plan.model_version
