"""The search for settings that suit a shop, by random trials on days before those reported.

The last held-out days are the test, which nothing is chosen by; the as many days before them are
the validation. Trials begin with the settings in use, then draw others from fixed choices. A model
of ALS is expensive and a blend is cheap, so that several blends are tried with each model.
"""

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from recsys_assets.evaluate import bought_together, past, top_buys
from recsys_assets.evaluate.backtest import (
    BASKET_METRIC,
    METRIC,
    BasketSizes,
    held_out_period,
    in_scope,
    read_baskets,
)
from recsys_assets.evaluate.metrics import Interval, bootstrap_difference
from recsys_assets.evaluate.top_buys import Score, Split
from recsys_assets.learn.blending import Ranker
from recsys_assets.learn.mining import Mining, mine
from recsys_assets.learn.recipe import Recipe, train
from recsys_assets.learn.rules import rules_from_itemsets
from recsys_assets.shop_session import ShopSession

NEVER = 100_000.0  # days, after which a purchase counts half: decay that makes no difference
HALF_LIVES = (30.0, 60.0, 90.0, 120.0, 180.0, 365.0, NEVER)
OF_ALS: dict[str, Sequence[Any]] = {
    "factors": (32, 64, 128, 192),
    "alpha": (0.3, 1.0, 3.0),
    "regularization": (1.0, 3.0, 10.0, 30.0),
    "iterations": (8, 15),
}
OF_BLENDS: dict[str, Sequence[Any]] = {
    "discovery": (0.2, 0.4, 0.8, 1.6),
    "affinity": (3.0, 6.0, 9.0, 12.0),
    "popularity": (0.0, 0.08, 0.15, 0.3),
    "trend_days": (7.0, 14.0, 28.0, 90.0),
    "lapse": (0.0, 0.25, 0.5, 1.0),
}
BLENDS_PER_MODEL = 8
MIN_MEASURED = 30
"""Users, or baskets, below which chance would choose."""
OF_MINING: dict[str, Sequence[Any]] = {
    "shrinkage": (1.0, 3.0, 10.0, 30.0),
    "antecedent_shrinkage": (0.0, 0.03, 0.1, 0.3),
}


class TooFewError(RuntimeError):
    """The shop has too few orders to choose anything by."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A recipe, or a way of mining, and what it reached on the validation days.

    ``scores`` is by scope; ``objective`` is their geometric mean, so that a gain of one per cent is
    worth the same in each.
    """

    chosen: Any
    scores: dict[str, float]

    @property
    def objective(self) -> float:
        """What the search maximises."""
        return math.prod(self.scores.values()) ** (1 / max(1, len(self.scores)))


@dataclass(frozen=True)
class Comparison:
    """The chosen settings beside those in use, on the test days: by scope, with the difference."""

    chosen: dict[str, float]
    in_use: dict[str, float]
    difference: dict[str, Interval]

    @property
    def is_worse(self) -> bool:
        """Whether the chosen settings are worse in a scope, beyond doubt."""
        return any(difference.high < 0 for difference in self.difference.values())


@dataclass(frozen=True)
class Periods:
    """Where validation and test begin, and where the test ends."""

    validation: datetime
    test: datetime
    until: datetime


def periods_of(session: ShopSession, held_out: timedelta) -> Periods | None:
    """The last two times so many days of purchases; None where there are no purchases."""
    period = held_out_period(session, past.last_purchase(session.shop), held_out)
    if period is None:
        return None
    test, until = period
    return Periods(test - held_out, test, until)


def search_top_buys(
    session: ShopSession,
    in_use: Recipe,
    periods: Periods,
    *,
    seconds: float,
    max_users: int,
    seed: int,
    half_lives: Sequence[float] = HALF_LIVES,
) -> Iterator[Trial]:
    """Trials until the time is over, that of the recipe in use first; see :func:`best`.

    ``half_lives``, in days, are those that are drawn from. A trial that has begun is finished. The
    same seed draws the same trials; how many there are depends on the time. Raises
    :class:`TooFewError`.
    """
    rng, started = random.Random(seed), time.monotonic()
    splits: dict[timedelta, Split] = {}
    recipe = in_use
    while True:
        split = splits.get(recipe.half_life) or _split(
            session, recipe, periods.validation, periods.test, max_users, seed
        )
        splits = {recipe.half_life: split}  # memory holds one at a time
        _require(len(split.rows), "users", periods)
        ranker = Ranker(train(split.histories, split.cutoff, recipe), recipe.blend, split.cutoff)
        yield Trial(recipe, _scores(split, ranker, seed))
        for _ in range(BLENDS_PER_MODEL):
            if time.monotonic() - started >= seconds:
                return
            blend = replace(recipe.blend, **_drawn(rng, OF_BLENDS))
            model = replace(ranker, blend=blend)
            yield Trial(replace(recipe, blend=blend), _scores(split, model, seed))
        if time.monotonic() - started >= seconds:
            return
        recipe = Recipe(
            replace(in_use.als, **_drawn(rng, OF_ALS)),
            in_use.blend,
            timedelta(days=rng.choice(half_lives)),
        )


