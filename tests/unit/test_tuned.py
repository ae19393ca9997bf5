"""What was tuned: as it is written, as it is read, and what goes before it."""

import re
import tomllib
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.evaluate import tune
from recsys_assets.learn.als import AlsParameters
from recsys_assets.learn.assets import (
    ALS_MODEL,
    BASKET_RULES,
    AlsConfig,
    MiningConfig,
    mining_of,
    recipe_of,
)
from recsys_assets.learn.blending import Blend
from recsys_assets.learn.mining import Mining
from recsys_assets.learn.recipe import Recipe
from recsys_assets.resources import ArtifactStore, ShopDatabase
from recsys_assets.settings import SettingsError, load_settings
from recsys_assets.tuned import FILE, HALF_LIFE, TABLES, read_tuned, write_tuned

ALS = AlsConfig.model_validate({})
MINING = MiningConfig.model_validate({})
OF_SHOP: dict[str, Any] = {"half_life_days": 30, "repeat_purchases": "exclude"}
SHOP = ShopDatabase(url="", **OF_SHOP)
DAYS = timedelta(days=30)
NUMBERS = st.integers(0, 1000) | st.floats(0, allow_nan=False, allow_infinity=False)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of the settings."""
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    return tmp_path


# --- The file


def test_where_nothing_was_tuned_there_is_nothing(tmp_path: Path) -> None:
    assert read_tuned(tmp_path) == read_tuned(tmp_path / "missing") == {}
    assert ArtifactStore(folder=str(tmp_path)).tuned(ALS_MODEL) == {}


@given(
    half_life=st.floats(1e-6, 100_000),
    als=st.dictionaries(st.sampled_from(list(AlsConfig.model_fields)), NUMBERS),
    mining=st.dictionaries(st.sampled_from(["shrinkage", "min_orders"]), NUMBERS),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    half_life: float,
    als: dict[str, float],
    mining: dict[str, float],
) -> None:
    folder = tmp_path_factory.mktemp("tuned") / "data"
    path = write_tuned(folder, half_life, {ALS_MODEL: als, BASKET_RULES: mining}, "why")
    expected = {HALF_LIFE: half_life, ALS_MODEL: als, BASKET_RULES: mining}
    assert read_tuned(folder) == tomllib.loads(path.read_text()) == expected
    assert ArtifactStore(folder=str(folder)).tuned(ALS_MODEL) == als


def test_the_file_is_replaced_and_tells_why(tmp_path: Path) -> None:
    write_tuned(tmp_path, 14.0, {ALS_MODEL: {"factors": 8}}, "the first")
    path = write_tuned(tmp_path, 60.0, {BASKET_RULES: {"shrinkage": 1.5}}, "one\ntwo = 2")
    assert path.read_text() == (
        "# one\n# two = 2\nhalf_life_days = 60.0\n\n[basket_rules]\nshrinkage = 1.5\n"
    )
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"half_life_days", b"a = 1\na = 2", b"\xff", b"[als_model"])
def test_a_file_that_is_no_toml_is_told_of(data: Path, content: bytes) -> None:
    (data / FILE).write_bytes(content)
    with pytest.raises(SettingsError, match=r"tuned\.toml cannot be read .*: mend it or delete it"):
        read_tuned(data)
    with pytest.raises(SettingsError, match=re.escape(str(data / FILE))):
        load_settings()


@pytest.mark.parametrize("content", ["half_life = 3", "als_model = 3", "[als]", "[[als_model]]"])
def test_what_the_file_cannot_have_is_told_of(data: Path, content: str) -> None:
    (data / FILE).write_text(content)
    with pytest.raises(SettingsError, match=r"tuned\.toml does not fit: .*half_life_days, \[als_m"):
        load_settings()


def test_the_tables_are_those_of_the_assets_that_read_them() -> None:
    assert set(TABLES) == {ALS_MODEL, BASKET_RULES}


# --- The half-life


def test_the_half_life_is_that_of_the_file_unless_the_environment_sets_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().half_life_days == 120
    monkeypatch.setenv("RECSYS_KEPT_ARTIFACTS", "5")
    write_tuned(data, 33.5, {}, "")
    settings = load_settings()
    assert settings.half_life_days == 33.5
    # All else is as it was.
    assert (settings.data_dir, settings.kept_artifacts) == (data, 5)
    # The default counts too, where it is set.
    monkeypatch.setenv("RECSYS_HALF_LIFE_DAYS", "120")
    assert load_settings().half_life_days == 120


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "100001", "'long'", "[1]"])
def test_a_bad_half_life_is_told_of_by_its_file(
    data: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    (data / FILE).write_text(f"{HALF_LIFE} = {value}")
    with pytest.raises(SettingsError, match=r"^tuned\.toml does not fit: half_life_days: Input"):
        load_settings()
    monkeypatch.setenv("RECSYS_HALF_LIFE_DAYS", "7")
    assert load_settings().half_life_days == 7


def test_a_bad_variable_is_told_of_as_such(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tuned(data, 33.5, {}, "")
    monkeypatch.setenv("RECSYS_HALF_LIFE_DAYS", "0")
    with pytest.raises(SettingsError, match=r"^RECSYS_HALF_LIFE_DAYS: [^;]+$"):
        load_settings()


# --- The recipe of Top Buys


def test_without_anything_tuned_a_recipe_is_the_default() -> None:
    assert recipe_of(ALS, SHOP, {}) == Recipe(AlsParameters(), Blend(repeats="exclude"), DAYS)


def test_run_config_goes_before_what_was_tuned() -> None:
    tuned = {"factors": 8, "alpha": 2, "lapse": 0.0, "discovery": 0.25}
    config = AlsConfig.model_validate({"factors": 16, "discovery": 0.0, "affinity": 3})
    assert recipe_of(config, SHOP, tuned) == Recipe(
        AlsParameters(factors=16, alpha=2.0),
        Blend(lapse=0.0, discovery=0.0, affinity=3.0, repeats="exclude"),
        DAYS,
    )


@pytest.mark.parametrize("recipe", [
    Recipe(AlsParameters(), Blend(repeats="exclude"), DAYS),
    Recipe(AlsParameters(8, 3.0, 1.0, 4, 11), Blend(0.2, 12.0, 0.0, 90.0, 1.0, "exclude"), DAYS),
])  # fmt: skip
def test_a_recipe_comes_back_from_what_was_tuned(tmp_path: Path, recipe: Recipe) -> None:
    blend = asdict(recipe.blend)
    del blend["repeats"]
    write_tuned(tmp_path, 30.0, {ALS_MODEL: asdict(recipe.als) | blend}, "")
    assert recipe_of(ALS, SHOP, read_tuned(tmp_path)[ALS_MODEL]) == recipe


def test_all_that_is_searched_can_be_tuned() -> None:
    for name, values in {**tune.OF_ALS, **tune.OF_BLENDS}.items():
        for value in values:
            parameters = recipe_of(ALS, SHOP, {name: value}).to_parameters()
            assert parameters[name] == value
    for name, values in tune.OF_MINING.items():
        for value in values:
            assert mining_of(MINING, {name: value}).to_parameters()[name] == value


@pytest.mark.parametrize(
    ("tuned", "problem"),
    [
        ({"factor": 8}, "factor: not one of factors, alpha, "),
        ({"repeats": "only"}, "repeats: not one of "),
        ({"half_life_days": 3}, "half_life_days: not one of "),
        ({"factors": 0}, "factors: Input should be greater than or equal to 1"),
        ({"factors": 2.5}, "factors: Input should be a valid integer"),
        ({"alpha": 0}, "alpha: Input should be greater than 0"),
        ({"lapse": [1]}, "lapse: Input should be a valid number"),
        ({"popularity": float("nan")}, "popularity: Input should be greater than"),
    ],
)
def test_what_does_not_fit_als_is_told_of_by_its_file(tuned: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError) as told:
        recipe_of(ALS, SHOP, tuned)
    assert str(told.value).startswith(f"tuned.toml does not fit: {problem}")
    assert str(told.value).endswith(": mend it or delete it")


# --- Mining


def test_run_config_goes_before_what_was_tuned_of_mining() -> None:
    assert mining_of(MINING, {}) == Mining()
    tuned = {"shrinkage": 30, "antecedent_shrinkage": 0.0}
    config = MiningConfig.model_validate({"shrinkage": 0.0})
    assert mining_of(MINING, tuned) == replace(Mining(), shrinkage=30.0, antecedent_shrinkage=0.0)
    assert mining_of(config, tuned) == replace(Mining(), shrinkage=0.0, antecedent_shrinkage=0.0)


@pytest.mark.parametrize(
    ("given", "tuned", "minimums"),
    [
        ({}, {"min_support": 0.1}, (None, 0.1)),
        ({}, {"min_orders": 7}, (7, None)),
        ({"min_orders": 3}, {"min_support": 0.1}, (3, None)),
        ({"min_support": 0.5}, {"min_orders": 7}, (None, 0.5)),
        ({"min_support": 0.5}, {}, (None, 0.5)),
    ],
)
def test_of_the_minimums_there_is_one(
    given: dict[str, Any], tuned: dict[str, Any], minimums: tuple[int | None, float | None]
) -> None:
    mining = mining_of(MiningConfig.model_validate(given), tuned)
    assert (mining.min_orders, mining.min_support) == minimums


@pytest.mark.parametrize(
    ("tuned", "problem"),
    [
        ({"strength": 8}, "strength: not one of min_orders, "),
        # What config has a value for anyway could never come from the file.
        ({"engine": "mlxtend"}, "engine: not one of "),
        ({"max_consequents": 5}, "max_consequents: not one of "),
        ({"shrinkage": -1}, "shrinkage: Input should be greater than or equal to 0"),
        ({"min_support": 2}, "min_support: Input should be less than or equal to 1"),
    ],
)
def test_what_does_not_fit_mining_is_told_of_by_its_file(
    tuned: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SettingsError) as told:
        mining_of(MINING, tuned)
    assert str(told.value).startswith(f"tuned.toml does not fit: {problem}")
