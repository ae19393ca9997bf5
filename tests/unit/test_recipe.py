"""What is chosen for Top Buys and Bought Together, in the header of an artifact and back."""

import pickle
from dataclasses import fields
from datetime import timedelta

import pytest

from recsys_assets.learn.als import AlsParameters
from recsys_assets.learn.artifacts import ArtifactError
from recsys_assets.learn.blending import Blend
from recsys_assets.learn.mining import Mining
from recsys_assets.learn.recipe import Recipe

RECIPES = [
    Recipe(AlsParameters(), Blend(), timedelta(days=90)),
    Recipe(
        AlsParameters(factors=8, alpha=40.0, regularization=0.01, iterations=3, seed=11),
        Blend(repeats="exclude"),
        timedelta(days=0.5),
    ),
]
MININGS = [
    Mining(),
    Mining("mlxtend", None, 0.01, max_itemset_size=3, shrinkage=0.0, antecedent_shrinkage=1.0),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_comes_back_from_its_parameters(recipe: Recipe) -> None:
    parameters = recipe.to_parameters()
    assert Recipe.from_parameters(parameters) == recipe
    # What else an artifact tells of itself makes no difference.
    assert Recipe.from_parameters({**parameters, "note": "by hand"}) == recipe


@pytest.mark.parametrize("mining", MININGS)
def test_mining_comes_back_from_its_parameters(mining: Mining) -> None:
    parameters = mining.to_parameters() | {"min_basket_products": 2}
    assert Mining.from_parameters(parameters) == mining


@pytest.mark.parametrize("made", [*RECIPES, *MININGS])
def test_parameters_are_plain_values(made: Recipe | Mining) -> None:
    parameters = made.to_parameters()
    assert {type(value) for value in parameters.values()} <= {int, float, str, type(None)}
    assert pickle.loads(pickle.dumps(parameters)) == parameters


def test_no_two_parts_of_a_recipe_have_a_parameter_of_the_same_name() -> None:
    parts = [field.name for part in (AlsParameters, Blend) for field in fields(part)]
    assert len({*parts, "half_life_days"}) == len(parts) + 1


@pytest.mark.parametrize("name", list(RECIPES[0].to_parameters()))
def test_a_recipe_of_another_release_is_told_of(name: str) -> None:
    parameters = RECIPES[0].to_parameters()
    del parameters[name]
    with pytest.raises(ArtifactError, match=rf"another release \(no '{name}'\): materialize it"):
        Recipe.from_parameters(parameters)


@pytest.mark.parametrize("name", list(MININGS[0].to_parameters()))
def test_mining_of_another_release_is_told_of(name: str) -> None:
    parameters = MININGS[0].to_parameters()
    del parameters[name]
    with pytest.raises(ArtifactError, match=rf"another release \(no '{name}'\): materialize it"):
        Mining.from_parameters(parameters)
