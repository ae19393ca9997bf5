"""First runs and rebuilds, chunk by chunk: what ends in between, comes in between, runs beside."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from recsys_assets.database import connect
from recsys_assets.ingest.interactions import Progress, Refresh, refresh_interactions
from recsys_assets.ingest.watermark import orders_watermark
from recsys_assets.publish.changed_users import Lengths, Plan, read_plan, save_plan
from recsys_assets.tables import create_tables
from tests.refreshes import (
    HALF_LIFE,
    OVERLAP,
    by_hand,
    inspect,
    interactions,
    refresh,
)
from tests.shops import Order, add_orders, create_shop, day, id_of

# In chunks of three orders: users 1 and 2, 3 and 4, 5 with four orders, 6, nobody; then the guests'
# orders 14 to 16, and 17.
CHUNKS = 7
USERS = [1, 2, 2, 3, 3, 4, 5, 5, 5, 5, 6, 6]
ORDERS = [
    *(Order(n, user, [10 + n % 3, 20], day(n)) for n, user in enumerate(USERS, start=1)),
    Order(13, 6, [10], day(13), status="cancelled"),
    *(Order(n, None, [10 + n % 3, 30], day(n)) for n in range(14, 18)),
]


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database_url, autocommit=True)) as connection:
        yield connection


class Stopped(Exception):
    """Raised in the middle of a backfill."""


class Chunks:
    """Counts the chunks, and raises after the last that is to be done."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))
        if len(self.told) == self.most:
            raise Stopped


def in_chunks(
    connection: psycopg.Connection, progress: Progress | None = None, **options: Any
) -> Refresh:
    return refresh(connection, chunk_orders=3, progress=progress or Chunks(), **options)


def of_type(orders: Iterable[Order], id_type: str) -> dict[Any, Order]:
    """Orders as ``by_hand`` takes them, with all ids in the form of the shop's."""

    def given(number: Any) -> Any:
        if number is None:
            return None
        return str(number) if id_type.startswith("character") else id_of(number, id_type)

    return {
        order.id: replace(
            order,
            user=given(order.user),
            products={given(product): quantity for product, quantity in order.lines},
        )
        for order in orders
    }


def everything(connection: psycopg.Connection, schema: str = "public") -> list[set[Any]]:
    """Interactions, counted orders and popularity, but for the last bits of sums."""
    return [
        set(connection.execute(f"SELECT {columns} FROM {schema}.{table}").fetchall())
        for table, columns in [
            (
                "user_product_interactions",
                "user_id, product_id, round(interaction_score::numeric, 9), purchase_count,"
                " first_purchased_at, last_updated_at",
            ),
            ("counted_orders", "order_id, user_id, purchased_at, product_ids::text"),
            ("product_popularity", "product_id, purchase_count, round(weight::numeric, 9)"),
        ]
    ]


# --- What begins one


@pytest.mark.parametrize(
    "change",
    [{"half_life": timedelta(days=5)}, {"purchase_statuses": ["completed", "open"]}],
    ids=["half-life", "statuses"],
)
def test_what_the_scores_depend_on_triggers_a_rebuild(
    connection: psycopg.Connection, change: dict[str, Any]
) -> None:
    create_shop(
        connection,
        [
            Order(1, 1, [5], day(1)),
            Order(2, 1, [5], day(11)),
            Order(3, 2, [5], day(1), status="open"),
            Order(4, 3, [5], day(30)),
        ],
    )
    refresh(connection)
    result = refresh(connection, **change)
    assert (result.rebuilt, result.rows_written) == (True, 1)
    if "half_life" in change:
        assert interactions(connection)[1, 5] == (1.25, 2, day(1), day(11))
    else:
        assert interactions(connection)[2, 5] == (1, 1, day(1), day(1))
    assert not refresh(connection, **change).rebuilt
    assert refresh(connection).rebuilt  # back again


def test_nothing_is_published_from_a_rebuild_that_has_failed(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1))])
    refresh(connection)
    shop = replace(inspect(connection), item_product_id="gone")
    connection.commit()
    with pytest.raises(psycopg.errors.UndefinedColumn):
        refresh_interactions(connection, shop, half_life=HALF_LIFE, overlap=OVERLAP)
    connection.rollback()
    assert refresh(connection).watermark == day(1)


