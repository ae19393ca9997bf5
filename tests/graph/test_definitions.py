"""The code location: what it declares, and that Dagster's own commands load it."""

import os
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.remote_asset_graph import BaseAssetNode
from dagster._core.remote_representation.external_data import RepositorySnap

from recsys_assets.definitions import build_definitions
from recsys_assets.settings import Settings
from tests.commands import BIN, ROOT

UPSTREAM = {
    "orders": set(),
    "order_items": set(),
    "user_product_interactions": {"orders", "order_items"},
    "als_model": {"user_product_interactions"},
    "basket_rules": {"orders", "order_items"},
    "top_buys_backtest": {"als_model", "user_product_interactions"},
    "bought_together_backtest": {"basket_rules"},
    "user_top_buys": {"top_buys_backtest", "user_product_interactions"},
    "global_top_buys": {"user_product_interactions"},
    "bought_together": {"bought_together_backtest"},
    "product_names": {"user_product_interactions"},
}
STAGES = {
    "ingest": {"orders", "order_items", "user_product_interactions"},
    "learn": {"als_model", "basket_rules"},
    "evaluate": {"top_buys_backtest", "bought_together_backtest"},
    "publish": {"user_top_buys", "global_top_buys", "bought_together", "product_names"},
}
BLOCKING = {
    "orders": {"orders_readable"},
    "user_product_interactions": {"watermark_not_in_future", "interactions_sound"},
    "als_model": {"als_model_sound"},
    "basket_rules": {"basket_rules_sound"},
    "top_buys_backtest": {"beats_popularity", "holds_own_frequency", "holds_incumbent"},
    "bought_together_backtest": {"beats_popularity", "holds_lift", "holds_incumbent"},
    "user_top_buys": {"room_in_redis"},
    "bought_together": {"room_in_redis"},
}
INFORMING = {
    "order_items": {"lines_sound"},
    "user_top_buys": {
        "users_covered",
        "user_top_buys_readable",
        "user_explanations_readable",
        "user_buy_again_readable",
        "recommendation_rules_sound",
    },
    "global_top_buys": {"global_top_buys_readable"},
    "bought_together": {"products_covered", "bought_together_readable"},
}
# The others take turns in PostgreSQL, so that orders are followed beside a retraining.
POOLS = {
    "als_model": {"als_model"},
    "top_buys_backtest": {"als_model"},
    "basket_rules": {"basket_rules"},
    "bought_together_backtest": {"basket_rules"},
    "bought_together": {"bought_together"},
}
OURS = sorted(UPSTREAM.keys() - {"orders", "order_items"})


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions(Settings())


def node(defs: dg.Definitions, name: str) -> BaseAssetNode:
    return defs.resolve_asset_graph().get(dg.AssetKey(name))


def names(keys: object) -> set[str]:
    return {key.to_user_string() for key in keys}


def test_the_location_loads_without_any_environment(defs: dg.Definitions):
    assert not [name for name in os.environ if name.startswith("RECSYS_")]
    dg.Definitions.validate_loadable(defs)
    assert names(defs.resolve_asset_graph().get_all_asset_keys()) == set(UPSTREAM)


@pytest.mark.parametrize("name", UPSTREAM)
def test_an_asset_says_what_it_is_and_what_it_is_made_from(defs: dg.Definitions, name: str):
    asset = node(defs, name)
    assert len(asset.description) > 40
    assert asset.owners
    assert asset.kinds
    assert set(asset.tags) - {f"dagster/kind/{kind}" for kind in asset.kinds}
    assert name in STAGES[asset.group_name]
    assert names(asset.parent_keys) == UPSTREAM[name]


@pytest.mark.parametrize("name", OURS)
def test_an_asset_of_ours_is_versioned_and_kept_fresh(defs: dg.Definitions, name: str):
    asset = node(defs, name)
    assert asset.is_executable
    assert asset.code_version
    assert asset.pools == POOLS.get(name, set())
    assert asset.freshness_policy is not None


def test_the_shops_tables_are_not_ours_to_materialize(defs: dg.Definitions):
    assert node(defs, "orders").is_external
    assert node(defs, "order_items").is_external


