"""`recsys tune`: the search for settings on the shop's own orders, watched, and its outcome."""

import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from recsys_assets.console import status_table
from recsys_assets.evaluate import tune
from recsys_assets.evaluate.backtest import BASKET_METRIC, METRIC, BasketSizes
from recsys_assets.evaluate.tune import Comparison, Periods, TooFewError, Trial
from recsys_assets.learn.assets import (
    ALS_MODEL,
    BASKET_RULES,
    AlsConfig,
    MiningConfig,
    mining_of,
    recipe_of,
)
from recsys_assets.learn.mining import Mining
from recsys_assets.learn.recipe import Recipe
from recsys_assets.resources import ShopDatabase
from recsys_assets.session import Session
from recsys_assets.settings import ShopSettings
from recsys_assets.shop_session import ShopSession
from recsys_assets.tuned import read_tuned, write_tuned

MAX_USERS, MAX_BASKETS, MIN_PRODUCT_ORDERS = 2_000, 5_000, 5
SHOWN = 5


def tune_shop(
    console: Console, session: Session, *, minutes: float, held_out_days: int, seed: int
) -> Path | None:
    """Search for settings, show what they reach, and write them where the graph reads them.

    Returns the file; None where nothing is better than what is in use, and nothing is written.
    Raises :class:`TooFewError`.
    """
    settings = session.settings
    shop = ShopDatabase(
        url=settings.database_url or "",
        **settings.model_dump(include=set(ShopSettings.model_fields)),
    )
    tuned = read_tuned(settings.data_dir)
    search = _Search(console, minutes * 60, seed)
    with shop.session() as opened:
        periods = tune.periods_of(opened, timedelta(days=held_out_days))
        if periods is None:
            raise TooFewError("there are no purchases to tune by")
        console.print(
            f"Chosen by what was bought from {periods.validation:%Y-%m-%d} to"
            f" {periods.test:%Y-%m-%d}, reported on what was bought from then to"
            f" {periods.until:%Y-%m-%d}",
            highlight=False,
        )
        recipe = search.top_buys(
            opened, recipe_of(AlsConfig.model_validate({}), shop, tuned.get(ALS_MODEL, {})), periods
        )
        mining = search.bought_together(
            opened,
            mining_of(MiningConfig.model_validate({}), tuned.get(BASKET_RULES, {})),
            BasketSizes(
                settings.min_basket_products, settings.max_basket_products, settings.basket_window
            ),
            periods,
        )
    if search.left == 2:
        raise TooFewError("there are too few orders to tune by: try other --held-out-days")
    if not search.found_better:
        console.print("\nNothing is better than the settings in use: nothing is written")
        return None
    path = write_tuned(
        settings.data_dir,
        recipe.half_life / timedelta(days=1),
        {
            ALS_MODEL: asdict(recipe.als) | _of_asset(recipe),
            BASKET_RULES: {
                **tuned.get(BASKET_RULES, {}),
                "shrinkage": mining.shrinkage,
                "antecedent_shrinkage": mining.antecedent_shrinkage,
            },
        },
        f"Written by recsys tune at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, seed {seed}.\n"
        + "\n".join(search.remarks),
    )
    console.print(f"\nWritten to {path}. Restart what runs, then: recsys materialize")
    return path


def _of_asset(recipe: Recipe) -> dict[str, Any]:
    """The parameters of the blend that are the asset's own; the others are the shop's settings."""
    blend = asdict(recipe.blend)
    del blend["repeats"]
    return blend


