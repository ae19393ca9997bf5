"""The incremental refresh, against scores worked out by hand and against a rebuild."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_assets.database import ShopError, connect
from recsys_assets.ingest.interactions import refresh_interactions
from recsys_assets.ingest.watermark import orders_watermark, required_watermark
from recsys_assets.tables import OUR_TABLES, forget_orders
from tests.refreshes import (
    HALF_LIFE,
    OVERLAP,
    Rows,
    by_hand,
    inspect,
    interactions,
    refresh,
    row_versions,
)
from tests.shops import Order, add_orders, create_shop, day, id_of


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database_url, autocommit=True)) as connection:
        yield connection


# --- Scores


def test_scores_worked_out_by_hand(connection: psycopg.Connection) -> None:
    create_shop(
        connection,
        [
            Order(1, 1, [5, 6], day(1)),
            Order(2, 1, [5], day(11)),  # one half-life later
            Order(3, 1, [5], day(31)),  # three half-lives after the first
            Order(4, 2, [5], day(2)),
        ],
    )
    result = refresh(connection)
    assert interactions(connection) == {
        (1, 5): (1 + 0.25 + 0.125, 3, day(1), day(31)),
        (1, 6): (1, 1, day(1), day(1)),
        (2, 5): (1, 1, day(2), day(2)),
    }
    assert (result.rebuilt, result.changed_orders, result.users_recomputed) == (True, 4, 2)
    assert (result.rows_written, result.rows_deleted) == (3, 0)
    assert (result.watermark_before, result.watermark) == (None, day(31))


def test_what_does_not_count_makes_no_row(connection: psycopg.Connection) -> None:
    create_shop(
        connection,
        [
            Order(1, None, [5], day(1)),
            Order(2, 1, [5], day(2), status="cancelled"),
            Order(3, 1, {5: 0, 6: -2}, day(3)),
            Order(4, 1, [None], day(4)),
            Order(5, 1, [], day(5)),
            Order(6, 1, [7, 7, 7], day(6)),  # one purchase, however many lines
        ],
    )
    refresh(connection)
    assert interactions(connection) == {(1, 7): (1, 1, day(6), day(6))}


def test_purchases_ages_apart_do_not_underflow(connection: psycopg.Connection) -> None:
    old = datetime(1970, 1, 1, tzinfo=UTC)
    create_shop(connection, [Order(1, 1, [5], old), Order(2, 1, [5], day(1))])
    refresh(connection, half_life=timedelta(minutes=1))
    assert interactions(connection) == {(1, 5): (1, 2, old, day(1))}
    assert refresh(connection, half_life=timedelta(minutes=1)).watermark == day(1)


def test_a_shop_of_1970(connection: psycopg.Connection) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    create_shop(connection, [Order(1, 1, [5], epoch), Order(2, 1, [5], epoch - HALF_LIFE)])
    assert refresh(connection).watermark == epoch
    assert interactions(connection) == {(1, 5): (1.5, 2, epoch - HALF_LIFE, epoch)}


def test_an_empty_shop(connection: psycopg.Connection) -> None:
    create_shop(connection)
    for _ in range(2):
        result = refresh(connection)
        assert (result.changed_orders, result.rows_written, result.watermark) == (0, 0, None)
    assert interactions(connection) == {}
    add_orders(connection, [Order(1, 1, [5], day(1))])
    assert refresh(connection).watermark == day(1)
    assert interactions(connection) == {(1, 5): (1, 1, day(1), day(1))}


# --- Increments


def test_run_twice_nothing_is_written(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(i, i % 3, [5, 6 + i % 2], day(1 + i / 7)) for i in range(20)])
    refresh(connection)
    before = row_versions(connection)
    result = refresh(connection)
    assert not result.rebuilt
    assert (result.rows_written, result.rows_deleted) == (0, 0)
    assert refresh(connection, rebuild=True).rows_written == 0
    assert row_versions(connection) == before


def test_only_users_with_changed_orders_are_recomputed(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1)), Order(2, 2, [5], day(2))])
    refresh(connection)
    untouched = row_versions(connection)[1]
    add_orders(connection, [Order(3, 1, [5], day(11)), Order(4, None, [5], day(12))])
    result = refresh(connection)
    assert (result.changed_orders, result.users_recomputed, result.rows_written) == (3, 1, 1)
    assert (result.watermark_before, result.watermark) == (day(2), day(12))
    assert interactions(connection)[1, 5] == (1.5, 2, day(1), day(11))
    assert row_versions(connection)[1] == untouched


def test_a_late_order_within_the_overlap_is_found(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, [5], day(5))])
    refresh(connection)
    add_orders(connection, [Order(2, 2, [6], day(5) - OVERLAP)])
    assert refresh(connection).watermark == day(5)
    assert (2, 6) in interactions(connection)


def test_a_cancelled_order_takes_its_purchases_back(connection: psycopg.Connection) -> None:
    first = Order(1, 1, [5, 6], day(1))
    second = Order(2, 1, [5], day(11))
    create_shop(connection, [first, second])
    refresh(connection)
    add_orders(connection, [replace(second, status="cancelled", updated_at=day(12))])
    result = refresh(connection)
    assert (result.rows_written, result.rows_deleted) == (1, 0)
    both = (1, 1, day(1), day(1))
    assert interactions(connection) == {(1, 5): both, (1, 6): both}
    add_orders(connection, [replace(first, status="refunded", updated_at=day(13))])
    assert refresh(connection).rows_deleted == 2
    assert interactions(connection) == {}
    add_orders(connection, [replace(first, updated_at=day(14))])
    refresh(connection)
    assert interactions(connection) == {(1, 5): both, (1, 6): both}


def test_edited_lines_of_an_order(connection: psycopg.Connection) -> None:
    order = Order(1, 1, [5, 6], day(1))
    create_shop(connection, [order])
    refresh(connection)
    add_orders(connection, [replace(order, products={6: 3, 7: 1, 8: -1}, updated_at=day(2))])
    result = refresh(connection)
    assert (result.rows_written, result.rows_deleted) == (1, 1)
    assert interactions(connection).keys() == {(1, 6), (1, 7)}


def test_an_order_updated_for_the_first_time(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1)), Order(2, 2, [5], day(2))])
    connection.execute("UPDATE orders SET updated_at = NULL")
    assert refresh(connection).watermark == day(2)
    add_orders(connection, [Order(3, 3, [5], day(3))])
    connection.execute("UPDATE orders SET updated_at = NULL")
    connection.execute("UPDATE orders SET updated_at = %s, status = 'void' WHERE id = 1", [day(4)])
    result = refresh(connection)
    assert not result.rebuilt
    assert result.watermark == day(4)
    assert interactions(connection).keys() == {(2, 5), (3, 5)}


def test_an_order_of_the_far_future_waits_and_hides_none(connection: psycopg.Connection) -> None:
    future = datetime(2999, 1, 1, tzinfo=UTC)
    create_shop(connection, [Order(1, 1, [5], day(1)), Order(2, 2, [5], future)])
    result = refresh(connection)
    assert (result.watermark, result.orders_in_future, result.orders_dated_ahead) == (day(1), 1, 1)
    assert interactions(connection).keys() == {(1, 5)}
    add_orders(connection, [Order(3, 3, [5], day(2))])
    result = refresh(connection)
    assert (result.watermark, result.orders_in_future, result.orders_dated_ahead) == (day(2), 1, 1)
    assert interactions(connection).keys() == {(1, 5), (3, 5)}


def test_an_order_by_a_clock_that_is_ahead_counts_at_once(connection: psycopg.Connection) -> None:
    soon = datetime.now(UTC) + timedelta(hours=3)
    create_shop(connection, [Order(1, 1, [5], day(1))])
    refresh(connection)
    add_orders(connection, [Order(2, 1, [6], soon)])
    for rows_written in (1, 0):
        result = refresh(connection)
        assert (result.watermark, result.rows_written) == (day(1), rows_written)
        assert (result.orders_in_future, result.orders_dated_ahead) == (1, 0)
    assert interactions(connection)[1, 6] == (1, 1, soon, soon)


def test_a_shop_of_the_future_alone(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, [5], datetime(2999, 1, 1, tzinfo=UTC))])
    for _ in range(2):
        result = refresh(connection)
        assert (result.watermark, result.orders_dated_ahead) == (None, 1)
    assert interactions(connection) == {}


def test_an_order_that_moves_leaves_its_user_at_once(connection: psycopg.Connection) -> None:
    order = Order(1, 1, [5, 6], day(1))
    create_shop(connection, [order, Order(2, 2, [5], day(1))])
    refresh(connection)
    add_orders(connection, [replace(order, user=2, updated_at=day(3))])
    result = refresh(connection)
    assert (result.difference.orders_altered, result.users_recomputed) == (1, 2)
    once = (1, 1, day(1), day(1))
    assert interactions(connection) == {(2, 5): (2, 2, day(1), day(1)), (2, 6): once}


def test_a_failed_refresh_changes_nothing(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1))])
    refresh(connection)
    connection.execute("ALTER TABLE user_product_interactions ADD CHECK (purchase_count < 2)")
    add_orders(connection, [Order(2, 1, [5], day(2))])
    before = row_versions(connection)
    with pytest.raises(psycopg.errors.CheckViolation):
        refresh(connection)
    connection.rollback()
    assert row_versions(connection) == before
    assert orders_watermark(connection, inspect(connection)) == day(1)
    connection.execute(
        "ALTER TABLE user_product_interactions DROP CONSTRAINT"
        " user_product_interactions_purchase_count_check"
    )
    assert refresh(connection).rows_written == 1


# --- Other shops


@pytest.mark.parametrize("timestamp_type", ["timestamptz", "timestamp", "timestamp(0)"])
@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
@pytest.mark.parametrize("without", [(), ("updated_at",), ("status",), ("quantity",)], ids=str)
def test_shops_of_other_columns_and_types(
    connection: psycopg.Connection, timestamp_type: str, id_type: str, without: tuple[str, ...]
) -> None:
    def pair(user: int, product: int) -> tuple[Any, Any]:
        return id_of(user, id_type), id_of(product, id_type)

    create_shop(
        connection,
        [Order(1, 1, {5: 1, 6: 0}, day(1)), Order(2, 1, [5], day(11), status="cancelled")],
        timestamp_type=timestamp_type,
        id_type=id_type,
        without=without,
    )
    assert refresh(connection).watermark == day(11)
    add_orders(connection, [Order(3, 2, [5], day(12))])
    result = refresh(connection)
    assert (result.rebuilt, result.watermark) == (False, day(12))
    once = (1, 1, day(1), day(1))
    expected: Rows = {pair(1, 5): once, pair(2, 5): (1, 1, day(12), day(12))}
    if "status" in without:
        expected[pair(1, 5)] = (1.5, 2, day(1), day(11))
    if "quantity" in without:
        expected[pair(1, 6)] = once
    assert interactions(connection) == expected


# --- At once


def test_a_refresh_waits_for_another(connection: psycopg.Connection, database_url: str) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1))])
    refresh(connection)
    with closing(connect(database_url)) as second, ThreadPoolExecutor(1) as thread:
        with connection.transaction():
            refresh_interactions(
                connection, inspect(connection), half_life=HALF_LIFE, overlap=OVERLAP
            )
            waiting = thread.submit(refresh, second)
            with closing(connect(database_url)) as observer:
                add_orders(observer, [Order(2, 2, [6], day(2))])
                observer.autocommit = True
                while not observer.execute(
                    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND datname = current_database()"
                ).fetchone():
                    assert not waiting.done()
        assert waiting.result().watermark == day(2)
        assert (2, 6) in interactions(second)


# --- Whatever happens


CHANGES = st.lists(
    st.tuples(
        st.integers(1, 12),  # the order, whose user does not change
        st.lists(st.tuples(st.sampled_from([5, 6, 7, None]), st.integers(-1, 2)), max_size=4),
        st.sampled_from(["completed", "completed", "cancelled"]),
        st.sampled_from([0, 0, 5, 10]),  # minutes that its commit is late
    ),
    max_size=5,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=st.lists(CHANGES, min_size=1, max_size=5))
def test_increments_arrive_where_a_rebuild_does(
    connection: psycopg.Connection, history: list[list[tuple[int, list[Any], str, int]]]
) -> None:
    connection.execute("DROP TABLE IF EXISTS orders, order_items")
    connection.execute(f"DROP TABLE IF EXISTS {', '.join(OUR_TABLES)}")
    create_shop(connection)
    orders: dict[Any, Order] = {}
    for number, changes in enumerate(history, start=1):
        now = day(20) + number * timedelta(minutes=5)
        for order_id, lines, status, late in changes:
            user = [None, 1, 2, 3][order_id % 4]
            changed = now - timedelta(minutes=late)
            products = dict(lines)
            orders[order_id] = Order(order_id, user, products, day(order_id), status, changed)
            add_orders(connection, [orders[order_id]])
        refresh(connection)
    assert interactions(connection) == by_hand(orders)
    incremental = row_versions(connection)
    assert refresh(connection, rebuild=True).rows_written == 0
    assert row_versions(connection) == incremental


def test_a_refresh_tells_of_the_newest_purchases(connection: psycopg.Connection) -> None:
    create_shop(
        connection,
        [Order(1, 7, [10], day(0)), Order(2, 7, [10], day(10)), Order(3, 8, [11], day(2))],
    )
    (first, second) = refresh(connection).newest
    assert first == (7, 10, pytest.approx(1.5), 2, day(10))
    assert second == (8, 11, 1.0, 1, day(2))
    assert refresh(connection).newest == []
    add_orders(connection, [Order(4, 8, [11], day(12))])
    assert refresh(connection).newest == [(8, 11, pytest.approx(1.5), 2, day(12))]


def test_orders_that_were_replaced_are_all_read_again(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 7, [10], day(5))])
    refresh(connection)
    connection.execute("DROP TABLE order_items, orders")
    create_shop(connection, [Order(1, 8, [11], day(1))])
    forget_orders(connection, inspect(connection))
    assert refresh(connection).watermark == day(1)
    assert list(interactions(connection)) == [(8, 11)]


def test_who_goes_on_as_before_rebuilds_nothing_for_other_settings(
    connection: psycopg.Connection,
) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1))])
    refresh(connection, as_before=True)
    before = row_versions(connection)
    with pytest.raises(ShopError, match="restart those that run"):
        refresh(connection, as_before=True, half_life=HALF_LIFE / 2)
    connection.rollback()
    assert row_versions(connection) == before
    assert refresh(connection, half_life=HALF_LIFE / 2).rebuilt


def test_weights_are_not_read_by_another_half_life(connection: psycopg.Connection) -> None:
    create_shop(connection, [Order(1, 1, [5], day(1))])
    shop = inspect(connection)
    with pytest.raises(ShopError, match="materialize user_product_interactions"):
        required_watermark(connection, shop, HALF_LIFE)
    refresh(connection)
    assert required_watermark(connection, shop, HALF_LIFE) == day(1)
    with pytest.raises(ShopError, match=r"half-life of 10 days, here it is 5"):
        required_watermark(connection, shop, HALF_LIFE / 2)
