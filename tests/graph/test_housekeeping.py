"""Old runs go, with their events; what the UI still needs of an asset stays."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from recsys_assets.housekeeping import delete_runs
from tests.graphs import Graph
from tests.shops import Order, create_shop, day


def runs(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def test_old_runs_go_but_for_the_latest_of_each_asset(graph: Graph):
    with graph.database() as connection:
        create_shop(connection, [Order(1, 7, [10, 11], day(0))])
    first, second, failed = (
        graph.run("user_product_interactions"),
        graph.run("user_product_interactions"),
        graph.run("bought_together"),  # there are no rules yet
    )
    assert first.success
    assert second.success
    assert not failed.success
    instance = graph.instance

    assert delete_runs(instance, datetime.now(UTC) - timedelta(days=1)) == 0
    assert delete_runs(instance, datetime.now(UTC) + timedelta(seconds=1)) == 2
    assert runs(instance) == {second.run_id}
    assert instance.all_logs(first.run_id) == []
    latest = instance.get_latest_materialization_event(dg.AssetKey("user_product_interactions"))
    assert latest is not None
    assert latest.run_id == second.run_id


def test_runs_that_follow_orders_go_earlier_than_others(graph: Graph):
    with graph.database() as connection:
        create_shop(connection, [Order(1, 7, [10, 11], day(0))])
    other = graph.run("bought_together")  # there are no rules yet: it makes nothing
    first, latest = graph.refresh(), graph.refresh()
    assert first.success
    assert latest.success

    def delete(**days: float) -> None:
        assert graph.run(job="delete_old_runs_daily", config={"delete_old_runs": days}).success

    delete()
    assert {other.run_id, first.run_id, latest.run_id} <= runs(graph.instance)
    delete(kept_days_following=0)
    assert first.run_id not in runs(graph.instance)
    assert {other.run_id, latest.run_id} <= runs(graph.instance)


def test_the_job_keeps_a_week_and_its_own_run(graph: Graph):
    with graph.database() as connection:
        create_shop(connection, [Order(1, 7, [10, 11], day(0))])
    kept = graph.run("user_product_interactions")
    done = graph.run(job="delete_old_runs_daily")
    assert done.success
    assert runs(graph.instance) == {kept.run_id, done.run_id}
    assert graph.run(
        job="delete_old_runs_daily", config={"delete_old_runs": {"kept_days": 0}}
    ).success
    assert done.run_id not in runs(graph.instance)
    assert kept.run_id in runs(graph.instance)
