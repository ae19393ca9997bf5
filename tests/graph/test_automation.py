"""The sensor `new_orders`, tick by tick, and by what runs it asks for no other."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from recsys_assets.automation import new_orders_sensor, no_follower_needed
from recsys_assets.resources import ShopDatabase
from recsys_assets.settings import Settings
from tests.graphs import Graph
from tests.shops import Order, create_shop, day

JOB = "refresh_on_new_orders"
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("localhost", 1), "__repository__"), JOB
)


@pytest.fixture
def shop(graph: Graph) -> Iterator[Graph]:
    """A shop of one order."""
    with graph.database() as connection:
        create_shop(connection, [Order(1, 1, [10], day(1))])
    return graph


def tick(graph: Graph, *, settings: Settings | None = None, **shop: Any) -> SensorExecutionData:
    """What a tick of the sensor arrives at; ``shop`` are fields of the resource."""
    sensor = new_orders_sensor(settings or graph.settings)
    resources = {"shop": ShopDatabase(**{"url": graph.database_url, **shop})}
    with dg.build_sensor_context(graph.instance, resources=resources) as context:
        return sensor.evaluate_tick(context)


def requested(data: SensorExecutionData) -> bool:
    assert len(data.run_requests or []) == (data.skip_message is None)
    return bool(data.run_requests)


@pytest.mark.parametrize("status", ["QUEUED", "NOT_STARTED", "STARTING", "STARTED"])
def test_no_second_run_while_one_is_under_way(shop: Graph, status: str) -> None:
    assert requested(tick(shop))
    job = shop.definitions.resolve_job_def(JOB)
    run = shop.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus(status), remote_job_origin=ORIGIN
    )
    assert tick(shop).skip_message == f"run {run.run_id} follows the orders"
    shop.instance.delete_run(run.run_id)
    assert requested(tick(shop))


@pytest.mark.parametrize("status", ["SUCCESS", "CANCELED"])
def test_a_run_that_has_ended_needs_another(shop: Graph, status: str) -> None:
    job = shop.definitions.resolve_job_def(JOB)
    shop.instance.create_run_for_job(job, status=dg.DagsterRunStatus(status))
    assert requested(tick(shop))


def test_a_run_of_something_else_does_not_matter(shop: Graph) -> None:
    for job in ("retrain_daily", "__ASSET_JOB"):
        shop.instance.create_run_for_job(
            shop.definitions.resolve_job_def(job), status=dg.DagsterRunStatus.STARTED
        )
    assert requested(tick(shop))


def test_a_failed_run_makes_the_sensor_wait(shop: Graph) -> None:
    failed = shop.refresh(minutes=-1)
    assert not failed.success
    waits = tick(shop)
    assert f"1 runs in a row have failed, the last is {failed.run_id}" in (waits.skip_message or "")


def test_the_run_that_is_asked_for_can_be_run(shop: Graph) -> None:
    settings = Settings(interactions_fresh_minutes=30, top_buys_fresh_minutes=50)
    (request,) = tick(shop, settings=settings).run_requests or []
    config = dg.validate_run_config(shop.definitions.resolve_job_def(JOB), request.run_config)
    # in a quiet shop, assets are confirmed before they are stale
    assert config["ops"]["follow_orders"]["config"] == {
        "seconds": 0.5,
        "quiet_minutes": 15,
        "availability_seconds": 10,
        "minutes": 60,
    }


# --- A shop that cannot be read


def test_a_database_that_is_away_is_a_reason(shop: Graph) -> None:
    away = tick(shop, url="postgresql://shop:hush@localhost:1/shop")
    assert "PostgreSQL cannot be reached" in (away.skip_message or "")
    assert "hush" not in (away.skip_message or "")


def test_a_database_that_does_not_answer_is_a_reason(shop: Graph) -> None:
    with shop.database() as other, other.transaction():
        other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        waits = tick(shop, statement_timeout_seconds=0.2)
        assert "statement timeout" in (waits.skip_message or "")
    assert requested(tick(shop))


def test_a_table_that_is_missing_is_a_reason(shop: Graph) -> None:
    with shop.database() as connection:
        connection.execute("ALTER TABLE orders RENAME TO bestellungen")
    assert "RECSYS_ORDERS_TABLE" in (tick(shop).skip_message or "")


def test_a_shop_without_orders_is_a_reason(graph: Graph) -> None:
    with graph.database() as connection:
        create_shop(connection)
    assert tick(graph).skip_message == "the shop has no orders yet"


def test_a_run_that_follows_is_told_before_the_shop_is_asked(shop: Graph) -> None:
    job = shop.definitions.resolve_job_def(JOB)
    run = shop.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    waits = tick(shop, url="postgresql://shop:hush@localhost:1/shop")
    assert waits.skip_message == f"run {run.run_id} follows the orders"


# --- Runs, newest first

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


def runs(*told: tuple[str, float]) -> list[dg.RunRecord]:
    """Records of runs with their status and the seconds since they were asked for, newest first.

    Those that have ended did so at once.
    """
    return [
        dg.RunRecord(
            storage_id=len(told) - number,
            dagster_run=dg.DagsterRun(
                JOB, run_id=f"run-{number}", status=status, remote_job_origin=ORIGIN
            ),
            create_timestamp=(began := NOW - timedelta(seconds=seconds)),
            update_timestamp=began,
            start_time=began.timestamp(),
            end_time=began.timestamp() if status not in ("QUEUED", "STARTED") else None,
        )
        for number, (name, seconds) in enumerate(told)
        if (status := dg.DagsterRunStatus(name))
    ]


def test_without_a_run_one_is_needed() -> None:
    assert no_follower_needed([], NOW) is None
    assert no_follower_needed(runs(("SUCCESS", 1), ("SUCCESS", 9)), NOW) is None


@pytest.mark.parametrize("status", ["QUEUED", "NOT_STARTED", "STARTING", "STARTED"])
def test_a_run_that_follows_is_enough_for_an_hour(status: str) -> None:
    assert no_follower_needed(runs((status, 0)), NOW) == "run run-0 follows the orders"
    assert no_follower_needed(runs((status, 3599)), NOW) is not None
    assert no_follower_needed(runs((status, 3600)), NOW) is None


def test_a_successor_is_enough() -> None:
    both = runs(("QUEUED", 1), ("STARTED", 3601))
    assert no_follower_needed(both, NOW) == "run run-0 follows the orders"
    long = runs(("STARTED", 3601), ("STARTED", 7300))
    assert no_follower_needed(long, NOW) is not None


def test_a_successor_that_has_failed_is_asked_for_again_after_the_pause() -> None:
    assert no_follower_needed(runs(("FAILURE", 4), ("STARTED", 3700)), NOW) is not None
    assert no_follower_needed(runs(("FAILURE", 5), ("STARTED", 3700)), NOW) is None


@pytest.mark.parametrize(
    ("failures", "pause"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60)]
)
def test_the_pause_doubles_with_each_failure_up_to_a_minute(failures: int, pause: int) -> None:
    earlier = [("FAILURE", 1000.0)] * (failures - 1)
    waits = no_follower_needed(runs(("FAILURE", pause - 1), *earlier), NOW)
    assert waits == (
        f"{failures} runs in a row have failed, the last is run-0; trying again at 12:00:01 UTC"
    )
    assert no_follower_needed(runs(("FAILURE", pause), *earlier), NOW) is None


@pytest.mark.parametrize("status", ["SUCCESS", "CANCELED"])
def test_failures_before_one_that_has_ended_otherwise_are_forgotten(status: str) -> None:
    assert no_follower_needed(runs((status, 1), ("FAILURE", 1), ("FAILURE", 2)), NOW) is None
    again = runs(("FAILURE", 5), (status, 9), ("FAILURE", 10), ("FAILURE", 11))
    assert no_follower_needed(again, NOW) is None


def test_a_run_that_was_ended_with_its_system_is_no_failure() -> None:
    ended, failed = runs(("FAILURE", 1), ("FAILURE", 2))
    tagged = ended.dagster_run.with_tags({"dagster/failure_reason": "UNEXPECTED_TERMINATION"})
    ended = ended._replace(dagster_run=tagged)
    assert no_follower_needed([ended, failed], NOW) is None
    assert no_follower_needed([failed, ended], NOW) is not None
