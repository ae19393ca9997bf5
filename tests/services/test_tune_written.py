"""What `recsys tune` writes: nothing that the test days speak against, no half-life that is set."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.evaluate import tune
from recsys_assets.evaluate.metrics import Interval
from recsys_assets.evaluate.tune import Comparison, Trial
from recsys_assets.shop_session import ShopSession
from recsys_assets.tuned import FILE
from tests.publications import shop_session
from tests.tunings import LONG, QUICK, counted, periods_of, tuned_by

pytestmark = pytest.mark.slow


@pytest.fixture
def sample(small_sample_database_url: str) -> Iterator[ShopSession]:
    """200 households, their orders counted."""
    with shop_session(small_sample_database_url) as session:
        yield counted(session)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are small, whatever is drawn, with few blends each."""
    small = {"factors": (4, 8), "alpha": (1.0,), "regularization": (3.0, 10.0), "iterations": (2,)}
    monkeypatch.setattr(tune, "OF_ALS", small)
    monkeypatch.setattr(tune, "BLENDS_PER_MODEL", 2)


# --- What the test days say


@pytest.mark.parametrize(
    ("differences", "is_worse"),
    [
        ([], False),
        ([(0.1, 0.05, 0.15)], False),
        ([(-0.1, -0.2, 0.01)], False),  # there is doubt
        ([(-0.1, -0.2, -0.01)], True),
        ([(0.1, 0.05, 0.15), (-0.1, -0.2, -0.01)], True),
    ],
)
def test_worse_is_what_is_worse_in_a_scope_beyond_doubt(
    differences: list[tuple[float, float, float]], is_worse: bool
) -> None:
    by_scope = {str(n): Interval(*values) for n, values in enumerate(differences)}
    assert Comparison({}, {}, by_scope).is_worse is is_worse


def test_what_is_worse_on_the_test_days_is_not_written(
    small_sample_database_url: str,
    sample: ShopSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search is for what is worst, which would be chosen by chance alone."""
    by_hand = (
        "[als_model]\nfactors = 8\niterations = 2\n"
        "[basket_rules]\nmin_orders = 3\nshrinkage = 3.0\nantecedent_shrinkage = 0.1\n"
    )
    (tmp_path / FILE).write_text(by_hand)
    monkeypatch.setattr(tune, "best", lambda trials: min(trials, key=lambda trial: trial.objective))
    path, printed = tuned_by(small_sample_database_url, tmp_path)
    assert path is None
    assert (tmp_path / FILE).read_text() == by_hand
    assert "They are worse there: Bought Together stays as it is in use" in printed
    assert "They are worse there: Top Buys" not in printed  # there was one trial
    assert "Nothing is better than the settings in use: nothing is written" in printed


# --- The half-life


def test_half_lives_are_drawn_from_those_given(sample: ShopSession, quick: None) -> None:
    found = tune.search_top_buys(
        sample,
        QUICK,
        periods_of(sample),
        seconds=LONG,
        max_users=100,
        seed=7,
        half_lives=(33.0,),
    )
    lives = [trial.chosen.half_life / timedelta(days=1) for trial in islice(found, 7)]
    assert lives == [120.0] * 3 + [33.0] * 4


@pytest.mark.parametrize("is_set", [True, False])
def test_a_half_life_set_in_the_environment_is_kept(
    small_sample_database_url: str,
    sample: ShopSession,
    quick: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_set: bool,
) -> None:
    """Thirteen trials are of five models, whatever time there is."""
    tried: list[timedelta] = []
    search = tune.search_top_buys

    def some(*args: Any, seconds: float, **options: Any) -> Iterator[Trial]:
        for trial in islice(search(*args, seconds=LONG, **options), 13):
            tried.append(trial.chosen.half_life)
            yield trial

    monkeypatch.setattr(tune, "search_top_buys", some)
    if is_set:
        monkeypatch.setenv("RECSYS_HALF_LIFE_DAYS", "60")
    tuned_by(small_sample_database_url, tmp_path)
    assert len(tried) == 13
    assert tried[0] == timedelta(days=60)
    assert (set(tried) == {timedelta(days=60)}) is is_set
