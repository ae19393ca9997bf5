"""The users' lists, from the orders in PostgreSQL to the keys in Redis.

The rule: whatever the way a list came about - of all users, or of those that changed - it is what a
publication of all would now make of it.
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
from recsys_assets.local.redis import RedisServer
from recsys_assets.publish.changed_users import Plan, read_plan
from recsys_assets.publish.personal import NoRoomError
from recsys_assets.tables import count_interactions
from tests.publications import LENGTH, Publishing, publishing
from tests.shops import Order, add_orders, create_shop, day, id_of

BATCHES = 5
HELD_BACK = f"""
ALTER TABLE order_items DROP CONSTRAINT order_items_order_id_fkey;
CREATE TABLE held AS
    SELECT *, ntile({BATCHES}) OVER (ORDER BY created_at, id) AS batch FROM orders
    WHERE created_at > (SELECT max(created_at) FROM orders) - interval '28 days';
DELETE FROM orders WHERE user_id % 10 = 0 OR id IN (SELECT id FROM held);
CREATE VIEW late AS SELECT row_number() OVER (ORDER BY id) AS number, id, user_id, batch FROM held
"""  # Each tenth user has no other orders than those held back.
COME = """
INSERT INTO orders (id, user_id, status, created_at, updated_at)
    SELECT id, user_id, status, created_at, updated_at FROM held WHERE batch = %s
    RETURNING user_id
"""
# Of the orders of the batch before, some change: at the time of the latest order.
CANCEL = """
UPDATE orders SET status = 'cancelled', updated_at = (SELECT max(created_at) FROM orders)
    WHERE id IN (SELECT id FROM late WHERE number %% 5 = 0 AND batch = %s)
    RETURNING user_id
"""
MOVE = """
WITH moved AS (
    UPDATE orders SET user_id = late.user_id + number %% 2,
                      updated_at = (SELECT max(created_at) FROM orders)
    FROM late WHERE late.id = orders.id AND number %% 7 = 0 AND batch = %s
    RETURNING late.user_id AS before, orders.user_id AS after)
SELECT before FROM moved UNION SELECT after FROM moved
"""
GIVE_UP = """
UPDATE orders SET status = 'cancelled', updated_at = (SELECT max(created_at) FROM orders)
    WHERE user_id = (SELECT min(user_id) FROM held WHERE user_id % 10 = 0)
    RETURNING user_id
"""


def users_of(connection: psycopg.Connection, statement: str, *parameters: Any) -> set[str]:
    """The users whose orders a statement changes."""
    return {str(user) for (user,) in connection.execute(statement, parameters or None)}


@pytest.mark.parametrize(
    ("sample", "factors"), [("small_sample_database_url", 128), ("sample_database_url", 32)]
)
def test_a_list_does_not_depend_on_when_it_is_made(
    request: pytest.FixtureRequest, redis_url: str, tmp_path: Path, sample: str, factors: int
) -> None:
    with publishing(request.getfixturevalue(sample), redis_url, tmp_path) as shop:
        connection = shop.session.connection
        connection.execute(HELD_BACK)
        shop.refresh()
        version = shop.train(factors=factors, iterations=1)
        shop.everybody()
        catalogue = set(shop.recipe().model.product_ids.tolist())
        first = set(shop.values())
        for batch in range(1, BATCHES + 1):
            touched = users_of(connection, COME, batch)
            touched |= users_of(connection, CANCEL, batch - 1)
            touched |= users_of(connection, MOVE, batch - 1)
            if batch == BATCHES:
                gone = users_of(connection, GIVE_UP)
            before = shop.values()
            shop.refresh()
            published = shop.changed()
            after = shop.values()
            assert published is not None
            changed = {user for user in before | after if before.get(user) != after.get(user)}
            assert changed
            assert changed <= touched | (gone if batch == BATCHES else set())
            assert published.written == len(changed & set(after))
            assert published.removed == len(set(before) - set(after))
            assert shop.record is not None
            assert shop.record.keys == len(after)
        assert gone
        assert not gone & set(after)
        assert set(after) - first, "no user is new"
        changed_lists = shop.lists()
        assert {top_buys.model_version for top_buys in changed_lists.values()} == {version}
        listed = {p.product_id for top_buys in changed_lists.values() for p in top_buys.products}
        assert listed - catalogue, "no product is new"
        products = shop.products()
        shop.everybody()
        assert shop.products() == products


# --- Marks


@pytest.fixture
def id_type() -> str:
    """The type of the shop's ids, which tests may set."""
    return "bigint"


