"""Shops too small to prove a model by: what is published there, and what is told."""

import io
import json
import re
from dataclasses import replace

import dagster as dg
import pytest
from rich.console import Console

from recsys_assets.batch import MaterializationError, materialize
from recsys_assets.learn.artifacts import candidate_path, load_artifact
from tests.graphs import PERSONAL, Graph, checks, products
from tests.shops import Order, create_shop, day


def test_a_shop_too_small_lists_what_users_have_bought(graph: Graph) -> None:
    with graph.database() as connection:
        create_shop(
            connection,
            [Order(n, n % 7, [n % 3, 3 + n % 2, 10], day(n)) for n in range(1, 60)]
            + [Order(60, None, [77], day(60))],
        )
    result = graph.run(force=False)
    assert result.success
    for asset in ("top_buys_backtest", "bought_together_backtest"):
        for check in checks(result, asset).values():
            assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
            assert re.fullmatch(r"\d+ measured, 100 are needed to tell", check.description)
    for name in ("als_model", "basket_rules"):
        header, _ = load_artifact(graph.folder, name)
        assert (header.evaluation["verdict"], header.evaluation["forced"]) == ("unproven", False)
        assert not candidate_path(graph.folder, name).exists()
    lists = {
        key: value
        for key, value in graph.published().items()
        if re.fullmatch("user:.*:top_buys", key)
    }
    assert len(lists) == 7
    assert {json.loads(value)["source"] for value in lists.values()} == {"own_purchases"}
    # User 1 has bought 10 each time; what they have not bought comes after it, by popularity.
    ranked = [product for product, _ in products(lists["user:1:top_buys"])]
    assert ranked[0] == 10
    assert graph.published()["product:10:bought_together"]


def test_a_model_of_a_small_shop_is_used_by_force(graph: Graph) -> None:
    with graph.database() as connection:
        create_shop(connection, [Order(n, n % 7, [n % 3, 10], day(n)) for n in range(1, 60)])
    assert graph.run("user_product_interactions", *PERSONAL, force=True).success
    header, _ = load_artifact(graph.folder, "als_model")
    assert (header.evaluation["verdict"], header.evaluation["forced"]) == ("unproven", True)
    assert json.loads(graph.published()["user:1:top_buys"])["source"] == "personal"


def test_a_small_shop_is_no_reason_for_a_failure(graph: Graph) -> None:
    with graph.database() as connection:
        create_shop(connection, [Order(n, n % 7, [n % 3, 10], day(n)) for n in range(1, 60)])
    assert graph.run("user_product_interactions").success
    away = replace(graph, redis_url="redis://localhost:1/0")
    with pytest.raises(MaterializationError, match=r"(?s)^user_top_buys: .*Redis") as told:
        materialize(away.definitions, away.instance, Console(file=io.StringIO()), assets=PERSONAL)
    assert "beats_popularity" not in str(told.value)
