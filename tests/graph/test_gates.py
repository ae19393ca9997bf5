"""What backtests let through and what they stop, from orders to the lists that are served.

One shop, through a history that is told once: each fixture is the next step of it, and keeps what
was there then. Whatever the tests ask of a step, they change nothing.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import dagster as dg
import psycopg
import pytest
import redis
from rich.console import Console

from recsys_assets.batch import Batch, MaterializationError, materialize
from recsys_assets.learn.artifacts import (
    Header,
    load_artifact,
    load_candidate,
    versions,
)
from recsys_assets.local.postgres import PostgresServer
from recsys_assets.local.redis import RedisServer
from recsys_assets.local.sample_shop import load_sample
from recsys_assets.publish.changed_users import Plan, read_plan
from recsys_assets.rollback import roll_back
from recsys_assets.settings import Settings
from recsys_assets.shop import inspect_shop
from recsys_assets.status import status_tables
from tests.graphs import (
    PERSONAL,
    TOGETHER,
    Graph,
    checks,
    contents,
    failed_checks,
    materialized,
    metadata,
    products,
)

HOUSEHOLDS = 500
GOOD = {"als_model": {"factors": 32, "iterations": 5}}
# Overfitted, and believed in whatever others buy.
CARELESS = {
    "als_model": {
        "factors": 64,
        "alpha": 40.0,
        "regularization": 0.01,
        "iterations": 5,
        "affinity": 20.0,
        "popularity": 0.0,
    }
}
RAW_LIFT = {"basket_rules": {"shrinkage": 0.0, "antecedent_shrinkage": 0.0}}
POPULARITY = "global popularity"
NUMBER, SIGNED = r"0\.\d{4}", r"[+-]0\.\d{4}"


@dataclass(frozen=True)
class Step:
    """What a step did, and what was there after it: files, keys in Redis, and what is told."""

    done: Any
    files: Mapping[str, bytes]
    published: Mapping[str, Any]
    plan: Plan | None
    status: str
    current: Header
    candidate: Header | None

    def of_users(self) -> dict[str, Any]:
        """All that is published of users."""
        return {key: value for key, value in self.published.items() if key.startswith("user:")}

    def of_products(self) -> dict[str, Any]:
        """All that is published of products."""
        return {key: value for key, value in self.published.items() if key.startswith("product:")}


def after(shop: Graph, done: Any, name: str = "als_model") -> Step:
    candidate = load_candidate(shop.folder, name)
    with shop.database() as connection:
        plan = read_plan(connection, inspect_shop(connection, shop.settings))
    return Step(
        done,
        {path.name: path.read_bytes() for path in shop.folder.iterdir()},
        published(shop),
        plan,
        status(shop),
        load_artifact(shop.folder, name)[0],
        candidate[0] if candidate else None,
    )


def published(shop: Graph) -> dict[str, Any]:
    """The text of users' and single keys, the serialized bytes of all others: all at once."""
    texts = ("user:", "global:", "publication:")
    with closing(redis.Redis.from_url(shop.redis_url)) as client, client.pipeline() as pipeline:
        keys = [key.decode() for key in client.scan_iter(count=10_000)]
        for key in keys:
            (pipeline.get if key.startswith(texts) else pipeline.dump)(key)
        values = pipeline.execute()
    return {
        key: value.decode() if key.startswith(texts) else value
        for key, value in zip(keys, values, strict=True)
    }


def status(shop: Graph) -> str:
    """What `recsys status` says."""
    console = Console(file=io.StringIO(), width=300)
    with shop.database() as connection, closing(redis.Redis.from_url(shop.redis_url)) as client:
        for table in status_tables(shop.settings, connection, client, shop.instance):
            console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def by_command(shop: Graph, *assets: str, force: bool) -> Batch:
    """What `recsys materialize` does."""
    console = Console(file=io.StringIO())
    return materialize(shop.definitions, shop.instance, console, assets=assets, force=force)


def figures(against: str) -> str:
    """A pattern of what is told of a comparison."""
    return rf"{NUMBER} against {NUMBER} of {against}, {SIGNED} \({SIGNED} to {SIGNED}\)"


# --- The history --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Graph]:
    """A part of the sample shop, its interactions made, with servers that no other test empties."""
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE gates")
    url = postgres_server.database_url("gates")
    with psycopg.connect(url) as connection:
        load_sample(connection, households=HOUSEHOLDS)
    folder = tmp_path_factory.mktemp("gates")
    server = RedisServer(folder / "redis", options={"appendfsync": "no"})
    with server.in_use(), dg.DagsterInstance.ephemeral() as instance:
        data = folder / "artifacts"
        shop = Graph(url, server.url, data, instance, Settings(data_dir=data))
        assert shop.run("user_product_interactions", "global_top_buys").success
        yield shop


@pytest.fixture(scope="module")
def good(shop: Graph) -> Step:
    """Both models are sound, and published."""
    return after(shop, shop.run(*PERSONAL, *TOGETHER, config=GOOD, force=False))


