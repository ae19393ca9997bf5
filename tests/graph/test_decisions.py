"""What a backtest that proves nothing does to a model that is relied on, and to its lists."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from rich.console import Console

from recsys_assets.learn.artifacts import (
    Header,
    artifact_path,
    load_artifact,
    load_candidate,
)
from recsys_assets.settings import Settings
from recsys_assets.status import status_tables
from tests.graphs import PERSONAL, Graph, checks, materialized, metadata
from tests.shops import Order, add_orders, create_shop, day

pytestmark = pytest.mark.slow

MODEL, BACKTEST = "als_model", "top_buys_backtest"
GOOD = {"factors": 16, "iterations": 3}
# What users buy again is drowned in what they may like.
CARELESS = GOOD | {"discovery": 1000.0}
TOO_FEW = {"min_users": 10_000}


@pytest.fixture
def sample(small_sample_database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Graph]:
    """The graph on 200 households of the sample shop, its interactions made."""
    data = tmp_path / "artifacts"
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(small_sample_database_url, redis_url, data, instance, Settings(data_dir=data))
        assert graph.run("user_product_interactions").success
        yield graph


@pytest.fixture
def small(graph: Graph) -> Graph:
    """The graph on seven users, too few to prove anything by; nothing is made yet."""
    orders = [Order(n, n % 7, [n % 3, 3 + n % 2, 10], day(n)) for n in range(1, 60)]
    with graph.database() as connection:
        create_shop(connection, orders)
    return graph


def learn(
    graph: Graph, model: dict[str, Any], backtest: dict[str, Any] | None = None
) -> dg.ExecuteInProcessResult:
    """Learn a model, evaluate it, and publish it if it is accepted."""
    config = {MODEL: model, BACKTEST: backtest or {}}
    return graph.run(*PERSONAL, config=config, force=False)


def evaluate(graph: Graph, **backtest: Any) -> dg.ExecuteInProcessResult:
    """Evaluate what there is once more."""
    return graph.run(BACKTEST, config={BACKTEST: backtest}, force=False)


def current(graph: Graph) -> Header:
    return load_artifact(graph.folder, MODEL)[0]


def outcome(header: Header) -> tuple[str, bool]:
    return header.evaluation["verdict"], header.evaluation["forced"]


def users_lists(graph: Graph) -> dict[str, str]:
    return {
        key: value
        for key, value in graph.published().items()
        if re.fullmatch("user:.*:top_buys", key)
    }


def sources(graph: Graph) -> Counter[tuple[str, str]]:
    """How many lists come from what, and of which version."""
    lists = map(json.loads, users_lists(graph).values())
    return Counter((top["source"], top["model_version"]) for top in lists)


def status(graph: Graph) -> str:
    console = Console(file=io.StringIO(), width=300)
    with graph.database() as connection, closing(redis.Redis.from_url(graph.redis_url)) as client:
        for table in status_tables(graph.settings, connection, client, graph.instance):
            console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


# --- A model that is proven ---------------------------------------------------------------------


def test_what_proves_nothing_takes_the_place_of_nothing_that_is_proven(sample: Graph) -> None:
    assert learn(sample, GOOD).success
    proven = current(sample)
    assert outcome(proven) == ("proven", False)
    users = len(users_lists(sample))
    before = artifact_path(sample.folder, MODEL).read_bytes()

    result = learn(sample, GOOD | {"seed": 1}, TOO_FEW)
    assert result.success
    assert artifact_path(sample.folder, MODEL).read_bytes() == before
    candidate = load_candidate(sample.folder, MODEL)
    assert candidate is not None
    assert candidate[0].version > proven.version
    assert outcome(candidate[0]) == ("unproven", False)
    assert metadata(result, "user_top_buys")["model_version"] == proven.version
    assert sources(sample) == {("personal", proven.version): users}
    assert re.search(
        rf"top_buys_backtest .* {candidate[0].version} unproven by \d+ measured", status(sample)
    )

    # With enough users to tell, it is evaluated again, and accepted.
    assert evaluate(sample).success
    assert current(sample).version == candidate[0].version
    assert outcome(current(sample)) == ("proven", False)
    assert load_candidate(sample.folder, MODEL) is None


def test_a_proven_model_evaluated_by_too_few_stays_as_it_is(sample: Graph) -> None:
    assert learn(sample, GOOD).success
    files = {path.name: path.read_bytes() for path in sample.folder.iterdir()}
    version, users = current(sample).version, len(users_lists(sample))
    result = sample.run(BACKTEST, "user_top_buys", config={BACKTEST: TOO_FEW}, force=False)
    assert result.success
    assert metadata(result, BACKTEST)["verdict"] == "unproven"
    assert {path.name: path.read_bytes() for path in sample.folder.iterdir()} == files
    assert sources(sample) == {("personal", version): users}


# --- A model that is forced ---------------------------------------------------------------------


def test_a_forced_model_has_its_leave_when_it_is_evaluated_again(small: Graph) -> None:
    assert small.run("user_product_interactions", *PERSONAL, force=True).success
    version = current(small).version
    assert outcome(current(small)) == ("unproven", True)
    assert evaluate(small).success
    assert (current(small).version, *outcome(current(small))) == (version, "unproven", True)
    assert small.run("user_top_buys").success
    assert sources(small) == {("personal", version): 7}


def test_what_proves_nothing_takes_the_place_of_nothing_that_is_forced(small: Graph) -> None:
    assert small.run("user_product_interactions", *PERSONAL, force=True).success
    version = current(small).version
    assert learn(small, GOOD | {"seed": 1}).success
    assert current(small).version == version
    assert load_candidate(small.folder, MODEL) is not None
    assert sources(small) == {("personal", version): 7}


# --- A model that is neither --------------------------------------------------------------------


def test_the_first_model_is_accepted_though_nothing_is_proven(small: Graph) -> None:
    assert small.run("user_product_interactions").success
    assert learn(small, GOOD).success
    first = current(small).version
    assert outcome(current(small)) == ("unproven", False)
    assert load_candidate(small.folder, MODEL) is None
    assert sources(small) == {("own_purchases", first): 7}

    # And so is the next, which is relied on as little.
    assert learn(small, GOOD | {"seed": 1}).success
    second = current(small).version
    assert second > first
    assert sources(small) == {("own_purchases", second): 7}


def test_the_current_version_can_be_refused_when_it_is_evaluated_again(sample: Graph) -> None:
    assert learn(sample, CARELESS, TOO_FEW).success
    accepted, published = current(sample), sample.published()
    assert outcome(accepted) == ("unproven", False)

    result = sample.run(BACKTEST, "user_top_buys", force=False)
    assert not result.success
    assert materialized(result) == {BACKTEST}
    failed = {
        name
        for name, check in checks(result, BACKTEST).items()
        if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
    }
    assert failed == {"holds_own_frequency"}
    assert (current(sample).version, *outcome(current(sample))) == (
        accepted.version,
        "refused",
        False,
    )
    assert load_candidate(sample.folder, MODEL) is None
    assert sample.published() == published
    told = rf"top_buys_backtest .* {accepted.version} refused: worse than own frequency"
    assert re.search(told, status(sample))

    # A publication of all is still not made by what was refused.
    users = len(users_lists(sample))
    assert sample.run("user_top_buys").success
    assert sources(sample) == {("own_purchases", accepted.version): users}


# --- The follower of orders ---------------------------------------------------------------------


def test_new_orders_are_followed_as_all_lists_were_made(small: Graph) -> None:
    """A model is accepted by force, and nobody has published all lists since."""
    assert small.run("user_product_interactions", *PERSONAL, force=False).success
    version = current(small).version
    assert small.run(BACKTEST, force=True).success
    assert (current(small).version, *outcome(current(small))) == (version, "unproven", True)

    before = users_lists(small)
    with small.database() as connection:
        add_orders(connection, [Order(60, 1, [4, 10], day(60))])
    assert small.refresh().success
    after = users_lists(small)
    assert {user for user in after if after[user] != before[user]} == {"user:1:top_buys"}
    assert sources(small) == {("own_purchases", version): 7}

    assert small.run("user_top_buys").success
    assert sources(small) == {("personal", version): 7}
    with small.database() as connection:
        add_orders(connection, [Order(61, 2, [4, 10], day(61))])
    assert small.refresh().success
    assert sources(small) == {("personal", version): 7}
