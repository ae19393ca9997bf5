"""Rolling back: an earlier version is current again, and what is served was made of it."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from rich.console import Console

from recsys_assets.batch import UsageError
from recsys_assets.learn.artifacts import (
    artifact_path,
    current_version,
    load_artifact,
    make_current,
    save_artifact,
    version_path,
    versions,
)
from recsys_assets.rollback import PUBLISHED_AS, Rollback, RollbackError, roll_back
from recsys_assets.settings import Settings
from tests.commands import Home
from tests.graphs import PERSONAL, TOGETHER, Graph, contents, lists

# Trainings that make other lists of the same orders, quickly.
TRAININGS: dict[str, list[dict[str, Any]]] = {
    "als_model": [{"factors": 8, "iterations": 2, "seed": seed} for seed in range(4)],
    "basket_rules": [{"shrinkage": 10.0**power} for power in range(4)],
}
ARTIFACTS = list(TRAININGS)
MADE_BY = {"als_model": PERSONAL, "basket_rules": TOGETHER}


@pytest.fixture
def graph(small_sample_database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Graph]:
    """The graph on the small sample shop, its interactions made."""
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(
            small_sample_database_url, redis_url, tmp_path / "artifacts", instance, Settings()
        )
        assert graph.run("user_product_interactions").success
        yield graph


def train(graph: Graph, name: str, number: int) -> dict[str, Any]:
    """Make one more version and publish it; returns the lists."""
    config = {name: TRAININGS[name][number]}
    assert graph.run(*MADE_BY[name], config=config).success
    return contents(graph.published())


def published_version(graph: Graph, name: str) -> str:
    """The version of the model that the record of the publication tells."""
    record = json.loads(graph.published()[f"publication:{PUBLISHED_AS[name]}"])
    return str(record["model_version"])


def go_back(graph: Graph, name: str, **options: Any) -> Rollback:
    console = Console(file=io.StringIO())
    return roll_back(graph.definitions, graph.instance, console, graph.folder, name, **options)


def latest_metadata(graph: Graph, asset: str) -> dict[str, Any]:
    """The metadata of an asset's latest entry in Dagster's history."""
    event = graph.instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.mark.parametrize(
    "name", ["als_model", pytest.param("basket_rules", marks=pytest.mark.slow)]
)
def test_each_rollback_serves_the_lists_of_one_version_before(graph: Graph, name: str) -> None:
    first, second, third = (train(graph, name, number) for number in range(3))
    assert first != second != third
    newest, middle, oldest = versions(graph.folder, name)

    done = go_back(graph, name)
    assert (done.version, done.rolled_back_from) == (middle, newest)
    assert contents(graph.published()) == second
    assert published_version(graph, name) == middle
    told = latest_metadata(graph, name)
    assert (told["version"], told["rolled_back_from"]) == (middle, newest)
    header, _ = load_artifact(graph.folder, name)
    assert header.orders_through is not None
    assert told["orders_through"] == header.orders_through.timestamp()
    assert latest_metadata(graph, PUBLISHED_AS[name])["model_version"] == middle
    run = graph.instance.get_run_by_id(done.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.SUCCESS

    done = go_back(graph, name)
    assert (done.version, done.rolled_back_from) == (oldest, middle)
    assert contents(graph.published()) == first
    assert published_version(graph, name) == oldest

    kept = f"Kept: {newest}, {middle}, {oldest} (current)."
    with pytest.raises(RollbackError, match=rf"no earlier version of {name} .*{re.escape(kept)}"):
        go_back(graph, name)
    assert contents(graph.published()) == first

    done = go_back(graph, name, to=newest)
    assert (done.version, done.rolled_back_from) == (newest, oldest)
    assert contents(graph.published()) == third


def test_a_new_training_is_current_and_leaves_the_version_before_it(graph: Graph) -> None:
    for number in range(3):
        train(graph, "als_model", number)
    _, middle, oldest = versions(graph.folder, "als_model")
    go_back(graph, "als_model", to=oldest)
    # a refresh keeps to what was gone back to
    assert graph.refresh().success
    assert published_version(graph, "als_model") == oldest
    train(graph, "als_model", 3)
    newest, *others = versions(graph.folder, "als_model")
    assert newest == current_version(graph.folder, "als_model")
    assert published_version(graph, "als_model") == newest > middle
    assert others[-1] == oldest
    assert len(others) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(artifact_path(path.parent, "als_model").read_bytes()),
    ],
    ids=["damaged", "another version"],
)
def test_a_version_that_does_not_load_changes_nothing(graph: Graph, damage: Any) -> None:
    train(graph, "als_model", 0)
    second = train(graph, "als_model", 1)
    newest, oldest = versions(graph.folder, "als_model")
    damage(version_path(graph.folder, "als_model", oldest))
    kept = re.escape(f"Kept: {newest} (current), {oldest}.")
    with pytest.raises(RollbackError, match=rf"{oldest}\.pkl is .*Nothing was changed\. {kept}"):
        go_back(graph, "als_model")
    assert current_version(graph.folder, "als_model") == newest
    assert contents(graph.published()) == second
    assert "rolled_back_from" not in latest_metadata(graph, "als_model")


def test_a_version_of_a_release_without_such_recipes_changes_nothing(graph: Graph) -> None:
    published = train(graph, "als_model", 0)
    header, arrays = load_artifact(graph.folder, "als_model")
    foreign = replace(
        header,
        created_at=header.created_at - timedelta(days=1),
        parameters={"factors": 8, "iterations": 2, "half_life_days": 90.0},
    )
    save_artifact(graph.folder, foreign, arrays, keep=3)
    make_current(graph.folder, "als_model", header.version)
    files = {path.name: path.read_bytes() for path in graph.folder.iterdir()}
    kept = re.escape(f"Kept: {header.version} (current), {foreign.version}.")
    with pytest.raises(RollbackError, match=rf"(?s)another release.*Nothing was changed\. {kept}"):
        go_back(graph, "als_model")
    assert {path.name: path.read_bytes() for path in graph.folder.iterdir()} == files
    assert contents(graph.published()) == published
    assert "rolled_back_from" not in latest_metadata(graph, "als_model")


def test_a_damaged_current_version_can_be_gone_back_from(graph: Graph) -> None:
    first = train(graph, "als_model", 0)
    train(graph, "als_model", 1)
    newest, oldest = versions(graph.folder, "als_model")
    artifact_path(graph.folder, "als_model").write_bytes(b"")
    done = go_back(graph, "als_model")
    assert (done.version, done.rolled_back_from) == (oldest, newest)
    assert contents(graph.published()) == first


def test_without_a_current_file_the_newest_version_is_gone_back_to(graph: Graph) -> None:
    train(graph, "als_model", 0)
    second = train(graph, "als_model", 1)
    artifact_path(graph.folder, "als_model").unlink()
    done = go_back(graph, "als_model")
    assert (done.version, done.rolled_back_from) == (versions(graph.folder, "als_model")[0], None)
    assert contents(graph.published()) == second


def test_a_publication_that_fails_says_what_is_current(graph: Graph) -> None:
    train(graph, "als_model", 0)
    second = train(graph, "als_model", 1)
    newest, oldest = versions(graph.folder, "als_model")
    away = replace(graph, redis_url="redis://localhost:1/0")
    told = f"(?s)als_model {oldest} is current, but .*Redis.*: recsys materialize user_top_buys"
    with pytest.raises(RollbackError, match=told):
        go_back(away, "als_model")
    assert current_version(graph.folder, "als_model") == oldest
    assert latest_metadata(graph, "als_model")["rolled_back_from"] == newest
    assert contents(graph.published()) == second


@pytest.mark.slow
def test_config_is_that_of_the_publication(graph: Graph) -> None:
    train(graph, "basket_rules", 0)
    train(graph, "basket_rules", 1)
    config = {"ops": {"bought_together": {"config": {"length": 2}}}}
    go_back(graph, "basket_rules", config=config)
    assert max(map(len, lists(graph.published()).values())) == 2


def test_versions_that_cannot_be_gone_back_to_are_told(graph: Graph) -> None:
    with pytest.raises(RollbackError, match=r"no earlier version of als_model .* Kept: none\."):
        go_back(graph, "als_model")
    train(graph, "als_model", 0)
    (only,) = versions(graph.folder, "als_model")
    kept = re.escape(f"Kept: {only} (current).")
    with pytest.raises(RollbackError, match=rf"no earlier version of als_model .* {kept}"):
        go_back(graph, "als_model")
    with pytest.raises(
        RollbackError, match=rf"version yesterday of als_model is not kept\. {kept}"
    ):
        go_back(graph, "als_model", to="yesterday")
    with pytest.raises(RollbackError, match=rf"is the current version.*user_top_buys\. {kept}"):
        go_back(graph, "als_model", to=only)
    with pytest.raises(UsageError, match="no artifact orders; there are als_model, basket_rules"):
        go_back(graph, "orders")


def test_the_command(graph: Graph, tmp_path: Path) -> None:
    for number in range(2):
        train(graph, "als_model", number)
    assert graph.run("global_top_buys").success
    newest, oldest = versions(graph.folder, "als_model")
    urls = {"RECSYS_DATABASE_URL": graph.database_url, "RECSYS_REDIS_URL": graph.redis_url}
    home = Home(tmp_path, {**urls, "RECSYS_DATA_DIR": str(graph.folder)})

    printed = home.recsys("rollback", "als_model")
    assert f"als_model {oldest} is current again, instead of {newest}" in printed
    assert "user_top_buys materialized in" in printed
    assert f"model {oldest}" in home.recsys("show", "user", 1)
    status = home.recsys("status")
    assert re.search(rf"als_model .* {oldest}, rolled back, .* 2 kept", status)
    assert status.count("rolled back") == 1

    printed = home.recsys("rollback", "als_model", fails=1)
    assert f"Kept: {newest}, {oldest} (current)." in printed
    assert "Traceback" not in printed
    home.recsys("rollback", "als_model", "--to", newest)
    assert current_version(graph.folder, "als_model") == newest
    assert "there are als_model, basket_rules" in home.recsys("rollback", "orders", fails=2)
