"""`recsys evaluate` and `recsys materialize --force` on a part of the sample shop."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from recsys_assets.learn.artifacts import load_artifact, load_candidate
from tests.commands import Home

QUICK = {"als_model": {"factors": 16, "iterations": 3}}
RAW_LIFT = {"basket_rules": {"shrinkage": 0.0, "antecedent_shrinkage": 0.0}}
TOGETHER = ("basket_rules", "bought_together_backtest", "bought_together")
LISTS = "product:*:bought_together"


@pytest.fixture
def home(tmp_path: Path, small_sample_database_url: str, redis_url: str) -> Home:
    """A home whose servers are those of the tests, with 200 households and an empty Redis."""
    for name, config in {"quick.yaml": QUICK, "raw_lift.yaml": RAW_LIFT}.items():
        ops = {asset: {"config": values} for asset, values in config.items()}
        (tmp_path / name).write_text(json.dumps({"ops": ops}))  # JSON is YAML
    urls = {"RECSYS_DATABASE_URL": small_sample_database_url, "RECSYS_REDIS_URL": redis_url}
    return Home(tmp_path, urls)


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(redis_url)) as client:
        yield client


def lines(printed: str) -> set[str]:
    """The first cells of the rows of tables."""
    return {re.split(r"\s{2,}", line.strip())[0] for line in printed.splitlines()}


def test_evaluate_shows_all_baselines_and_publishes_nothing(home: Home, store: redis.Redis) -> None:
    away = Home(home.folder, {**home.more, "RECSYS_REDIS_URL": "redis://localhost:1/0"})
    printed = away.recsys("evaluate", "--config", "quick.yaml")
    assert "5 assets in" in printed
    for title in (
        "All purchases, the first 10 of each list",
        "All purchases, the first 20 of each list",
        "New products, the first 10 of each list",
        "One product",
        "Cart",
    ):
        assert title in printed
    assert {
        "Top Buys", "ALS alone", "global popularity", "decayed popularity", "own frequency",
        "decayed own frequency", "Bought Together", "lift", "confidence",
    } <= lines(printed)  # fmt: skip
    assert re.search(r"lists +recall +NDCG +hit rate +MRR +coverage", printed)
    for name in ("als_model", "basket_rules"):
        header, _ = load_artifact(home.data, name)
        assert header.evaluation["verdict"] != "refused"
        assert f"{name} {header.version}: {header.evaluation['verdict']} by " in printed
    assert store.dbsize() == 0
    assert "Traceback" not in printed


def test_what_is_refused_is_published_by_force_alone(home: Home, store: redis.Redis) -> None:
    home.recsys("materialize", *TOGETHER)
    good, _ = load_artifact(home.data, "basket_rules")
    published = {key: store.zrange(key, 0, -1, withscores=True) for key in store.keys(LISTS)}
    assert published

    printed = home.recsys("materialize", *TOGETHER, "--config", "raw_lift.yaml", fails=1)
    assert "bought_together_backtest failed after" in printed
    told = printed.partition("error: ")[2]
    assert "bought_together_backtest: check holds_incumbent failed: MRR@10 of one product" in told
    assert re.search(r"incumbent, one product +0\.\d{4} .* refused", printed)
    assert "Traceback" not in printed
    candidate = load_candidate(home.data, "basket_rules")
    assert candidate is not None
    refused = candidate[0]
    assert f"basket_rules {refused.version}: refused" in printed
    assert load_artifact(home.data, "basket_rules")[0] == good
    assert published == {
        key: store.zrange(key, 0, -1, withscores=True) for key in store.keys(LISTS)
    }

    printed = home.recsys("status")
    assert re.search(rf"bought_together_backtest .* {refused.version} refused: worse", printed)

    printed = home.recsys("materialize", *TOGETHER[1:], "--force")
    assert "2 assets in" in printed
    forced, _ = load_artifact(home.data, "basket_rules")
    assert forced.version == refused.version
    assert (forced.evaluation["verdict"], forced.evaluation["forced"]) == ("refused", True)
    assert published != {
        key: store.zrange(key, 0, -1, withscores=True) for key in store.keys(LISTS)
    }