class _Search:
    """Both searches, with a bar each, and tables of what they found."""

    def __init__(self, console: Console, seconds: float, seed: int) -> None:
        self._console, self._seconds, self._seed = console, seconds, seed
        self.found_better = False
        self.left = 0  # as it was, for too few orders
        self.remarks: list[str] = []

    def top_buys(self, shop: ShopSession, in_use: Recipe, periods: Periods) -> Recipe:
        """The best recipe found within the time; that in use where orders are too few to tell."""
        trials = self._watched(
            "Top Buys",
            tune.search_top_buys(
                shop,
                in_use,
                periods,
                seconds=self._seconds,
                max_users=MAX_USERS,
                seed=self._seed,
                half_lives=self._half_lives(in_use),
            ),
            total=None,
        )
        if not trials:
            return in_use
        chosen: Recipe = tune.best(trials).chosen
        self._show("Top Buys", METRIC, trials)
        compared = tune.compare_top_buys(
            shop, chosen, in_use, periods, max_users=MAX_USERS, seed=self._seed
        )
        return chosen if self._is_better("Top Buys", METRIC, chosen != in_use, compared) else in_use

    def _half_lives(self, in_use: Recipe) -> Sequence[float]:
        """Those to choose from, in days: one, where the environment sets it."""
        if "RECSYS_HALF_LIFE_DAYS" in os.environ:
            return (in_use.half_life / timedelta(days=1),)
        return tune.HALF_LIVES

    def bought_together(
        self, shop: ShopSession, in_use: Mining, sizes: BasketSizes, periods: Periods
    ) -> Mining:
        """The best shrinkage; that in use where orders are too few to tell."""
        options: dict[str, Any] = {
            "max_baskets": MAX_BASKETS,
            "min_product_orders": MIN_PRODUCT_ORDERS,
            "seed": self._seed,
        }
        trials = self._watched(
            "Bought Together",
            tune.search_bought_together(shop, in_use, sizes, periods, **options),
            total=math.prod(map(len, tune.OF_MINING.values())),
        )
        if not trials:
            return in_use
        chosen: Mining = tune.best(trials).chosen
        self._show("Bought Together", BASKET_METRIC, trials)
        compared = tune.compare_bought_together(shop, chosen, in_use, sizes, periods, **options)
        is_better = self._is_better("Bought Together", BASKET_METRIC, chosen != in_use, compared)
        return chosen if is_better else in_use

    def _watched(self, what: str, trials: Iterable[Trial], total: int | None) -> list[Trial]:
        """All trials, with a bar that moves with their number, or with the time there is.

        None, with a word why, where there are too few orders for any.
        """
        done: list[Trial] = []
        started = time.monotonic()
        bar = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        try:
            with bar:
                task = bar.add_task(what, total=total or self._seconds, detail="")
                for trial in trials:
                    done.append(trial)
                    bar.update(
                        task,
                        completed=len(done) if total else time.monotonic() - started,
                        detail=f"{len(done)} trials, best {tune.best(done).objective:.4f}",
                    )
        except TooFewError as error:
            self.left += 1
            self._console.print(f"{what} is left as it is: {error}", highlight=False)
        return done

    def _show(self, what: str, metric: str, trials: Sequence[Trial]) -> None:
        """A table of the best trials, and of the settings in use."""
        in_use = _parameters(trials[0].chosen)
        ranked = sorted(trials, key=lambda trial: -trial.objective)[:SHOWN]
        rows = [
            (
                "in use" if trial is trials[0] else str(place),
                *(f"{value:.4f}" for value in trial.scores.values()),
                ", ".join(
                    f"{name} {value:g}"
                    for name, value in _parameters(trial.chosen).items()
                    if value != in_use[name]
                ),
            )
            for place, trial in enumerate(dict.fromkeys([*ranked, trials[0]]), start=1)
        ]
        title = f"{what}: the best of {len(trials)} trials on the validation days, {metric}"
        columns = ("", *trials[0].scores, "other than in use")
        self._console.print(status_table(title, columns, rows))

    def _is_better(self, what: str, metric: str, is_other: bool, compared: Comparison) -> bool:
        """Show what the chosen settings reach on the test days; whether they are to be used."""
        is_better = is_other and not compared.is_worse
        self.found_better |= is_better
        rows = []
        for scope, difference in compared.difference.items():
            chosen, in_use = compared.chosen[scope], compared.in_use[scope]
            told = f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
            rows.append((scope, f"{chosen:.4f}", f"{in_use:.4f}", told))
            if is_better:
                self.remarks.append(
                    f"{what}, {metric} of {scope} on the test days: {chosen:.4f}, before"
                    f" {in_use:.4f}, difference {told}."
                )
        title = f"{what}: {metric} on the test days, which nothing was chosen by"
        columns = ("scope", "chosen", "in use", "difference, 95 % interval")
        self._console.print(status_table(title, columns, rows))
        if is_other and not is_better:
            self._console.print(f"They are worse there: {what} stays as it is in use")
        return is_better


def _parameters(chosen: Any) -> dict[str, Any]:
    """The numbers that were searched, by name."""
    if isinstance(chosen, Recipe):
        numbers = chosen.to_parameters()
        return {name: value for name, value in numbers.items() if not isinstance(value, str)}
    return {name: getattr(chosen, name) for name in tune.OF_MINING}
