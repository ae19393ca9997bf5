"""A run that stays and follows the orders: what it picks up, when it confirms, how it hands over.

Its clock is the test's, in minutes; servers and the run itself are real.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from recsys_assets import follow
from recsys_assets.database import connect
from recsys_assets.publish.changed_users import is_under_way
from recsys_assets.settings import ShopSettings
from recsys_assets.shop import inspect_shop
from serving.contract import unavailable_key
from tests.commands import eventually
from tests.graphs import PERSONAL, Graph, materializations
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


def test_a_query_of_availability_that_fails_is_told_and_orders_are_followed_all_the_same(
    shop: Graph, clock: Clock
) -> None:
    settings = shop.settings.model_copy(update={"unavailable_products_query": "SELECT 'tea'"})
    result = replace(shop, settings=settings).refresh()
    assert result.success
    assert materializations(result) != []
    told = [entry.user_message for entry in shop.instance.all_logs(result.run_id)]
    assert any("RECSYS_UNAVAILABLE_PRODUCTS_QUERY does not tell" in text for text in told)