def compare_top_buys(
    session: ShopSession,
    chosen: Recipe,
    in_use: Recipe,
    periods: Periods,
    *,
    max_users: int,
    seed: int,
) -> Comparison:
    """Two recipes on the test days, which neither was chosen by."""
    scores: list[dict[str, Score]] = []
    for recipe in (chosen, in_use):
        split = _split(session, recipe, periods.test, periods.until, max_users, seed)
        ranker = Ranker(train(split.histories, split.cutoff, recipe), recipe.blend, split.cutoff)
        scores.append({s.scope: s for s in _scored(split, ranker, seed)})
    return _compared(scores, METRIC, seed)


def search_bought_together(
    session: ShopSession,
    in_use: Mining,
    sizes: BasketSizes,
    periods: Periods,
    *,
    max_baskets: int,
    min_product_orders: int,
    seed: int,
) -> Iterator[Trial]:
    """A trial of every shrinkage, that in use first, with the rules mined once.

    Raises :class:`TooFewError`.
    """
    since = periods.validation - sizes.window if sizes.window else None
    before = read_baskets(session, sizes, since, periods.validation)
    later = read_baskets(session, sizes, periods.validation, periods.test)
    held_out = bought_together.hold_out(
        later, before, min_orders=min_product_orders, max_baskets=max_baskets, seed=seed
    )
    _require(len(held_out.hidden), "baskets", periods)
    grid = [
        replace(in_use, shrinkage=k, antecedent_shrinkage=q)
        for k in OF_MINING["shrinkage"]
        for q in OF_MINING["antecedent_shrinkage"]
    ]
    itemsets, _ = mine(before, in_use)
    for mining in dict.fromkeys([in_use, *grid]):
        rules = rules_from_itemsets(itemsets, mining.shrinkage, mining.antecedent_shrinkage)
        scores = bought_together.backtest_one("", rules, held_out, seed=seed)
        yield Trial(mining, {s.scope: _mean(s, BASKET_METRIC) for s in scores})


def compare_bought_together(
    session: ShopSession,
    chosen: Mining,
    in_use: Mining,
    sizes: BasketSizes,
    periods: Periods,
    *,
    max_baskets: int,
    min_product_orders: int,
    seed: int,
) -> Comparison:
    """Two ways of mining on the test days, which neither was chosen by."""
    since = periods.test - sizes.window if sizes.window else None
    before = read_baskets(session, sizes, since, periods.test)
    later = read_baskets(session, sizes, periods.test, periods.until)
    held_out = bought_together.hold_out(
        later, before, min_orders=min_product_orders, max_baskets=max_baskets, seed=seed
    )
    scores = [
        {
            s.scope: s
            for s in bought_together.backtest_one("", mine(before, m)[1], held_out, seed=seed)
        }
        for m in (chosen, in_use)
    ]
    return _compared(scores, BASKET_METRIC, seed)


def best(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest objective, the first among equals: in use, if none is better."""
    return max(trials, key=lambda trial: trial.objective)


def _require(measured: int, what: str, periods: Periods) -> None:
    if measured < MIN_MEASURED:
        raise TooFewError(
            f"{measured} {what} from {periods.validation:%Y-%m-%d} to {periods.test:%Y-%m-%d} have"
            f" a past to be measured by, and {MIN_MEASURED} are wanted"
        )


def _split(
    session: ShopSession,
    recipe: Recipe,
    cutoff: datetime,
    until: datetime,
    max_users: int,
    seed: int,
) -> Split:
    return top_buys.read_split(
        session,
        cutoff=cutoff,
        until=until,
        half_life=recipe.half_life,
        max_users=max_users,
        seed=seed,
    )


def _scored(split: Split, ranker: Ranker, seed: int) -> Iterator[Score]:
    """The scores in the scopes that are of what is served."""
    scopes = {"blend": top_buys.SCOPES, "only": (top_buys.ALL,), "exclude": (top_buys.NEW,)}
    for scope in scopes[ranker.blend.repeats]:
        lists = top_buys.ranked_lists(split, in_scope(ranker, scope, ranker.blend.repeats))
        yield top_buys.score(split, "", scope, lists, seed=seed)


def _scores(split: Split, ranker: Ranker, seed: int) -> dict[str, float]:
    return {score.scope: _mean(score, METRIC) for score in _scored(split, ranker, seed)}


def _mean(score: Score | bought_together.Score, metric: str) -> float:
    values = score.values[metric]
    return float(values.mean()) if len(values) else 0.0


def _drawn(rng: random.Random, choices: dict[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: rng.choice(values) for name, values in choices.items()}


def _compared(scores: "Sequence[dict[str, Any]]", metric: str, seed: int) -> Comparison:
    chosen, in_use = scores
    return Comparison(
        {scope: _mean(score, metric) for scope, score in chosen.items()},
        {scope: _mean(score, metric) for scope, score in in_use.items()},
        {
            scope: bootstrap_difference(
                score.values[metric], in_use[scope].values[metric], seed=seed
            )
            for scope, score in chosen.items()
            if len(score.values[metric])
        },
    )
