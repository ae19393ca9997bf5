"""When assets are refreshed, and how old they may be: jobs, sensor, schedule, freshness.

What an asset does is in its stage's `assets.py`; nothing here computes anything.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import dagster as dg
import psycopg

from recsys_assets.database import ShopError
from recsys_assets.follow import MINUTES, refresh_on_new_orders
from recsys_assets.housekeeping import delete_old_runs_daily
from recsys_assets.resources import ShopDatabase
from recsys_assets.settings import Settings

OF_THE_SHOP = dg.AssetSelection.checks_for_assets("orders", "order_items")

# Steps of a run share one process: its start and imports are then paid once.
retrain_daily = dg.define_asset_job(
    "retrain_daily",
    selection=dg.AssetSelection.groups("ingest", "learn", "evaluate", "publish") | OF_THE_SHOP,
    executor_def=dg.in_process_executor,
    description="Both models from all orders, and everything that is published from them.",
)

HAND_OVER = timedelta(minutes=MINUTES)
SHORTEST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=1)
LONGEST_ROW = 6  # of failures that make a difference
ENDED_WITH_SYSTEM = "UNEXPECTED_TERMINATION"  # what Dagster calls a run that was sent SIGTERM
ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def freshness_policies(settings: Settings) -> Mapping[str, dg.FreshnessPolicy]:
    """The freshness policy of each asset: it warns at the age in the settings, fails at twice."""

    def within(window: timedelta) -> dg.FreshnessPolicy:
        return dg.FreshnessPolicy.time_window(fail_window=2 * window, warn_window=window)

    interactions = within(timedelta(minutes=settings.interactions_fresh_minutes))
    top_buys = within(timedelta(minutes=settings.top_buys_fresh_minutes))
    models = within(timedelta(hours=settings.models_fresh_hours))
    return {
        "user_product_interactions": interactions,
        "user_top_buys": top_buys,
        "global_top_buys": top_buys,
        "als_model": models,
        "top_buys_backtest": models,
        "basket_rules": models,
        "bought_together_backtest": models,
        "bought_together": models,
        "product_names": models,
    }


def new_orders_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that keeps a run of refresh_on_new_orders going, which follows the orders.

    It asks for a run when there is none, for a successor when the one there is has run for an hour,
    and waits the longer the more runs have failed in a row.
    """
    fresh_minutes = min(settings.interactions_fresh_minutes, settings.top_buys_fresh_minutes)
    config = {"ops": {"follow_orders": {"config": {"quiet_minutes": fresh_minutes / 2}}}}

    @dg.sensor(
        job_name=refresh_on_new_orders.name,
        name="new_orders",
        minimum_interval_seconds=1,
        default_status=_status_of_sensor(settings),
        description="Keeps a run of refresh_on_new_orders following the shop's orders.",
    )
    def new_orders(
        context: dg.SensorEvaluationContext, shop: ShopDatabase
    ) -> dg.RunRequest | dg.SkipReason:
        runs = context.instance.get_run_records(
            dg.RunsFilter(job_name=refresh_on_new_orders.name), limit=LONGEST_ROW
        )
        if reason := no_follower_needed(runs, datetime.now(UTC)):
            return dg.SkipReason(reason)
        try:
            if shop.last_change() is None:
                return dg.SkipReason("the shop has no orders yet")
        except (ShopError, psycopg.Error) as error:  # asked again at the next tick
            return dg.SkipReason(str(error))
        return dg.RunRequest(run_config=config)

    return new_orders


def no_follower_needed(runs: Sequence[dg.RunRecord], now: datetime) -> str | None:
    """Why not to ask for another run that follows the orders; None: ask for one.

    ``runs`` are the latest, newest first; ``now`` is aware.
    """
    active = [run for run in runs if run.dagster_run.status in ACTIVE]
    if active and (len(active) > 1 or now - active[0].create_timestamp < HAND_OVER):
        return f"run {active[0].dagster_run.run_id} follows the orders"
    failed = list(takewhile(has_failed, runs))
    if failed:
        pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** (len(failed) - 1))
        again = datetime.fromtimestamp(failed[0].end_time or 0, UTC) + pause
        if now < again:
            return (
                f"{len(failed)} runs in a row have failed, the last is"
                f" {failed[0].dagster_run.run_id}; trying again at {again:%H:%M:%S} UTC"
            )
    return None


def has_failed(run: dg.RunRecord) -> bool:
    """Whether a run has failed by itself, and was not ended with the system that executed it."""
    reason = run.dagster_run.tags.get("dagster/failure_reason")
    return run.dagster_run.status is dg.DagsterRunStatus.FAILURE and reason != ENDED_WITH_SYSTEM


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules of the daily jobs."""
    status = _status_of_schedule(settings)
    return [
        dg.ScheduleDefinition(
            name="retrain_daily_schedule",
            job=retrain_daily,
            cron_schedule=settings.retrain_cron,
            run_config={"ops": {"user_product_interactions": {"config": {"reconcile": True}}}},
            default_status=status,
        ),
        dg.ScheduleDefinition(
            name="delete_old_runs_schedule",
            job=delete_old_runs_daily,
            cron_schedule="30 4 * * *",
            default_status=status,
        ),
    ]


def _status_of_sensor(settings: Settings) -> dg.DefaultSensorStatus:
    if settings.automation_enabled:
        return dg.DefaultSensorStatus.RUNNING
    return dg.DefaultSensorStatus.STOPPED


def _status_of_schedule(settings: Settings) -> dg.DefaultScheduleStatus:
    if settings.automation_enabled:
        return dg.DefaultScheduleStatus.RUNNING
    return dg.DefaultScheduleStatus.STOPPED