# --- Chunks


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid", "character varying(36)"])
def test_chunks_arrive_where_one_does(connection: psycopg.Connection, id_type: str) -> None:
    create_shop(connection, ORDERS, id_type=id_type)
    chunks, one = Chunks(), Chunks()
    result = in_chunks(connection, chunks)
    assert refresh(connection, progress=one, schema_name="whole").difference == result.difference
    assert everything(connection) == everything(connection, "whole")
    assert interactions(connection) == by_hand(of_type(ORDERS, id_type))
    assert (len(chunks.told), len(one.told)) == (CHUNKS, 2)  # of users, and of guests
    done, totals = zip(*chunks.told, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {17}
    assert done[-1] == 17
    assert (result.changed_orders, result.users_recomputed) == (17, 6)


def test_text_ids_of_all_kinds(connection: psycopg.Connection) -> None:
    ids = ["a", "B", "b", "Z", "é", "z", "-a", " a", "", "ä", "'", "%s", "{}", "\\"]
    orders = [
        *(Order(f"{n} of {user}", user, ["tea"], day(1)) for user in ids for n in (1, 2)),
        *(Order(guests, None, ["ale"], day(2)) for guests in ids),
    ]
    create_shop(connection, orders, id_type="text")
    chunks = Chunks()
    in_chunks(connection, chunks)
    assert interactions(connection) == by_hand({order.id: order for order in orders})
    rows = connection.execute("SELECT product_id, purchase_count FROM product_popularity")
    assert dict(rows.fetchall()) == {"tea": 2 * len(ids), "ale": len(ids)}
    assert len(chunks.told) == 8 + 5  # two users at a time, then three guests' orders
    assert in_chunks(connection, rebuild=True).difference.orders == 0


@pytest.mark.parametrize("gone", [0, 3, 9], ids=["before all", "between", "after all"])
def test_a_rebuild_removes_what_no_order_stands_behind(
    connection: psycopg.Connection, gone: int
) -> None:
    more = [Order(98, gone, [77], day(1)), Order(gone, None, [78], day(1))]
    create_shop(connection, [order for order in ORDERS if order.id != gone] + more)
    in_chunks(connection)
    connection.execute("DELETE FROM orders WHERE user_id = %s OR id IN (98, %s)", [gone, gone])
    connection.execute("INSERT INTO user_product_interactions VALUES (99, 1, 1, 1, now(), now())")
    in_chunks(connection, rebuild=True)
    refresh(connection, schema_name="oracle")
    assert everything(connection) == everything(connection, "oracle")
    assert not {gone, 99} & {user for user, _ in interactions(connection)}


def test_lists_are_published_anew_after_it(connection: psycopg.Connection) -> None:
    create_shop(connection, ORDERS)
    refresh(connection)
    shop = inspect(connection)
    plan = Plan("v1", Lengths(), by_affinity=True, complete=True)
    save_plan(connection, shop, plan, day(1))
    refresh(connection)
    assert read_plan(connection, shop) == plan
    with pytest.raises(Stopped):
        in_chunks(connection, Chunks(CHUNKS), rebuild=True)
    assert read_plan(connection, shop) == plan
    in_chunks(connection)
    assert read_plan(connection, shop) is None


# --- What ends in between is continued


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
@pytest.mark.parametrize("done", range(1, CHUNKS + 1))
def test_one_that_was_killed_is_continued_where_it_stopped(
    connection: psycopg.Connection, database_url: str, id_type: str, done: int
) -> None:
    create_shop(connection, ORDERS, id_type=id_type)
    with closing(connect(database_url, autocommit=True)) as first, pytest.raises(Stopped):
        in_chunks(first, Chunks(done))
    assert orders_watermark(connection, inspect(connection)) is None
    rest = Chunks()
    result = in_chunks(connection, rest)
    assert len(rest.told) == CHUNKS - done
    assert (result.rebuilt, result.watermark) == (True, day(17))
    assert interactions(connection) == by_hand(of_type(ORDERS, id_type))
    in_chunks(connection, schema_name="oracle")
    assert everything(connection) == everything(connection, "oracle")
    again = Chunks()
    assert not in_chunks(connection, again).rebuilt
    assert again.told == []


def test_a_session_that_is_ended_within_a_chunk_leaves_those_before(
    connection: psycopg.Connection, database_url: str
) -> None:
    create_shop(connection, ORDERS)
    with closing(connect(database_url, autocommit=True)) as first:

        def end_in_the_third(done: int, _: int) -> None:
            if done == 6:  # the next chunk fails when it writes its first order
                connection.execute("ALTER TABLE counted_orders ADD CHECK (order_id < 7)")

        with pytest.raises(psycopg.errors.CheckViolation):
            in_chunks(first, end_in_the_third)
    connection.execute("ALTER TABLE counted_orders DROP CONSTRAINT counted_orders_order_id_check")
    assert {user for user, _ in interactions(connection)} == {1, 2, 3, 4}
    rest = Chunks()
    in_chunks(connection, rest)
    assert len(rest.told) == CHUNKS - 2
    assert interactions(connection) == by_hand(of_type(ORDERS, "bigint"))


def test_one_under_way_is_not_begun_anew_by_who_asks_for_it(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection, ORDERS)
    refresh(connection)
    with pytest.raises(Stopped):
        in_chunks(connection, Chunks(4), rebuild=True)
    assert orders_watermark(connection, inspect(connection)) == day(17)  # it held already
    rest = Chunks()
    assert in_chunks(connection, rest, rebuild=True).rebuilt
    assert len(rest.told) == CHUNKS - 4


def test_another_half_life_during_one_starts_anew(connection: psycopg.Connection) -> None:
    create_shop(connection, ORDERS)
    refresh(connection)
    with pytest.raises(Stopped):
        in_chunks(connection, Chunks(4), half_life=HALF_LIFE / 2)
    anew = Chunks()
    result = in_chunks(connection, anew, half_life=3 * HALF_LIFE)
    assert (result.rebuilt, len(anew.told)) == (True, CHUNKS)
    assert interactions(connection) == by_hand(of_type(ORDERS, "bigint"), 3 * HALF_LIFE)
    # and so does the one before, of which nothing is left
    with pytest.raises(Stopped):
        in_chunks(connection, Chunks(2), half_life=HALF_LIFE / 2)
    anew = Chunks()
    assert in_chunks(connection, anew).watermark == day(17)
    assert len(anew.told) == CHUNKS
    assert interactions(connection) == by_hand(of_type(ORDERS, "bigint"))


# --- What comes in between


@pytest.mark.parametrize("when", range(1, CHUNKS + 1))
def test_orders_that_change_meanwhile_are_caught_up(
    connection: psycopg.Connection, database_url: str, when: int
) -> None:
    create_shop(connection, ORDERS)
    changes = [
        replace(ORDERS[0], status="cancelled", updated_at=day(20)),  # of the first user
        replace(ORDERS[11], products=[55], updated_at=day(21)),  # of the last
        replace(ORDERS[6], user=1, updated_at=day(22)),  # moves, as does
        replace(ORDERS[13], user=6, updated_at=day(23)),  # a guest's
        Order(20, 0, [10], day(24)),  # users before, among and after the others
        Order(21, 3, [10, 66], day(25)),
        Order(22, 9, [10], day(26)),
        Order(23, None, [30], day(27)),
    ]
    with closing(connect(database_url, autocommit=True)) as shopper:

        def change(done: int, total: int) -> None:
            chunks(done, total)
            if len(chunks.told) == when:
                add_orders(shopper, changes)

        chunks = Chunks()
        assert in_chunks(connection, change).watermark == day(27)
    now = of_type(ORDERS, "bigint") | of_type(changes, "bigint")
    assert interactions(connection) == by_hand(now)
    in_chunks(connection, schema_name="oracle")
    found, expected = everything(connection), everything(connection, "oracle")
    assert found[:2] == expected[:2]
    assert {row[:2] for row in found[2]} == {row[:2] for row in expected[2]}


def test_the_shops_writers_do_not_wait_for_a_chunk(
    connection: psycopg.Connection, database_url: str
) -> None:
    create_shop(connection, ORDERS)
    create_tables(connection, inspect(connection))
    came = Order(30, 2, [10], day(30))
    void = replace(ORDERS[2], status="void", updated_at=day(31))
    with (
        closing(connect(database_url, autocommit=True)) as holder,
        closing(connect(database_url, autocommit=True)) as backfilling,
        ThreadPoolExecutor(1) as thread,
    ):
        with holder.transaction():
            # The backfill stops within its first chunk, at what it is about to write.
            holder.execute("LOCK TABLE counted_orders IN SHARE MODE")
            result = thread.submit(in_chunks, backfilling)
            pid = backfilling.info.backend_pid
            while not connection.execute(
                "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [pid]
            ).fetchall():
                assert not result.done()
            locks = connection.execute(
                "SELECT DISTINCT relation::regclass::text, mode FROM pg_locks WHERE pid = %s"
                " AND relation IN ('orders'::regclass, 'order_items'::regclass)",
                [pid],
            ).fetchall()
            connection.execute("SET lock_timeout = '100ms'")
            add_orders(connection, [came, void])
        assert result.result().watermark == day(31)
    assert set(locks) == {("orders", "AccessShareLock"), ("order_items", "AccessShareLock")}
    now = of_type([*ORDERS, came, void], "bigint")
    assert interactions(connection) == by_hand(now)


# --- At once


def test_many_first_refreshes_at_once(database_url: str) -> None:
    with closing(connect(database_url)) as connection:
        create_shop(connection, [Order(i, i % 7, [i % 5, 5], day(1 + i)) for i in range(50)])
    start = threading.Barrier(4)

    def first_refresh(_: int) -> Refresh:
        with closing(connect(database_url)) as connection:
            shop = inspect(connection, schema_name="recsys")
            connection.commit()
            start.wait(30)
            return refresh_interactions(connection, shop, half_life=HALF_LIFE, overlap=OVERLAP)

    for _ in range(5):
        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(first_refresh, range(4)))
        assert any(result.rebuilt for result in results)
        assert {result.watermark for result in results} == {day(50)}
        with closing(connect(database_url)) as connection:
            connection.execute("DROP SCHEMA recsys CASCADE")
            connection.commit()


def test_two_at_once_take_turns_at_the_chunks(
    connection: psycopg.Connection, database_url: str
) -> None:
    create_shop(connection, ORDERS)
    refresh(connection)
    of_second = Chunks()
    with closing(connect(database_url, autocommit=True)) as second:

        def let_the_second_go_on(done: int, total: int) -> None:
            of_first(done, total)
            in_chunks(second, of_second, rebuild=True)

        of_first = Chunks()
        assert in_chunks(connection, let_the_second_go_on, rebuild=True).rebuilt
    assert (len(of_first.told), len(of_second.told)) == (1, CHUNKS - 1)
    assert interactions(connection) == by_hand(of_type(ORDERS, "bigint"))
