"""Orders that come in: which, when, and what `recsys simulate` makes of them in a real database."""

import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.database import connect
from recsys_assets.demo import order_line
from recsys_assets.local.sample_shop import load_sample, start_of_last
from recsys_assets.local.simulator import (
    Line,
    NothingHeldBackError,
    Order,
    WaitingOrders,
    arrivals,
    come_in,
    place_orders,
    remaining,
    waiting_orders,
)
from tests.commands import Home

HOUSEHOLDS = 20
HELD_BACK = 116

FIRST = Order(
    7,
    70,
    datetime(2017, 12, 4, 12, tzinfo=UTC),
    (Line(1, 2, Decimal("3.50")), Line(2, 1, Decimal(0))),
)
SECOND = Order(5, 50, datetime(2017, 12, 4, 13, tzinfo=UTC), (Line(1, 1, Decimal("1.75")),))
TIED = Order(6, 50, datetime(2017, 12, 4, 13, tzinfo=UTC), (Line(3, 1, Decimal("0.99")),))


def lines_of(*orders: Order) -> pa.Table:
    """The orders as the parquet file of the sample has them."""
    rows = [
        {
            "basket_id": order.id,
            "household_id": order.user_id,
            "transaction_timestamp": order.placed_at.replace(tzinfo=None),
            "product_id": line.product_id,
            "quantity": line.quantity,
            "sales_value": float(line.price),
        }
        for order in orders
        for line in order.lines
    ]
    return pa.Table.from_pylist(rows)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a sample whose last four weeks are held back."""
    with connect(database_url) as connection:
        load_sample(connection, households=HOUSEHOLDS, until=start_of_last(28))
        connection.commit()
        yield connection


def contents(connection: psycopg.Connection) -> list[list[tuple[Any, ...]]]:
    """Every order and every line."""
    return [
        connection.execute(f"SELECT * FROM {table} AS t ORDER BY t::text").fetchall()  # type: ignore[call-overload]
        for table in ("orders", "order_items")
    ]


@settings(deadline=None)  # the first use of a function of pyarrow takes long
@given(
    st.permutations([FIRST, SECOND, TIED]),
    st.sets(st.sampled_from([FIRST.id, SECOND.id, TIED.id, 99])),
)
def test_orders_that_are_not_there_wait_in_the_order_of_their_time(
    stored: list[Order], present: set[int]
) -> None:
    waiting = remaining(lines_of(*stored), present)
    expected = [order for order in (FIRST, SECOND, TIED) if order.id not in present]
    assert list(waiting) == expected
    assert len(waiting) == len(expected)


@pytest.mark.parametrize("rate", [0.5, 5.0, 400.0])
def test_orders_arrive_as_a_poisson_process(rate: float) -> None:
    moments = [0.0, *islice(arrivals(rate, seed=3), 20_000)]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert min(gaps) > 0
    # of an exponential distribution, mean and standard deviation are the same
    assert statistics.fmean(gaps) * rate == pytest.approx(1, rel=0.03)
    assert statistics.stdev(gaps) * rate == pytest.approx(1, rel=0.03)


def test_arrivals_follow_from_the_seed() -> None:
    first, again, other = (list(islice(arrivals(1.0, seed), 5)) for seed in (1, 1, 2))
    assert first == again != other


def test_all_that_came_in_make_the_sample_that_was_loaded_whole(
    database_url: str, small_sample_database_url: str
) -> None:
    with connect(database_url) as replayed, connect(small_sample_database_url) as whole:
        load_sample(replayed, households=200, until=start_of_last(28))
        replayed.commit()
        for _ in come_in(replayed, waiting_orders(replayed), rate=10_000, burst=900):
            pass
        assert len(waiting_orders(replayed)) == 0
        assert contents(replayed) == contents(whole)


def test_an_order_is_committed_before_the_next_comes_in(
    connection: psycopg.Connection, database_url: str
) -> None:
    waiting = list(waiting_orders(connection))
    with connect(database_url, autocommit=True) as reader:
        since = [waiting[0].placed_at]
        seen = "SELECT id FROM orders WHERE updated_at >= %s ORDER BY updated_at, id"
        arriving = come_in(connection, waiting, rate=10_000, burst=4)
        assert [order.id for order in next(arriving)] == [order.id for order in waiting[:4]]
        for count in (4, 5, 6):
            ids = [order_id for (order_id,) in reader.execute(seen, since)]
            assert ids == [order.id for order in waiting[:count]]
            next(arriving)


def test_a_simulation_goes_on_where_the_last_one_stopped(connection: psycopg.Connection) -> None:
    waiting = list(waiting_orders(connection))
    assert len(waiting) == HELD_BACK
    for _ in come_in(connection, waiting[:5], rate=10_000):
        pass
    assert list(waiting_orders(connection)) == waiting[5:]
    assert place_orders(connection, waiting[3:6]) == waiting[5:6]
    before = contents(connection)
    assert place_orders(connection, waiting[:6]) == []
    assert list(come_in(connection, waiting[:5], rate=10_000)) == []
    assert contents(connection) == before


def test_two_simulations_at_once_place_every_order_once(
    connection: psycopg.Connection, database_url: str
) -> None:
    waiting = list(waiting_orders(connection))
    lines = connection.execute("SELECT count(*) FROM order_items").fetchone() or (0,)
    connection.commit()

    def run(seed: int) -> int:
        with connect(database_url) as own:
            return sum(map(len, come_in(own, waiting, rate=2_000, seed=seed)))

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(run, (1, 2))) == len(waiting)
    assert len(waiting_orders(connection)) == 0
    after = connection.execute("SELECT count(*) FROM order_items").fetchone() or (0,)
    assert after[0] - lines[0] == sum(len(order.lines) for order in waiting)


def test_where_nothing_is_held_back_it_says_what_to_do(database_url: str) -> None:
    with connect(database_url) as connection:
        with pytest.raises(NothingHeldBackError, match=r"no sample.*--hold-back-days 28"):
            waiting_orders(connection)
        load_sample(connection, households=2)
        with pytest.raises(NothingHeldBackError, match=r"of 2 households .* all .*--replace"):
            waiting_orders(connection)


def test_an_order_is_told_in_a_line() -> None:
    names = ["Bread", "Milk", "Tea", "Jam", "Ham"]
    assert order_line(FIRST, names[:1]) == "2017-12-04 12:00, user 70 bought Bread"
    assert order_line(FIRST, names).endswith("user 70 bought Bread; Milk; Tea and 2 more")


def test_nothing_waiting() -> None:
    waiting = remaining(lines_of(FIRST), {FIRST.id})
    assert waiting == WaitingOrders(lines_of(FIRST).slice(0, 0))
    assert (len(waiting), list(waiting)) == (0, [])


@pytest.fixture
def home(tmp_path: Path, database_url: str) -> Home:
    return Home(tmp_path, {"RECSYS_DATABASE_URL": database_url})


def test_the_command_ends_on_ctrl_c_and_goes_on_when_called_again(
    home: Home, database_url: str
) -> None:
    held = home.recsys("load-sample", "--households", HOUSEHOLDS, "--hold-back-days", 28)
    assert "recsys simulate" in held
    with home.started("simulate", "--rate", 10) as command:
        printed = command.wait_for(f" of {HELD_BACK} orders, ")
        assert "bought" in printed
        assert command.interrupt() == 0
        assert "are left, recsys simulate goes on" in command.printed()
        assert "Traceback" not in command.printed()
    with connect(database_url) as connection:
        left = len(waiting_orders(connection))
    assert 0 < left < HELD_BACK
    some = home.recsys("simulate", "--orders", 3, "--burst", 5)
    assert "3 of 3 orders, " in some
    assert f"{left - 3} are left" in some
    assert "none is left" in home.recsys("simulate", "--burst", 1_000)
    assert "0 orders have come in" in home.recsys("simulate")


def test_the_command_says_what_to_do_without_a_sample(home: Home) -> None:
    printed = home.recsys("simulate", fails=1)
    assert "recsys load-sample --hold-back-days 28" in printed
    assert "Traceback" not in printed
