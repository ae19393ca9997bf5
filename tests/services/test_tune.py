"""The search for settings: what is tried, what it is chosen by, and what is then written."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recsys_assets.evaluate import bought_together, top_buys, tune
from recsys_assets.evaluate.backtest import METRIC, BasketSizes, read_baskets
from recsys_assets.evaluate.tune import Periods, TooFewError, Trial
from recsys_assets.learn.blending import Blend, Ranker
from recsys_assets.learn.mining import Mining, mine
from recsys_assets.learn.recipe import Recipe, train
from recsys_assets.shop_session import ShopSession
from recsys_assets.tuned import FILE, read_tuned
from tests.commands import Home
from tests.publications import shop_session
from tests.shops import Order, create_shop, day
from tests.tunings import DAYS, LONG, QUICK, counted, periods_of, tuned_by

SIZES = BasketSizes(2, 100, None)


@pytest.fixture
def sample(small_sample_database_url: str) -> Iterator[ShopSession]:
    """200 households, their orders counted."""
    with shop_session(small_sample_database_url) as session:
        yield counted(session)


@pytest.fixture
def open_shop(database_url: str) -> Callable[[list[Order]], str]:
    """Makes a shop of these orders, counted; returns its URL."""

    def opened(orders: list[Order]) -> str:
        with closing(psycopg.connect(database_url)) as connection:
            create_shop(connection, orders)
        with shop_session(database_url) as session:
            counted(session)
        return database_url

    return opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are small, whatever is drawn, with few blends each."""
    small = {"factors": (4, 8), "alpha": (1.0,), "regularization": (3.0, 10.0), "iterations": (2,)}
    monkeypatch.setattr(tune, "OF_ALS", small)
    monkeypatch.setattr(tune, "BLENDS_PER_MODEL", 2)


def trials_of(
    session: ShopSession,
    most: int,
    in_use: Recipe = QUICK,
    periods: Periods | None = None,
    seed: int = 7,
) -> list[Trial]:
    found = tune.search_top_buys(
        session,
        in_use,
        periods or periods_of(session),
        seconds=LONG,
        max_users=100,
        seed=seed,
    )
    return list(islice(found, most))


def told(trials: list[Trial]) -> list[Any]:
    return [(trial.chosen, trial.scores) for trial in trials]


def baskets_trials(session: ShopSession, periods: Periods, **sizes: Any) -> list[Trial]:
    return list(
        tune.search_bought_together(
            session,
            Mining(shrinkage=2.0),
            replace(SIZES, **sizes),
            periods,
            max_baskets=500,
            min_product_orders=5,
            seed=7,
        )
    )


# --- When


def test_the_validation_ends_where_the_test_begins(sample: ShopSession) -> None:
    periods = periods_of(sample)
    (latest,) = sample.connection.execute("SELECT max(created_at) FROM orders").fetchone() or ()
    assert periods.until == latest + timedelta(microseconds=1)
    assert periods.until - periods.test == periods.test - periods.validation == DAYS


# --- Trials of Top Buys


def test_without_time_the_recipe_in_use_is_the_one_trial(sample: ShopSession) -> None:
    periods = periods_of(sample)
    trials = list(tune.search_top_buys(sample, QUICK, periods, seconds=0, max_users=100, seed=7))
    (trial,) = trials
    assert trial.chosen == QUICK
    # It is measured as a backtest that ended with the validation would measure it.
    split = top_buys.read_split(
        sample,
        cutoff=periods.validation,
        until=periods.test,
        half_life=QUICK.half_life,
        max_users=100,
        seed=7,
    )
    model = train(split.histories, split.cutoff, QUICK)
    scores = {}
    for scope, blend in ((top_buys.ALL, Blend()), (top_buys.NEW, Blend(repeats="exclude"))):
        lists = top_buys.ranked_lists(split, Ranker(model, blend, split.cutoff))
        values = top_buys.score(split, "", scope, lists, seed=7).values[METRIC]
        scores[scope] = float(values.mean())
    assert trial.scores == scores
    assert 0 < trial.objective == pytest.approx(math.sqrt(math.prod(scores.values())))


@pytest.mark.usefixtures("quick")
def test_a_seed_draws_the_same_trials_within_the_choices(sample: ShopSession) -> None:
    most = 2 * (1 + tune.BLENDS_PER_MODEL) + 1  # into the third model
    trials = trials_of(sample, most)
    assert told(trials_of(sample, most)) == told(trials)
    assert told(trials_of(sample, most, seed=8))[1:] != told(trials)[1:]
    assert trials[0].chosen == QUICK
    of_model = 1 + tune.BLENDS_PER_MODEL
    models = [trials[start : start + of_model] for start in range(0, most, of_model)]
    for model in models:
        assert len({(trial.chosen.als, trial.chosen.half_life) for trial in model}) == 1
        assert model[0].chosen.blend == QUICK.blend
    assert len({trial.chosen for trial in trials}) > most / 2
    for trial in trials[1:]:
        if trial.chosen.blend != QUICK.blend:
            for name, values in tune.OF_BLENDS.items():
                assert getattr(trial.chosen.blend, name) in values
    for model in models[1:]:
        assert model[0].chosen.half_life / timedelta(days=1) in tune.HALF_LIVES
        assert model[0].chosen.als.factors in (4, 8)
        assert model[0].chosen.als.seed == QUICK.als.seed


