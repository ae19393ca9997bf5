"""Keeping Dagster's own records small: a refresh every second is thousands of events a day.

Ticks are kept as `dagster.yaml` says; runs, with their events and logs, as the job here says.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from recsys_assets.follow import refresh_on_new_orders

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


class RetentionConfig(dg.Config):
    """How long runs are kept."""

    kept_days: float = Field(7.0, ge=0, description="days after which a finished run is deleted")
    kept_days_following: float = Field(
        1.0, ge=0, description="the same for runs that follow orders, which hold many refreshes"
    )


@dg.op
def delete_old_runs(context: dg.OpExecutionContext, config: RetentionConfig) -> None:
    """Delete finished runs with their events and logs, but for the latest of each asset."""
    now = datetime.now(UTC)
    for job, days in (
        (None, config.kept_days),
        (refresh_on_new_orders.name, config.kept_days_following),
    ):
        before = now - timedelta(days=days)
        deleted = delete_runs(context.instance, before, job)
        of = f" of {job}" if job else ""
        context.log.info(f"deleted {deleted:,} runs{of}, begun before {before:%Y-%m-%d %H:%M} UTC")


@dg.job(executor_def=dg.in_process_executor)
def delete_old_runs_daily() -> None:
    """Old runs with their events and logs; the run that has last made an asset stays."""
    delete_old_runs()


def delete_runs(instance: dg.DagsterInstance, before: datetime, job: str | None = None) -> int:
    """Delete the finished runs, of one job or of all, begun before a moment; returns how many.

    A run that holds the latest materialization of an asset stays, for its age and freshness.
    """
    kept = {
        event.run_id
        for key in instance.get_asset_keys()
        if (event := instance.get_latest_materialization_event(key))
    }
    filters = dg.RunsFilter(job_name=job, statuses=FINISHED, created_before=before)
    old = [run_id for run_id in instance.get_run_ids(filters) if run_id not in kept]
    for run_id in old:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    return len(old)
