"""The graph on a test's servers: running it, and what it did and published.

Runs are Dagster's own, in this process, recorded in a temporary instance.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import redis

from recsys_assets.definitions import build_definitions
from recsys_assets.resources import ArtifactStore, RedisPublisher, ShopDatabase
from recsys_assets.settings import Settings, ShopSettings


@dataclass(frozen=True)
class Graph:
    """The code location on one database, one Redis and one folder of artifacts."""

    database_url: str
    redis_url: str
    folder: Path
    instance: dg.DagsterInstance
    settings: Settings

    @property
    def definitions(self) -> dg.Definitions:
        """All assets and checks, with resources of this graph's servers."""
        shop = self.settings.model_dump(include=set(ShopSettings.model_fields))
        return build_definitions(
            self.settings,
            {
                "shop": ShopDatabase(url=self.database_url, **shop),
                "redis": RedisPublisher(url=self.redis_url),
                "artifacts": ArtifactStore(
                    folder=str(self.folder), keep=self.settings.kept_artifacts
                ),
            },
        )

    def run(
        self,
        *assets: str,
        job: str = "retrain_daily",
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run a job, or ``assets`` alone with their checks; ``config`` is of assets or ops."""
        defs = self.definitions
        chosen = (
            defs.resolve_implicit_global_asset_job_def() if assets else defs.resolve_job_def(job)
        )
        return chosen.execute_in_process(
            run_config={
                "ops": {name: {"config": values} for name, values in (config or {}).items()},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            raise_on_error=False,
        )

    def refresh(self, **config: Any) -> dg.ExecuteInProcessResult:
        """Run refresh_on_new_orders, which ends after one refresh unless ``config`` says more."""
        config = {"minutes": 0} | config
        return self.run(job="refresh_on_new_orders", config={"follow_orders": config})

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """A connection that commits every statement."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            yield connection

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """A plain client: what anybody sees who knows nothing of this project."""
        with closing(redis.Redis.from_url(self.redis_url, decode_responses=True)) as client:
            yield client

    def published(self) -> dict[str, Any]:
        """Every key in Redis with its value: text, or the members of a sorted set, best first."""
        with self.redis() as client:
            return {
                key: client.get(key)
                if client.type(key) == "string"
                else client.zrange(key, 0, -1, desc=True, withscores=True)
                for key in client.scan_iter()
            }


def products(value: str) -> list[tuple[Any, float]]:
    """The products of a published Top Buys list with their scores."""
    return [(product["product_id"], product["score"]) for product in json.loads(value)["products"]]


def lists(published: dict[str, Any]) -> dict[str, Any]:
    """What is published but for what tells one publication from the next."""
    return {
        key: products(value) if isinstance(value, str) else value
        for key, value in published.items()
        if not key.startswith("publication:")
    }


def failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Names of the checks that did not pass, with what they said."""
    return {
        check.check_name: check.description or ""
        for check in result.get_asset_check_evaluations()
        if not check.passed
    }


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    """Names of the assets that a run made."""
    return {
        materialization.asset_key.to_user_string() for materialization in materializations(result)
    }


def materializations(result: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    """What a run made, one after the other."""
    return [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
    ]


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """The values of the metadata that an asset was materialized with, which it was once."""
    (made,) = (m for m in materializations(result) if m.asset_key == dg.AssetKey(asset))
    return {name: value.value for name, value in made.metadata.items()}


def reasons(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """What the steps that failed said, by step; a blocking check's failure is not among them."""
    errors = {
        event.step_key: event.step_failure_data.error for event in result.get_step_failure_events()
    }
    return {
        step: error.cause.message.partition(": ")[2].strip()
        for step, error in errors.items()
        if step and error and error.cause
    }