def test_what_is_bought_on_the_test_days_chooses_nothing(sample: ShopSession) -> None:
    periods = periods_of(sample)
    before = told(trials_of(sample, 4, periods=periods)), told(baskets_trials(sample, periods))
    deleted = sample.connection.execute(
        "WITH later AS (DELETE FROM orders WHERE created_at >= %s RETURNING id)"
        " DELETE FROM order_items USING later WHERE order_id = later.id",
        [periods.test],
    )
    assert deleted.rowcount > 1000
    counted(sample)
    after = told(trials_of(sample, 4, periods=periods)), told(baskets_trials(sample, periods))
    assert after == before


@pytest.mark.parametrize(
    ("repeats", "scopes"),
    [("blend", {top_buys.ALL, top_buys.NEW}), ("only", {top_buys.ALL}),
     ("exclude", {top_buys.NEW})],
)  # fmt: skip
def test_recipes_are_measured_by_what_is_served(
    sample: ShopSession, repeats: Any, scopes: set[str]
) -> None:
    in_use = replace(QUICK, blend=Blend(repeats=repeats))
    trials = trials_of(sample, 3, in_use)
    assert [set(trial.scores) for trial in trials] == [scopes] * 3
    assert {trial.chosen.blend.repeats for trial in trials} == {repeats}


def test_the_comparison_is_on_the_test_days(sample: ShopSession) -> None:
    periods = periods_of(sample)
    other = replace(QUICK, blend=Blend(affinity=0.0, discovery=0.2))
    compared = tune.compare_top_buys(sample, other, QUICK, periods, max_users=100, seed=7)
    later = Periods(periods.test, periods.until, periods.until)
    (trial,) = trials_of(sample, 1, periods=later)
    assert compared.in_use == trial.scores
    assert trial.scores != trials_of(sample, 1)[0].scores
    for scope, difference in compared.difference.items():
        expected = compared.chosen[scope] - compared.in_use[scope]
        assert difference.mean == pytest.approx(expected)
        assert difference.low <= difference.mean <= difference.high
    same = tune.compare_top_buys(sample, QUICK, QUICK, periods, max_users=100, seed=7)
    assert {(d.low, d.mean, d.high) for d in same.difference.values()} == {(0, 0, 0)}


# --- Trials of Bought Together


@pytest.mark.parametrize("window", [None, timedelta(days=60)])
def test_every_shrinkage_is_tried_once_after_the_one_in_use(
    sample: ShopSession, window: timedelta | None
) -> None:
    periods = periods_of(sample)
    trials = baskets_trials(sample, periods, window=window)
    assert trials[0].chosen == Mining(shrinkage=2.0)
    assert len({trial.chosen for trial in trials}) == len(trials) == 17
    # Mined as long before the cutoff as is mined for serving.
    sizes = replace(SIZES, window=window)
    since = periods.validation - window if window else None
    before = read_baskets(sample, sizes, since, periods.validation)
    held_out = bought_together.hold_out(
        read_baskets(sample, sizes, periods.validation, periods.test),
        before,
        min_orders=5,
        max_baskets=500,
        seed=7,
    )
    for trial in (trials[0], trials[-1]):
        rules = mine(before, trial.chosen)[1]
        scores = bought_together.backtest_one("", rules, held_out, seed=7)
        expected = {s.scope: s.values[bought_together.MRR].mean() for s in scores}
        assert trial.scores == pytest.approx(expected)
        assert trial.objective > 0


def test_mining_is_compared_on_the_test_days(sample: ShopSession) -> None:
    periods = periods_of(sample)
    options: dict[str, Any] = {"max_baskets": 500, "min_product_orders": 5, "seed": 7}
    in_use = Mining(shrinkage=2.0)
    sizes = replace(SIZES, window=timedelta(days=60))
    compared = tune.compare_bought_together(
        sample, Mining(shrinkage=300.0), in_use, sizes, periods, **options
    )
    later = Periods(periods.test, periods.until, periods.until)
    assert compared.in_use == baskets_trials(sample, later, window=timedelta(days=60))[0].scores
    assert compared.chosen.keys() == compared.difference.keys() == set(bought_together.SCOPES)
    assert compared.chosen != compared.in_use


