"""Keeping Dagster's own records small: a refresh every few seconds is thousands of runs a day.

Ticks are kept as `dagster.yaml` says; runs, with their events and logs, as the job here says.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


class RetentionConfig(dg.Config):
    """How long runs are kept."""

    kept_days: float = Field(7.0, ge=0, description="days after which a finished run is deleted")


@dg.op
def delete_old_runs(context: dg.OpExecutionContext, config: RetentionConfig) -> None:
    """Delete finished runs with their events and logs, but for the latest of each asset."""
    before = datetime.now(UTC) - timedelta(days=config.kept_days)
    deleted = delete_runs(context.instance, before)
    context.log.info(f"deleted {deleted:,} runs that began before {before:%Y-%m-%d %H:%M} UTC")


@dg.job(executor_def=dg.in_process_executor)
def delete_old_runs_daily() -> None:
    """Runs older than a week, with their events and logs; the latest of each asset stays."""
    delete_old_runs()


def delete_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the finished runs that began before a moment; returns how many.

    A run that holds the latest materialization of an asset stays, for its age and freshness.
    """
    kept = {
        event.run_id
        for key in instance.get_asset_keys()
        if (event := instance.get_latest_materialization_event(key))
    }
    filters = dg.RunsFilter(statuses=FINISHED, created_before=before)
    old = [run_id for run_id in instance.get_run_ids(filters) if run_id not in kept]
    for run_id in old:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    return len(old)
