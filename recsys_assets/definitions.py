"""The Dagster code location: all assets, checks, jobs, automation and resources, put together."""

from collections.abc import Mapping

import dagster as dg

from recsys_assets import automation
from recsys_assets.evaluate import assets as evaluate
from recsys_assets.evaluate import checks
from recsys_assets.follow import refresh_on_new_orders
from recsys_assets.housekeeping import delete_old_runs_daily
from recsys_assets.ingest import assets as ingest
from recsys_assets.learn import assets as learn
from recsys_assets.publish import assets as publish
from recsys_assets.resources import ArtifactStore, RedisPublisher, ShopDatabase
from recsys_assets.settings import Settings, ShopSettings, load_settings

ASSETS = [
    ingest.user_product_interactions,
    learn.als_model,
    evaluate.top_buys_backtest,
    publish.user_top_buys,
    publish.global_top_buys,
    learn.basket_rules,
    evaluate.bought_together_backtest,
    publish.bought_together,
    publish.product_names,
]


def build_resources(settings: Settings) -> dict[str, dg.ConfigurableResource]:  # type: ignore[type-arg]
    """The resources; URLs are looked up in the environment when a run starts."""
    return {
        "shop": ShopDatabase(
            url=dg.EnvVar("RECSYS_DATABASE_URL"),
            **settings.model_dump(include=set(ShopSettings.model_fields)),
        ),
        "redis": RedisPublisher(url=dg.EnvVar("RECSYS_REDIS_URL")),
        "artifacts": ArtifactStore(folder=str(settings.data_dir), keep=settings.kept_artifacts),
    }


def build_definitions(
    settings: Settings | None = None, overrides: Mapping[str, object] | None = None
) -> dg.Definitions:
    """The code location for ``settings`` (the environment's when None).

    ``overrides`` replaces resources by name: ``shop``, ``redis``, ``artifacts``.
    """
    settings = settings or load_settings()
    freshness = automation.freshness_policies(settings)

    def with_freshness(spec: dg.AssetSpec) -> dg.AssetSpec:
        policy = freshness.get(spec.key.to_user_string())
        return spec.replace_attributes(freshness_policy=policy) if policy else spec

    return dg.Definitions(
        assets=[
            ingest.orders,
            ingest.order_items,
            *(asset.map_asset_specs(with_freshness) for asset in ASSETS),
        ],
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        jobs=[
            refresh_on_new_orders,
            automation.retrain_daily,
            delete_old_runs_daily,
        ],
        sensors=[automation.new_orders_sensor(settings)],
        schedules=automation.schedules(settings),
        resources={**build_resources(settings), **(overrides or {})},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