def test_freshness_follows_the_settings():
    settings = Settings(
        interactions_fresh_minutes=5, top_buys_fresh_minutes=10, models_fresh_hours=3
    )
    minutes = {
        name: node(build_definitions(settings), name).freshness_policy.warn_window.to_timedelta()
        // timedelta(minutes=1)
        for name in OURS
    }
    assert minutes == {
        "user_product_interactions": 5,
        "user_top_buys": 10,
        "global_top_buys": 10,
        "als_model": 180,
        "top_buys_backtest": 180,
        "basket_rules": 180,
        "bought_together_backtest": 180,
        "bought_together": 180,
        "product_names": 180,
    }


def test_checks_block_where_going_on_would_publish_rubbish(defs: dg.Definitions):
    graph = defs.resolve_asset_graph()
    found: dict[bool, dict[str, set[str]]] = {True: {}, False: {}}
    for key in graph.asset_check_keys:
        check = graph.get(key)
        assert check.description
        of_asset = found[check.blocking].setdefault(key.asset_key.to_user_string(), set())
        of_asset.add(key.name)
    assert found == {True: BLOCKING, False: INFORMING}


def test_retraining_makes_everything_and_looks_at_the_shop_first(defs: dg.Definitions):
    layer = defs.resolve_job_def("retrain_daily").asset_layer
    assert names(layer.executable_asset_keys) == set(OURS)
    assert "orders_readable" in {key.name for key in layer.asset_graph.asset_check_keys}


def test_retraining_on_schedule_reconciles(defs: dg.Definitions):
    schedule = defs.resolve_schedule_def("retrain_daily_schedule")
    with dg.build_schedule_context(scheduled_execution_time=datetime(2024, 1, 1, 3)) as context:
        (request,) = schedule.evaluate_tick(context).run_requests
    assert request.run_config == {
        "ops": {"user_product_interactions": {"config": {"reconcile": True}}}
    }


def test_orders_are_followed_in_one_step(defs: dg.Definitions):
    job = defs.resolve_job_def("refresh_on_new_orders")
    assert [node.name for node in job.nodes] == ["follow_orders"]
    assert job.tags["dagster/max_retries"] == "0"


@pytest.mark.parametrize("enabled", [False, True])
def test_automation_is_off_unless_switched_on(enabled: bool):
    defs = build_definitions(Settings(automation_enabled=enabled, retrain_cron="30 2 * * *"))
    sensor = defs.resolve_sensor_def("new_orders")
    schedule = defs.resolve_schedule_def("retrain_daily_schedule")
    housekeeping = defs.resolve_schedule_def("delete_old_runs_schedule")
    assert sensor.job_name == "refresh_on_new_orders"
    assert schedule.job_name == "retrain_daily"
    assert schedule.cron_schedule == "30 2 * * *"
    assert (sensor.default_status is dg.DefaultSensorStatus.RUNNING) is enabled
    for each in (schedule, housekeeping):
        assert (each.default_status is dg.DefaultScheduleStatus.RUNNING) is enabled


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition:DeprecationWarning")  # Dagster's
def test_the_interface_is_not_shown_what_a_url_holds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECSYS_DATABASE_URL", "postgresql://shop:secret-of-db@db/shop")
    monkeypatch.setenv("RECSYS_REDIS_URL", "redis://:secret-of-redis@cache")
    repository = build_definitions().get_repository_def()
    snapshot = dg.serialize_value(RepositorySnap.from_def(repository))
    assert "RECSYS_DATABASE_URL" in snapshot
    assert "RECSYS_REDIS_URL" in snapshot
    assert "secret-of" not in snapshot


@pytest.mark.parametrize("urls", ["set", "unset"])
def test_dagsters_own_command_accepts_the_location(
    urls: str, database_url: str, redis_url: str, tmp_path: Path
):
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(ROOT),
        "RECSYS_STATE_DIR": str(tmp_path / "state"),
    }
    if urls == "set":
        environment |= {"RECSYS_DATABASE_URL": database_url, "RECSYS_REDIS_URL": redis_url}
    done = subprocess.run(
        [BIN / "dagster", "definitions", "validate", "-w", ROOT / "workspace.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All code locations passed validation" in done.stdout
    warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert [line for line in warnings if "definitions_validate_command" not in line] == []
    assert (tmp_path / "state" / "postgres").exists() == (urls == "unset")
