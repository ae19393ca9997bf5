"""The graph by what was tuned: models are made by the file, and run config goes before it."""

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from recsys_assets import tables
from recsys_assets.learn.als import AlsParameters
from recsys_assets.learn.artifacts import Header, load_candidate
from recsys_assets.learn.blending import Blend
from recsys_assets.learn.mining import Mining
from recsys_assets.learn.recipe import Recipe
from recsys_assets.settings import load_settings
from recsys_assets.tuned import FILE, write_tuned
from tests.graphs import Graph, reasons
from tests.publications import shop_session
from tests.shops import Order, create_shop, day

TUNED = {
    "als_model": {"factors": 4, "iterations": 2, "discovery": 0.25, "trend_days": 90.0},
    "basket_rules": {"shrinkage": 30.0, "antecedent_shrinkage": 0.0},
}


@pytest.fixture
def shop(graph: Graph) -> Graph:
    """A small shop, its interactions made."""
    orders = [Order(n, 1 + n % 3, [n % 4, 4 + n % 3], day(n)) for n in range(1, 25)]
    with graph.database() as connection:
        create_shop(connection, orders)
    assert graph.run("user_product_interactions").success
    return graph


def candidate(graph: Graph, name: str) -> Header:
    found = load_candidate(graph.folder, name)
    assert found is not None
    return found[0]


def learnt(graph: Graph, config: Any = None) -> tuple[Recipe, Mining]:
    """What the candidates say that they were made by, once both are made anew."""
    assert graph.run("als_model", "basket_rules", config=config).success
    als, rules = (candidate(graph, name).parameters for name in ("als_model", "basket_rules"))
    return Recipe.from_parameters(als), Mining.from_parameters(rules)


def test_models_are_made_by_what_was_tuned_below_run_config(shop: Graph) -> None:
    days = timedelta(days=120)
    quick = {"als_model": {"factors": 8, "iterations": 1}}
    assert learnt(shop, quick) == (
        Recipe(AlsParameters(factors=8, iterations=1), Blend(), days),
        Mining(),
    )
    write_tuned(shop.folder, 120.0, TUNED, "by hand")
    recipe = Recipe(
        AlsParameters(factors=4, iterations=2), Blend(discovery=0.25, trend_days=90.0), days
    )
    mining = Mining(shrinkage=30.0, antecedent_shrinkage=0.0)
    assert learnt(shop) == (recipe, mining)
    config = {"als_model": {"factors": 2, "lapse": 0.0}, "basket_rules": {"shrinkage": 1.0}}
    assert learnt(shop, config) == (
        replace(
            recipe,
            als=replace(recipe.als, factors=2),
            blend=replace(recipe.blend, lapse=0.0),
        ),
        replace(mining, shrinkage=1.0),
    )


def test_a_tuned_half_life_reaches_interactions_and_models(
    shop: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(shop.folder))
    write_tuned(shop.folder, 7.0, TUNED, "by hand")
    tuned = replace(shop, settings=load_settings())
    assert tuned.run("user_product_interactions").success
    recipe, _ = learnt(tuned)
    assert recipe.half_life == timedelta(days=7)
    expected: dict[tuple[int, int], float] = defaultdict(float)
    for n in range(1, 25):
        for product in (n % 4, 4 + n % 3):
            expected[1 + n % 3, product] += 0.5 ** ((24 - n) / 7)
    with shop_session(shop.database_url) as session:
        read = session.read(tables.weights(session.shop, day(24), timedelta(days=7))).to_pylist()
    found = {(row["user_id"], row["product_id"]): row["weight"] for row in read}
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[als_model]\nfactor = 4", "tuned.toml does not fit: factor: not one of factors, "),
        ("[als_model]\nfactors = 0", "tuned.toml does not fit: factors: Input should be greater"),
        ("[als]\nfactors = 4", "tuned.toml does not fit: als: not one of half_life_days, [als_"),
        ("[als_model", "tuned.toml cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_fails_the_run_by_its_name(
    shop: Graph, content: str, problem: str
) -> None:
    (shop.folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    (shop.folder / FILE).write_text(content)
    done = shop.run("als_model")
    assert not done.success
    assert problem in reasons(done)["als_model"]
    assert load_candidate(shop.folder, "als_model") is None