@pytest.fixture
def shop(database_url: str, redis_url: str, tmp_path: Path, id_type: str) -> Iterator[Publishing]:
    """Users 1 to 6 with an order each, the third user's of products that nobody else has."""
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
    products = shop.products()
    shop.everybody()
    assert shop.products() == products


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
    products = shop.products()
    shop.everybody()
    assert shop.products() == products


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
    products = shop.products()
    shop.everybody()
    assert shop.products() == products


# --- All users


def test_chunks_make_no_difference(small_sample_database_url: str, redis_url: str, tmp_path: Path):
    with publishing(small_sample_database_url, redis_url, tmp_path) as shop:
        shop.refresh()
        shop.train(factors=32)
        whole = shop.everybody()
        products = shop.products()
        rows, _ = count_interactions(shop.session.connection, shop.session.shop)
        shop.client.flushall()
        done: list[int] = []
        sizes: list[int] = []

        def read(query: Any) -> Any:
            table = shop.session.read(query)
            sizes.append(len(table))
            return table

        measured = replace(shop, session=replace(shop.session, read=read))
        chunked = measured.everybody(chunk_interactions=5_000, progress=done.append)
        assert done[-1] == chunked.written == whole.written == len(products)
        _, *chunks, _users = sizes  # the first is a sample
        assert sum(chunks) == rows
        assert len(chunks) == pytest.approx(rows / 5_000, rel=0.3)
        assert shop.products() == products


class BrokenOff(Exception):
    """Raised in the middle of a publication."""


def break_off(_: int) -> None:
    raise BrokenOff


def test_one_that_was_broken_off_is_made_anew(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    first = shop.recipe().plan.model_version
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
    first = shop.recipe().plan.model_version
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
    products = shop.products()
    shop.everybody()
    assert shop.products() == products


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
    while thread.is_alive() and number < 60:
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
    products = shop.products()
    shop.everybody()
    assert shop.products() == products


# --- The model, length and weight


def test_changed_lists_are_of_the_model_of_all(
    shop: Publishing, come: Callable[..., None], id_type: str
) -> None:
    first = shop.recipe().plan.model_version
    shop.everybody(shop.recipe(length=3, own_weight=0.5))
    second = shop.train(seed=8)
    come(order(7))
    shop.refresh()
    assert shop.users(only_changed=True).model_version == first
    (newcomer,) = texts(id_type, 7)
    assert len(shop.lists()[newcomer].products) == 3
    products = shop.products()
    shop.everybody(shop.recipes.of(Plan(first, length=3, own_weight=0.5)))
    assert shop.products() == products
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


def test_a_recipe_is_kept_as_long_as_its_plan_is(shop: Publishing) -> None:
    recipes = shop.recipes
    current = recipes.of_current_model(length=LENGTH, own_weight=2.0)
    assert recipes.of(replace(current.plan, complete=True)) is current
    assert recipes.of(replace(current.plan, length=5)).plan.length == 5
    shop.train(seed=8)
    other = recipes.of_current_model(length=5, own_weight=2.0)
    assert other.plan.model_version > current.plan.model_version


# --- Room


def test_without_room_nothing_is_written(small_sample_database_url: str, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", options={"maxmemory-policy": "noeviction"})
    with (
        server.in_use(),
        publishing(small_sample_database_url, server.url, tmp_path / "models") as shop,
    ):
        shop.refresh()
        first = shop.train()
        shop.everybody()
        before, plan = shop.values(), read_plan(shop.session.connection, shop.session.shop)
        used: Any = shop.client.info("memory")
        shop.client.config_set("maxmemory", used["used_memory"] + 2 * 10**6)
        shop.train(seed=8)
        with pytest.raises(
            NoRoomError, match=r"of 200 users fit, or lists of \d+ products"
        ) as told:
            shop.everybody(shop.recipe(length=1000))
        assert not told.value.room.fits
        assert shop.values() == before
        assert read_plan(shop.session.connection, shop.session.shop) == plan
        shop.session.connection.execute(
            "UPDATE orders SET status = 'cancelled', updated_at ="
            " (SELECT max(created_at) FROM orders)"
            " WHERE id = (SELECT id FROM orders ORDER BY created_at DESC, id LIMIT 1)"
        )
        shop.refresh()
        published = shop.changed()
        assert published is not None
        assert (published.model_version, published.written) == (first, 1)
