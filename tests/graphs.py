"""The graph on a test's servers: running it, and what it did and published.

Runs are Dagster's own, in this process, recorded in a temporary instance.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import redis

from recsys_assets.definitions import build_definitions
from recsys_assets.publish.list_making import FAMILIES
from recsys_assets.resources import ArtifactStore, RedisPublisher, ShopDatabase
from recsys_assets.settings import Settings, ShopSettings
from serving.contract import Id, list_key

PERSONAL = ("als_model", "top_buys_backtest", "user_top_buys")
"""What the users' lists are made by, once there are interactions."""
TOGETHER = ("basket_rules", "bought_together_backtest", "bought_together")
"""What the products' lists are made by."""


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
        force: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Run a job, or ``assets`` alone with their checks; ``config`` is of assets or ops.

        Backtests accept what they are given unless ``force`` is False: most shops of tests are too
        small to prove a model by.
        """
        defs = self.definitions
        given = config or {}
        forced = {
            name: ({"force": True, "max_users": 30} if force else {}) | given.get(name, {})
            for name in self._backtests(assets, job)
        }
        chosen = (
            defs.resolve_implicit_global_asset_job_def() if assets else defs.resolve_job_def(job)
        )
        return chosen.execute_in_process(
            run_config={
                "ops": {name: {"config": values} for name, values in {**given, **forced}.items()},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            raise_on_error=False,
        )

    def _backtests(self, assets: Sequence[str], job: str) -> list[str]:
        """The assets of the stage evaluate that take part in a run."""
        graph = self.definitions.resolve_asset_graph()
        of_stage = dg.AssetSelection.groups("evaluate").resolve(graph)
        names = sorted(key.to_user_string() for key in of_stage)
        return [name for name in names if (name in assets if assets else job == "retrain_daily")]

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
        """Every key in Redis with its value: text, fields, or members, of a sorted set in order."""
        with self.redis() as client:
            return {key: value_of(client, key) for key in client.scan_iter()}


def value_of(client: redis.Redis, key: str) -> Any:
    """The value of a key: text, a hash, a set, or members and scores, best first."""
    match client.type(key):
        case "string":
            return client.get(key)
        case "hash":
            return client.hgetall(key)
        case "set":
            return client.smembers(key)
        case _:
            return client.zrange(key, 0, -1, desc=True, withscores=True)


def products(value: str) -> list[tuple[Any, float]]:
    """The products of a published Top Buys list with their scores."""
    return [(product["product_id"], product["score"]) for product in json.loads(value)["products"]]


def lists(published: Mapping[str, Any]) -> dict[str, Any]:
    """The lists of Top Buys and of Bought Together: products and scores."""
    return {
        key: products(value) if key.endswith(":top_buys") else value
        for key, value in published.items()
        if key.endswith((":top_buys", ":bought_together"))
        and not key.startswith(("publication:", "borrowed:"))
    }


def contents(published: Mapping[str, Any]) -> dict[str, Any]:
    """What is published but for what tells one publication from the next, and examples."""
    told = {"model_version", "generated_at", "orders_through"}
    return {
        key: {k: v for k, v in json.loads(value).items() if k not in told}
        if isinstance(value, str)
        else value
        for key, value in published.items()
        if not key.startswith(("publication:", "examples:"))
    }


def keys_of_users(*user_ids: Id) -> set[str]:
    """The keys of all that is published of these users."""
    return {list_key(family, user_id) for family in FAMILIES for user_id in user_ids}


def checks(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, dg.AssetCheckEvaluation]:
    """The checks of an asset that a run made, by name."""
    return {
        check.check_name: check
        for check in result.get_asset_check_evaluations()
        if check.asset_key == dg.AssetKey(asset)
    }


def failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Names of the checks that did not pass, with what they said.

    But for those of backtests that only warn: what a small shop proves is too little to pass them.
    """
    return {
        check.check_name: check.description or ""
        for check in result.get_asset_check_evaluations()
        if not check.passed and not _is_unproven(check)
    }


def _is_unproven(check: dg.AssetCheckEvaluation) -> bool:
    of_backtest = check.asset_key.to_user_string().endswith("_backtest")
    return of_backtest and check.severity is dg.AssetCheckSeverity.WARN


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
