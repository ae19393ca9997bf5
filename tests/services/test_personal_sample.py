"""The users' lists of the sample shop: neither when nor how one is made changes it.

Whatever the way a list came about - of all users, in chunks, or of those that changed - it is what
a publication of all would now make of it.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recsys_assets.database import connect
from recsys_assets.local.redis import RedisServer
from recsys_assets.local.sample_shop import load_sample
from recsys_assets.publish.changed_users import read_plan
from recsys_assets.publish.personal import NoRoomError
from recsys_assets.tables import count_interactions
from tests.publications import publishing

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


@pytest.fixture
def larger_sample_database_url(database_url: str) -> str:
    with closing(connect(database_url)) as connection:
        load_sample(connection, households=600)
        connection.commit()
    return database_url


def users_of(connection: psycopg.Connection, statement: str, *parameters: Any) -> set[str]:
    """The users whose orders a statement changes."""
    return {str(user) for (user,) in connection.execute(statement, parameters or None)}


@pytest.mark.parametrize(
    ("sample", "factors"),
    [("small_sample_database_url", 32), ("larger_sample_database_url", 128)],
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
        catalogue = set(shop.maker().model.product_ids.tolist())
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
        contents = shop.contents()
        shop.everybody()
        assert shop.contents() == contents


def test_chunks_make_no_difference(small_sample_database_url: str, redis_url: str, tmp_path: Path):
    with publishing(small_sample_database_url, redis_url, tmp_path) as shop:
        shop.refresh()
        shop.train(factors=32)
        whole = shop.everybody()
        contents = shop.contents()
        rows, _ = count_interactions(shop.session.connection, shop.session.shop)
        shop.client.flushall()
        done: list[int] = []
        sizes: list[int] = []

        def read(query: Any) -> Any:
            table = shop.session.read(query)
            if "weight" in table.column_names:
                sizes.append(len(table))
            return table

        measured = replace(shop, session=replace(shop.session, read=read))
        chunked = measured.everybody(chunk_interactions=5_000, progress=done.append)
        assert done[-1] == chunked.written == whole.written == len(shop.values())
        _, *chunks = sizes  # the first is a sample
        assert sum(chunks) == rows
        assert len(chunks) == pytest.approx(rows / 5_000, rel=0.3)
        assert shop.contents() == contents


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
            shop.everybody(shop.maker(top_buys=1000))
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