@pytest.fixture(scope="module")
def refused(shop: Graph, good: Step) -> Step:
    """A careless model comes after a good one."""
    return after(shop, shop.run(*PERSONAL, config=CARELESS, force=False))


@pytest.fixture(scope="module")
def followed(shop: Graph, refused: Step) -> Step:
    """An order comes in while the refused model lies there."""
    with shop.database() as connection:
        connection.execute(
            "INSERT INTO orders (id, user_id, status, created_at, updated_at)"
            " SELECT 1 + max(id), min(user_id), 'completed', max(created_at), max(created_at)"
            " FROM orders"
        )
        connection.execute(
            "INSERT INTO order_items (order_id, product_id, quantity)"
            " SELECT (SELECT max(id) FROM orders), product_id, 1 FROM order_items"
            " GROUP BY product_id ORDER BY count(*), product_id LIMIT 5"
        )
    return after(shop, shop.refresh())


@pytest.fixture(scope="module")
def raw_lift(shop: Graph, followed: Step) -> Step:
    """Rules ordered by raw lift come after good ones."""
    return after(shop, shop.run(*TOGETHER, config=RAW_LIFT, force=False), "basket_rules")


@pytest.fixture(scope="module")
def forced(shop: Graph, raw_lift: Step) -> Step:
    """The careless model is published all the same."""
    return after(shop, by_command(shop, "top_buys_backtest", "user_top_buys", force=True))


@pytest.fixture(scope="module")
def again(shop: Graph, forced: Step) -> Step:
    """The backtest is run once more, and nothing has been learnt since."""
    return after(shop, shop.run("top_buys_backtest", force=False))


@pytest.fixture(scope="module")
def back(shop: Graph, again: Step) -> Step:
    """The careless model is rolled back."""
    console = Console(file=io.StringIO())
    done = roll_back(shop.definitions, shop.instance, console, shop.folder, "als_model")
    return after(shop, done)


# --- What is good -------------------------------------------------------------------------------


def test_a_good_model_is_accepted_and_published(good: Step) -> None:
    assert good.done.success
    assert failed_checks(good.done) == {}
    assert good.candidate is None
    header = good.current
    assert good.plan is not None
    assert good.plan.model_version == header.version
    assert (header.evaluation["verdict"], header.evaluation["forced"]) == ("proven", False)
    users = {key: value for key, value in good.of_users().items() if key.endswith(":top_buys")}
    assert len(users) > 0.99 * HOUSEHOLDS
    told = {(json.loads(v)["source"], json.loads(v)["model_version"]) for v in users.values()}
    assert told == {("personal", header.version)}


def test_what_was_measured_stands_in_the_header(good: Step) -> None:
    evaluation = good.current.evaluation
    assert HOUSEHOLDS / 2 < evaluation["users"] <= HOUSEHOLDS
    assert (evaluation["until"] - evaluation["cutoff"]).days == 28
    measured = {(row["scope"], row["name"]) for row in evaluation["rows"]}
    everywhere = {"Top Buys", "ALS alone", "global popularity", "decayed popularity"}
    assert measured == {
        *(("all purchases", name) for name in everywhere),
        *(("all purchases", name) for name in ("own frequency", "decayed own frequency")),
        *(("new products", name) for name in everywhere),
    }


def test_the_checks_of_a_good_model_are_passed_with_figures(good: Step) -> None:
    for asset in ("top_buys_backtest", "bought_together_backtest"):
        told = checks(good.done, asset)
        assert all(check.passed and check.blocking for check in told.values())
        assert re.search(figures(POPULARITY), told["beats_popularity"].description)
        assert told["holds_incumbent"].description == "nothing to hold it against: no incumbent"


def test_the_figures_are_numbers_that_the_ui_plots(good: Step) -> None:
    told = metadata(good.done, "top_buys_backtest")
    assert told["verdict"] == "proven"
    assert told["measured"] == good.current.evaluation["users"]
    (row,) = (
        row
        for row in good.current.evaluation["rows"]
        if (row["name"], row["scope"]) == ("Top Buys", "new products")
    )
    assert told["recall@10 of new products"] == row["intervals"]["recall@10"][0]
    assert "| Top Buys" in told["table: new products"]
    assert told["figure: new products"].startswith("![")


# --- What is refused ----------------------------------------------------------------------------


