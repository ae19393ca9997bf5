"""When assets are refreshed, and how old they may be: jobs, sensor, schedule, freshness.

What an asset does is in its stage's `assets.py`; nothing here computes anything.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg

from recsys_assets.database import ShopError
from recsys_assets.housekeeping import delete_old_runs_daily
from recsys_assets.resources import ShopDatabase
from recsys_assets.settings import Settings

READABLE = dg.AssetSelection.checks_for_assets("orders")

# Steps of a run share one process: its start and imports are then paid once.
refresh_on_new_orders = dg.define_asset_job(
    "refresh_on_new_orders",
    selection=dg.AssetSelection.assets(
        "user_product_interactions", "global_top_buys", "user_top_buys"
    )
    | READABLE,
    executor_def=dg.in_process_executor,
    description="New orders into the interactions, and from there into the Top Buys lists.",
)
retrain_daily = dg.define_asset_job(
    "retrain_daily",
    selection=dg.AssetSelection.groups("ingest", "learn", "publish") | READABLE,
    executor_def=dg.in_process_executor,
    description="Both models from all orders, and everything that is published from them.",
)

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
        "basket_rules": models,
        "bought_together": models,
    }


@dataclass(frozen=True)
class Cursor:
    """What the sensor last asked for: the latest change it had seen, and when (ISO dates)."""

    seen: str
    at: str

    @classmethod
    def parse(cls, text: str | None) -> "Cursor | None":
        """The cursor that was stored, None at the first tick."""
        return cls(**json.loads(text)) if text else None

    @classmethod
    def of(cls, seen: datetime | None, at: datetime) -> "Cursor":
        """The cursor of a tick that had seen changes up to ``seen``."""
        return cls(seen.isoformat() if seen else "", at.isoformat())

    def __str__(self) -> str:
        return json.dumps(asdict(self))


def new_orders_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that asks for a refresh when the shop's orders have changed.

    One query for the latest change, which an index answers. Without new orders it asks again after
    half the age at which the interactions stop being fresh, so that a quiet night is not stale.
    """
    quiet = timedelta(minutes=settings.interactions_fresh_minutes) / 2

    @dg.sensor(
        job=refresh_on_new_orders,
        name="new_orders",
        minimum_interval_seconds=1,
        default_status=_status_of_sensor(settings),
        description="Requests refresh_on_new_orders when the latest change of an order is new.",
    )
    def new_orders(
        context: dg.SensorEvaluationContext, shop: ShopDatabase
    ) -> dg.RunRequest | dg.SkipReason:
        now = datetime.now(UTC)
        try:
            latest = shop.last_change()
            cursor = Cursor.parse(context.cursor) or Cursor.of(shop.processed_through(), now)
        except (ShopError, psycopg.Error) as error:  # asked again at the next tick
            return dg.SkipReason(str(error))
        if latest is None:
            return dg.SkipReason("the shop has no orders yet")
        if cursor.seen == latest.isoformat():
            idle = now - datetime.fromisoformat(cursor.at)
            if idle < quiet:
                return dg.SkipReason(f"no order has changed since {latest}")
        for job in (refresh_on_new_orders.name, retrain_daily.name):
            filters = dg.RunsFilter(job_name=job, statuses=ACTIVE)
            if context.instance.get_runs_count(filters):
                return dg.SkipReason(f"{job} is queued or running; looking again when it is done")
        context.update_cursor(str(Cursor.of(latest, now)))
        return dg.RunRequest(tags={"recsys/orders_through": latest.isoformat()})

    return new_orders


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules of the daily jobs."""
    status = _status_of_schedule(settings)
    return [
        dg.ScheduleDefinition(
            name="retrain_daily_schedule",
            job=retrain_daily,
            cron_schedule=settings.retrain_cron,
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
