"""A run that stays and follows the orders: what it picks up, when it confirms, how it hands over.

Its clock is the test's, in minutes; servers and the run itself are real.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from recsys_assets import catalogue, follow
from recsys_assets.database import connect
from recsys_assets.publish.changed_users import is_under_way
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop
from serving.contract import unavailable_key
from tests.commands import eventually
from tests.graphs import PERSONAL, Graph, materializations, metadata, reasons
from tests.shops import Order, add_orders, create_shop, day

INTERACTIONS = "user_product_interactions"


@dataclass
class Clock:
    """Stands in for the module ``time``: stands still until a test sets it."""

    minutes: float = 0.0
    looks: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def monotonic(self) -> float:
        return 60 * self.minutes

    def sleep(self, _: float) -> None:
        self.looks.release()
        time.sleep(0.01)

    def reach(self, minutes: float) -> None:
        """Set the time, and wait until a run that follows has looked for orders since."""
        self.minutes = minutes
        while self.looks.acquire(blocking=False):
            pass
        for _ in range(2):  # the first may have begun before
            assert self.looks.acquire(timeout=60)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(follow, "time", clock)
    return clock


Follow = Callable[..., Future[dg.ExecuteInProcessResult]]


@pytest.fixture
def start(shop: Graph, clock: Clock) -> Iterator[Follow]:
    """Starts a run that follows the orders, in a thread; all end with the test."""

    def run(config: dict[str, Any]) -> dg.ExecuteInProcessResult:
        with dg.DagsterInstance.ephemeral() as instance:
            return replace(shop, instance=instance).refresh(**config)

    with ThreadPoolExecutor(2) as threads:
        yield lambda **config: threads.submit(run, {"minutes": 60} | config)
        clock.minutes = 1e9


@pytest.fixture
def shop(graph: Graph) -> Graph:
    """A shop whose lists are published."""
    with graph.database() as connection:
        create_shop(connection, [Order(n, n, [10, 11], day(n)) for n in (1, 2, 3)])
    assert graph.run(INTERACTIONS, *PERSONAL, "global_top_buys").success
    return graph


def order(shop: Graph, number: int, *, at: datetime | None = None) -> None:
    """An order of a user of its own."""
    with shop.database() as connection:
        add_orders(connection, [Order(number, number, [10], at or day(number))])


def wait_for_list(shop: Graph, user: int) -> None:
    with shop.redis() as client:
        eventually(lambda: client.exists(f"user:{user}:top_buys"), f"the list of user {user}")


def ended(run: Future[dg.ExecuteInProcessResult], *, refreshes: int) -> None:
    """The run ends by itself, with so many refreshes, each of three assets."""
    result = run.result(60)
    assert result.success
    made = [m.asset_key.to_user_string() for m in materializations(result)]
    assert made == [INTERACTIONS, "global_top_buys", "user_top_buys"] * refreshes


def test_orders_are_picked_up_as_they_come(shop: Graph, clock: Clock, start: Follow) -> None:
    run = start()
    for number in (11, 12, 13):
        order(shop, number)
        wait_for_list(shop, number)
    # committed late, with a time before that of the others
    order(shop, 14, at=day(13) - timedelta(minutes=5))
    wait_for_list(shop, 14)
    with shop.database() as connection:
        connection.execute(
            "UPDATE orders SET status = 'void', updated_at = %s WHERE id = 11", [day(14)]
        )
    with shop.redis() as client:
        eventually(lambda: not client.exists("user:11:top_buys"), "the end of a list")
    clock.minutes = 120
    assert run.result(60).success


def test_while_nothing_changes_nothing_is_done_but_to_confirm_that(
    shop: Graph, clock: Clock, start: Follow
) -> None:
    run = start(quiet_minutes=10)
    clock.reach(0)
    order(shop, 11, at=datetime.now(UTC) + timedelta(hours=1))  # which has not come yet
    clock.reach(5)
    clock.reach(10)
    before = shop.published()
    clock.reach(11)
    confirmed = shop.published()
    assert confirmed["publication:user_top_buys"] != before["publication:user_top_buys"]
    assert confirmed["user:1:top_buys"] == before["user:1:top_buys"]
    clock.reach(12)
    clock.reach(21)
    clock.minutes = 120
    ended(run, refreshes=3)  # at 0, 11 and 120 minutes


def test_the_successor_waits_until_the_hour_is_over_and_then_follows(
    shop: Graph, clock: Clock, start: Follow
) -> None:
    first = start(quiet_minutes=1000)
    clock.reach(0)
    second = start(quiet_minutes=1000)
    with closing(connect(shop.database_url, autocommit=True)) as connection:
        tables = inspect_shop(connection, ShopSettings())
        eventually(lambda: is_under_way(connection, tables, follow.WAITING), "a successor")
        clock.minutes = 59
        order(shop, 11)
        wait_for_list(shop, 11)
        clock.reach(59.9)
        assert not first.done()
        clock.minutes = 60
        ended(first, refreshes=2)
        eventually(lambda: not is_under_way(connection, tables, follow.WAITING), "its turn")
    clock.reach(60)
    order(shop, 12)
    wait_for_list(shop, 12)
    # its own hour is over, but nobody waits
    clock.minutes = 121
    order(shop, 13)
    wait_for_list(shop, 13)
    assert not second.done()
    clock.minutes = 180
    ended(second, refreshes=3)


def skipped(shop: Graph) -> set[Any]:
    """The products that readers skip."""
    with shop.redis() as client:
        return set(client.smembers(unavailable_key()))  # type: ignore[arg-type]


def test_what_the_shop_stops_selling_or_blocks_is_skipped(
    shop: Graph, clock: Clock, start: Follow
) -> None:
    with shop.database() as connection:
        connection.execute("CREATE TABLE products (id bigint, is_active boolean)")
        connection.execute("INSERT INTO products VALUES (10, true), (11, false)")
        run = start(quiet_minutes=1000)
        clock.reach(0)
        assert skipped(shop) == {"11"}
        connection.execute("UPDATE products SET is_active = NOT is_active")
        connection.execute(
            "INSERT INTO recommendation_rules (product_id, action)"
            " VALUES ('12', 'block'), ('13', 'hide')"
        )
        clock.reach(9 / 60)
        assert skipped(shop) == {"11"}
        clock.reach(10 / 60)
        assert skipped(shop) == {"10", "12"}
    clock.minutes = 120
    ended(run, refreshes=1)


def test_a_query_of_availability_that_fails_is_told_at_once(shop: Graph, clock: Clock) -> None:
    settings = shop.settings.model_copy(update={"unavailable_products_query": "SELECT 'tea'"})
    result = replace(shop, settings=settings).refresh()
    assert not result.success
    assert "RECSYS_UNAVAILABLE_PRODUCTS_QUERY" in reasons(result)["follow_orders"]
    assert materializations(result) == []


def test_a_shop_that_is_slow_to_tell_what_is_available_is_asked_again_at_the_next_look(
    shop: Graph, clock: Clock, start: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE", timedelta(seconds=1))
    with shop.database() as connection:
        connection.execute("CREATE TABLE slowness AS SELECT 300 AS seconds")
        connection.execute(
            "CREATE VIEW products AS SELECT 10::bigint AS id, false AS is_active"
            " FROM pg_sleep((SELECT seconds FROM slowness))"
        )
        connection.execute(
            "INSERT INTO recommendation_rules (product_id, action) VALUES ('12', 'block')"
        )
        run = start(quiet_minutes=1000)
        clock.reach(0)
        assert skipped(shop) == {"12"}
        order(shop, 11)
        wait_for_list(shop, 11)
        connection.execute("UPDATE slowness SET seconds = 0")
        clock.reach(10 / 60)
        assert skipped(shop) == {"10", "12"}
    clock.minutes = 120
    ended(run, refreshes=2)


def test_between_two_looks_at_availability_is_time_however_long_they_take(
    shop: Graph, clock: Clock, start: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def look(*args: Any, **options: Any) -> catalogue.Changes:
        nonlocal looks
        looks += 1
        clock.minutes += 1
        return refresh_unavailable(*args, **options)

    refresh_unavailable = catalogue.refresh_unavailable
    monkeypatch.setattr(catalogue, "refresh_unavailable", look)
    run = start(quiet_minutes=1000)
    clock.reach(clock.minutes)
    clock.reach(clock.minutes)
    assert looks == 1
    clock.minutes = 120
    assert run.result(60).success


def test_a_retraining_goes_on_beside(shop: Graph, clock: Clock, start: Follow) -> None:
    start()
    clock.reach(0)
    order(shop, 11)
    retrained = shop.run(config={"basket_rules": {"min_orders": 1}})
    assert retrained.success
    order(shop, 12)
    wait_for_list(shop, 12)
    version = metadata(retrained, "als_model")["version"]
    for user in (1, 11, 12):
        assert json.loads(shop.published()[f"user:{user}:top_buys"])["model_version"] == version


def test_a_run_that_loses_the_database_fails_and_stands_in_nobodys_way(
    shop: Graph, clock: Clock, start: Follow
) -> None:
    run = start()
    clock.reach(0)
    with shop.database() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert not run.result(60).success
    order(shop, 11)
    assert shop.refresh().success
    wait_for_list(shop, 11)


def test_looking_reads_entries_of_an_index(small_sample_database_url: str) -> None:
    with psycopg.connect(small_sample_database_url, autocommit=True) as connection:
        shop = inspect_shop(connection, ShopSettings())
        query = shop.changes(timedelta(minutes=10)).as_string(None)

        def buffers() -> int:
            ((explained,),) = connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}"
            ).fetchall()
            return int(explained[0]["Plan"]["Shared Hit Blocks"])

        connection.execute("ANALYZE orders")
        buffers()  # the catalogue is read once
        assert buffers() < 40
        connection.execute("DROP INDEX orders_updated_at")
        assert buffers() > 80  # all of the table: so it does tell