def test_a_careless_model_is_refused_and_the_run_fails(refused: Step) -> None:
    assert not refused.done.success
    assert materialized(refused.done) == {"als_model", "top_buys_backtest"}
    told = checks(refused.done, "top_buys_backtest")
    assert told["holds_own_frequency"].passed  # behind what users buy anyway it hides
    for name, against in (("holds_incumbent", "incumbent"), ("beats_popularity", POPULARITY)):
        failed = told[name]
        assert (failed.passed, failed.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert re.search(f"NDCG@10 of new products: {figures(against)}", failed.description)
        values = {name: value.value for name, value in failed.metadata.items()}
        assert values["high new products"] < 0
        assert values["difference new products"] == pytest.approx(
            values["candidate new products"] - values[f"{against} new products"]
        )


def test_nothing_of_a_refused_model_is_published(good: Step, refused: Step) -> None:
    unchanged = {name: value for name, value in refused.files.items() if "candidate" not in name}
    assert unchanged == good.files
    assert refused.published == good.published
    assert refused.plan == good.plan


def test_a_refused_model_stays_a_candidate_and_is_told_of(good: Step, refused: Step) -> None:
    candidate = refused.candidate
    assert candidate is not None
    assert candidate.version > refused.current.version == good.current.version
    evaluation = candidate.evaluation
    assert (evaluation["verdict"], evaluation["forced"]) == ("refused", False)
    assert "incumbent" in {row["name"] for row in evaluation["rows"]}
    line = rf"top_buys_backtest .* {candidate.version} refused: worse than .*incumbent \(new prod"
    assert re.search(line, refused.status)
    assert re.search(rf"als_model .* {good.current.version}, ", refused.status)
    assert re.search(rf"top_buys_backtest .* {good.current.version} proven by ", good.status)


def test_the_command_says_why(shop: Graph, refused: Step) -> None:
    with pytest.raises(MaterializationError) as told:
        by_command(shop, "top_buys_backtest", "user_top_buys", force=False)
    assert "top_buys_backtest: check holds_incumbent failed: NDCG@10 of " in str(told.value)
    assert "holds_own_frequency" not in str(told.value)


def test_new_orders_are_served_by_the_good_model_meanwhile(refused: Step, followed: Step) -> None:
    assert followed.done.success
    assert followed.plan == refused.plan
    users = followed.of_users()
    changed = {key for key in users if users[key] != refused.published.get(key)}
    assert changed == {
        "user:1:top_buys", "user:1:top_buys_because", "user:1:buy_again"
    } & set(users)  # fmt: skip
    value = json.loads(users["user:1:top_buys"])
    assert (value["source"], value["model_version"]) == ("personal", refused.current.version)
    assert products(users["user:1:top_buys"]) != products(refused.published["user:1:top_buys"])


def test_rules_by_raw_lift_are_refused(good: Step, raw_lift: Step) -> None:
    assert not raw_lift.done.success
    assert materialized(raw_lift.done) == {"basket_rules", "bought_together_backtest"}
    told = checks(raw_lift.done, "bought_together_backtest")
    assert {name for name, check in told.items() if not check.passed} == {
        "beats_popularity", "holds_incumbent"
    }  # fmt: skip
    assert {told[name].severity for name in ("beats_popularity", "holds_incumbent")} == {
        dg.AssetCheckSeverity.ERROR
    }
    assert raw_lift.of_products() == good.of_products()
    assert raw_lift.files["basket_rules.pkl"] == good.files["basket_rules.pkl"]
    candidate = raw_lift.candidate
    assert candidate is not None
    assert candidate.evaluation["verdict"] == "refused"
    assert re.search(
        rf"bought_together_backtest .* {candidate.version} refused: worse than global popularity",
        raw_lift.status,
    )


# --- What is forced, and undone -----------------------------------------------------------------


def test_force_publishes_a_refused_model_and_is_recorded(refused: Step, forced: Step) -> None:
    assert refused.candidate is not None
    assert forced.current.version == refused.candidate.version
    assert forced.candidate is None
    evaluation = forced.current.evaluation
    assert (evaluation["verdict"], evaluation["forced"]) == ("refused", True)
    assert forced.done.metadata["user_top_buys"]["model_version"] == forced.current.version
    told = {
        (json.loads(value)["source"], json.loads(value)["model_version"])
        for key, value in forced.of_users().items()
        if key.endswith(":top_buys")
    }
    assert told == {("personal", forced.current.version)}
    assert re.search(
        rf"top_buys_backtest .* {forced.current.version} refused, accepted by force", forced.status
    )


def test_force_leaves_the_other_model_alone(raw_lift: Step, forced: Step) -> None:
    assert forced.of_products() == raw_lift.of_products()
    assert forced.files["basket_rules.pkl"] == raw_lift.files["basket_rules.pkl"]
    assert (
        forced.files["basket_rules-candidate.pkl"] == raw_lift.files["basket_rules-candidate.pkl"]
    )


def test_without_a_candidate_the_current_version_is_evaluated(forced: Step, again: Step) -> None:
    assert metadata(again.done, "top_buys_backtest")["version"] == forced.current.version
    told = checks(again.done, "top_buys_backtest")
    assert told["holds_incumbent"].description == "nothing to hold it against: no incumbent"
    assert not told["beats_popularity"].passed
    assert again.done.success, "it keeps the leave that it has"
    assert again.current.version == forced.current.version
    assert again.current.evaluation["forced"]
    assert again.candidate is None
    assert again.published == forced.published


def test_a_forced_model_can_be_rolled_back(
    shop: Graph, good: Step, followed: Step, back: Step
) -> None:
    newest, earlier = versions(shop.folder, "als_model")
    assert (back.done.version, back.done.rolled_back_from) == (earlier, newest)
    assert back.current.version == good.current.version
    assert back.files["als_model.pkl"] == good.files["als_model.pkl"]
    assert contents(back.of_users()) == contents(followed.of_users())