# --- Which is best


def test_the_best_has_the_highest_mean_and_is_the_first_among_equals() -> None:
    trials = [
        Trial("in use", {"a": 0.25, "b": 0.25}),
        Trial("equal", {"a": 0.5, "b": 0.125}),
        Trial("lopsided", {"a": 1.0, "b": 0.01}),
        Trial("nothing", {"a": 1.0, "b": 0.0}),
    ]
    assert tune.best(trials).chosen == "in use"
    assert tune.best(trials[1:]).chosen == "equal"
    assert tune.best([*trials, Trial("better", {"a": 0.25, "b": 0.26})]).chosen == "better"
    assert tune.best([Trial(n, {"a": 0.0}) for n in range(3)]).chosen == 0


# --- The command


def test_what_is_better_is_written_beside_what_was_set_by_hand(
    small_sample_database_url: str, sample: ShopSession, tmp_path: Path
) -> None:
    # Settings that any shrinkage is better than; there is no time for other recipes.
    by_hand = {"min_orders": 3, "shrinkage": 0.0, "antecedent_shrinkage": 0.0}
    als = {"factors": 8, "iterations": 2}
    (tmp_path / FILE).write_text(
        "[als_model]\nfactors = 8\niterations = 2\n"
        "[basket_rules]\nmin_orders = 3\nshrinkage = 0\nantecedent_shrinkage = 0"
    )
    path, printed = tuned_by(small_sample_database_url, tmp_path)
    printed = " ".join(printed.split())
    assert path == tmp_path / FILE
    tuned = read_tuned(tmp_path)
    assert tuned["half_life_days"] == 60
    assert als.items() <= tuned["als_model"].items()
    assert tuned["basket_rules"].keys() == by_hand.keys()
    assert tuned["basket_rules"]["min_orders"] == 3
    assert tuned["basket_rules"] != by_hand
    assert re.search(r"Top Buys: the best of 1 trials on the validation days, NDCG@10", printed)
    assert re.search(r"Bought Together: the best of 17 trials on the validation days", printed)
    assert "# Bought Together, MRR@10 of one product on the test days: 0." in path.read_text()

    # Nothing is better than what was chosen, and nothing is written.
    written = path.read_bytes()
    again, printed = tuned_by(small_sample_database_url, tmp_path)
    assert again is None
    assert "Nothing is better than the settings in use: nothing is written" in printed
    assert path.read_bytes() == written


# --- Too few


def test_a_shop_without_purchases_cannot_be_tuned(
    open_shop: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(TooFewError, match="there are no purchases to tune by"):
        tuned_by(open_shop([]), tmp_path)


@pytest.mark.parametrize(
    "days", [[1], [1, 1.5, 2], [1, 20, 40], [1, 30, 57, 100]], ids=lambda days: str(len(days))
)
def test_a_shop_that_is_young_or_small_cannot_be_tuned(
    open_shop: Callable[..., str], tmp_path: Path, days: list[float]
) -> None:
    orders = [Order(n, 1 + n % 2, [1, 2, 3], day(at)) for n, at in enumerate(days, start=1)]
    with pytest.raises(TooFewError, match="too few orders to tune by: try other --held-out-days"):
        tuned_by(open_shop(orders), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_has_too_few_orders_is_left_alone(
    open_shop: Callable[..., str], tmp_path: Path
) -> None:
    """Guests buy together, and of users there are none to learn from."""
    orders = [Order(n, None, [n % 3, 3 + n % 3, 6 + n % 2], day(n / 4)) for n in range(1, 400)]
    orders.append(Order(500, 1, [1], day(99)))
    _, printed = tuned_by(open_shop(orders), tmp_path)
    left = r"Top Buys is left as it is: 0 users from .* have a past to be measured by, and 30 are"
    assert re.search(left, printed)
    assert "Bought Together: the best of 16 trials" in printed


def test_the_command_line(small_sample_database_url: str, tmp_path: Path) -> None:
    home = Home(tmp_path, {"RECSYS_DATABASE_URL": small_sample_database_url})
    home.data.mkdir()
    (home.data / FILE).write_text(
        "half_life_days = 90\n[als_model]\nfactors = 8\niterations = 2\n"
        "[basket_rules]\nshrinkage = 0.0\nantecedent_shrinkage = 0.0\n"
    )
    printed = home.recsys("tune", "--minutes", 0.05)
    assert re.search(r"Chosen by what was bought from \d{4}-\d\d-\d\d to ", printed)
    assert re.search(r"Top Buys: NDCG@10 on the test days, which nothing was chosen by", printed)
    assert f"Written to {home.data / FILE}. Restart what runs, then: recsys materialize" in printed
    assert read_tuned(home.data)["basket_rules"]["shrinkage"] > 0
    assert "Traceback" not in printed
