"""The sensor `new_orders`, tick by tick."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from recsys_assets.automation import Cursor, new_orders_sensor
from recsys_assets.resources import ShopDatabase
from recsys_assets.settings import Settings
from recsys_assets.shop import inspect_shop
from tests.graphs import Graph
from tests.shops import Order, add_orders, create_shop, day


@pytest.fixture
def shop(graph: Graph) -> Iterator[Graph]:
    """A shop of one order."""
    with graph.database() as connection:
        create_shop(connection, [Order(1, 1, [10], day(1))])
    return graph


def tick(
    graph: Graph, cursor: str | None = None, *, settings: Settings | None = None, **shop: Any
) -> SensorExecutionData:
    """What a tick of the sensor arrives at; ``shop`` are fields of the resource."""
    sensor = new_orders_sensor(settings or graph.settings)
    resources = {"shop": ShopDatabase(**{"url": graph.database_url, **shop})}
    with dg.build_sensor_context(graph.instance, cursor, resources=resources) as context:
        return sensor.evaluate_tick(context)


def requested(data: SensorExecutionData) -> bool:
    assert len(data.run_requests or []) == (data.skip_message is None)
    return bool(data.run_requests)


def order(graph: Graph, number: int, at: datetime) -> None:
    with graph.database() as connection:
        add_orders(connection, [Order(number, number, [10], at)])


def test_orders_that_are_processed_are_no_news(shop: Graph):
    assert shop.run("user_product_interactions").success
    first = tick(shop)
    assert first.skip_message == "no order has changed since 2024-01-01 00:00:00+00:00"
    order(shop, 2, day(2))
    assert requested(tick(shop, first.cursor))


def test_each_change_is_asked_for_once(shop: Graph):
    first = tick(shop)
    assert requested(first)  # nobody has processed it
    assert not requested(tick(shop, first.cursor))
    order(shop, 2, day(2))
    second = tick(shop, first.cursor)
    assert requested(second)
    assert second.run_requests[0].tags["recsys/orders_through"] == day(2).isoformat()
    assert not requested(tick(shop, second.cursor))
    order(shop, 1, day(3))  # the first one again, changed
    assert requested(tick(shop, second.cursor))


def test_an_order_from_the_future_waits_for_its_time(shop: Graph):
    first = tick(shop)
    order(shop, 2, datetime.now(UTC) + timedelta(hours=1))
    assert not requested(tick(shop, first.cursor))


@pytest.mark.parametrize("job", ["refresh_on_new_orders", "retrain_daily"])
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
def test_no_second_run_while_one_is_under_way(shop: Graph, job: str, status: dg.DagsterRunStatus):
    location = GrpcServerCodeLocationOrigin("localhost", 1)
    run = shop.instance.create_run_for_job(
        shop.definitions.resolve_job_def(job),
        status=status,
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job),
    )
    waits = tick(shop)
    assert waits.skip_message == f"{job} is queued or running; looking again when it is done"
    shop.instance.delete_run(run.run_id)
    assert requested(tick(shop, waits.cursor))


def test_a_run_of_something_else_does_not_matter(shop: Graph):
    job = shop.definitions.resolve_implicit_global_asset_job_def()
    shop.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert requested(tick(shop))


def test_a_database_that_is_away_is_a_reason(shop: Graph):
    first = tick(shop)
    away = tick(shop, first.cursor, url="postgresql://shop:hush@localhost:1/shop")
    assert "PostgreSQL cannot be reached" in away.skip_message
    assert "hush" not in away.skip_message
    order(shop, 2, day(2))
    assert requested(tick(shop, away.cursor))


def test_a_database_that_does_not_answer_is_a_reason(shop: Graph):
    with shop.database() as other, other.transaction():
        other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        assert "statement timeout" in tick(shop, statement_timeout_seconds=0.2).skip_message
    assert requested(tick(shop))


def test_a_table_that_is_missing_is_a_reason(shop: Graph):
    with shop.database() as connection:
        connection.execute("ALTER TABLE orders RENAME TO bestellungen")
    assert "RECSYS_ORDERS_TABLE" in tick(shop).skip_message


def test_a_shop_without_orders_is_a_reason(graph: Graph):
    with graph.database() as connection:
        create_shop(connection)
    assert tick(graph).skip_message == "the shop has no orders yet"


def test_a_quiet_shop_is_refreshed_before_its_lists_are_stale(shop: Graph):
    settings = Settings(interactions_fresh_minutes=30)

    def after(minutes: int) -> SensorExecutionData:
        asked = datetime.now(UTC) - timedelta(minutes=minutes)
        return tick(shop, str(Cursor.of(day(1), asked)), settings=settings)

    assert not requested(after(14))
    assert requested(after(16))
    assert not requested(tick(shop, after(16).cursor, settings=settings))


def test_polling_reads_an_entry_of_an_index(small_sample_database_url: str):
    with psycopg.connect(small_sample_database_url, autocommit=True) as connection:
        query = inspect_shop(connection, Settings()).last_change().as_string(None)

        def buffers() -> int:
            ((explained,),) = connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}"
            ).fetchall()
            return explained[0]["Plan"]["Shared Hit Blocks"]

        buffers()  # the catalogue is read once
        assert buffers() < 20
        connection.execute("CREATE INDEX orders_created_at ON orders (created_at)")
        connection.execute("ANALYZE orders")
        assert buffers() < 20
        connection.execute("DROP INDEX orders_updated_at")
        assert buffers() > 50  # all of the table: so it does tell
