"""A candidate's backtest, from the shop's orders to the judgement."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql

from recsys_assets.evaluate import bought_together, past, top_buys
from recsys_assets.evaluate.gates import Judgement, Rule, judge
from recsys_assets.evaluate.report import Row, Scored, to_rows
from recsys_assets.evaluate.top_buys import ALL, NEW, Score, Split
from recsys_assets.learn.baskets import Baskets, baskets_from_lines
from recsys_assets.learn.blending import Ranker, Repeats
from recsys_assets.learn.matrix import Histories, positions
from recsys_assets.learn.mining import Mining, mine
from recsys_assets.learn.recipe import Recipe, train
from recsys_assets.shop_session import ShopSession

METRIC, BASKET_METRIC = "NDCG@10", "MRR@10"
"""What gates go by: both count hits and the places they are in."""
INCUMBENT = top_buys.INCUMBENT

Log = Callable[[str], object]
Progress = Callable[[int], object]


@dataclass(frozen=True)
class Backtest:
    """What was measured on the orders from ``cutoff`` on, and what follows from it."""

    judgement: Judgement
    rows: list[Row]
    cutoff: datetime | None
    until: datetime | None
    notes: Mapping[str, int]

    def to_header(self) -> dict[str, Any]:
        """All of it in plain values, for the header of an artifact."""
        return {
            **self.judgement.to_header(),
            "rows": self.rows,
            "cutoff": self.cutoff,
            "until": self.until,
            **self.notes,
        }


def rules_for(repeats: Repeats, tolerance: float) -> list[Rule]:
    """What Top Buys are held against, in the scopes that are of what is served.

    New products show what the model is worth: a bad one hides behind what users buy anyway.
    """
    of_all = [
        Rule(top_buys.POPULARITY, ALL, must_beat=True),
        Rule(top_buys.OWN, ALL),
        Rule(top_buys.INCUMBENT, ALL, tolerance=tolerance),
    ]
    of_new = [
        Rule(top_buys.POPULARITY, NEW, must_beat=repeats == "exclude"),
        Rule(top_buys.INCUMBENT, NEW, tolerance=tolerance),
    ]
    return {"blend": of_all + of_new, "only": of_all, "exclude": of_new}[repeats]


def held_out_period(
    session: ShopSession, latest: sql.Composed, held_out: timedelta
) -> tuple[datetime, datetime] | None:
    """The last so many days: since when, and before when; None where there is nothing yet.

    ``latest`` is a SELECT of the time of what came last.
    """
    row = session.connection.execute(latest).fetchone()
    if row is None or row[0] is None:
        return None
    until = row[0] + timedelta(microseconds=1)
    return until - held_out, until


def backtest_top_buys(
    session: ShopSession,
    candidate: Recipe,
    incumbent: Recipe | None,
    *,
    held_out: timedelta,
    min_users: int,
    max_users: int,
    tolerance: float,
    seed: int,
    log: Log = lambda _: None,
    progress: Progress = lambda _: None,
) -> Backtest:
    """Measure lists by the candidate's recipe beside baselines and the incumbent's recipe.

    ``progress`` is told the iterations of ALS that are done. A shop without orders before or in the
    held-out days, or with fewer than ``min_users`` users in both, proves nothing.
    """
    period = held_out_period(session, past.last_purchase(session.shop), held_out)
    scores: list[Score] = []
    split = None
    if period:
        split = _read(session, candidate, period, max_users=max_users, seed=seed)
        log(
            f"{split.users:,} users bought before {split.cutoff:%Y-%m-%d %H:%M} and after it;"
            f" {len(split.rows):,} are measured"
        )
    if split and len(split.rows):
        scores = list(_scores(session, split, candidate, incumbent, seed, log, progress))
    judgement = judge(
        {(s.scope, s.name): s.values[METRIC] for s in scores},
        top_buys.CANDIDATE,
        rules_for(candidate.blend.repeats, tolerance),
        metric=METRIC,
        min_users=min_users,
        seed=seed,
    )
    cutoff, until = period or (None, None)
    first_sold = {"first_sold_then": split.first_sold_then} if split else {}
    return Backtest(judgement, to_rows(scores), cutoff, until, first_sold)


def _read(
    session: ShopSession,
    recipe: Recipe,
    period: tuple[datetime, datetime],
    *,
    max_users: int,
    seed: int,
) -> Split:
    cutoff, until = period
    return top_buys.read_split(
        session,
        cutoff=cutoff,
        until=until,
        half_life=recipe.half_life,
        max_users=max_users,
        seed=seed,
    )


def _scores(
    session: ShopSession,
    split: Split,
    candidate: Recipe,
    incumbent: Recipe | None,
    seed: int,
    log: Log,
    progress: Progress,
) -> Iterator[Score]:
    """All lists in both scopes, the candidate's first."""
    rankers: dict[str, tuple[Ranker, Histories | None]] = {
        top_buys.CANDIDATE: (_ranker(split, candidate, progress), None)
    }
    if incumbent and incumbent != candidate:
        log("training by the incumbent's recipe")
        theirs = split
        if incumbent.half_life != candidate.half_life:
            theirs, split = _read_again(session, split, incumbent, seed)
        rankers[INCUMBENT] = (_ranker(theirs, incumbent, progress), theirs.bought)
    repeats = candidate.blend.repeats
    for scope in top_buys.SCOPES:
        for name, (ranker, bought) in rankers.items():
            lists = top_buys.ranked_lists(split, in_scope(ranker, scope, repeats), bought)
            yield top_buys.score(split, name, scope, lists, seed=seed)
            if incumbent == candidate:
                yield top_buys.score(split, INCUMBENT, scope, lists, seed=seed)
        for name, lists in top_buys.baselines(split, scope, repeats):
            yield top_buys.score(split, name, scope, lists, seed=seed)
        alone = top_buys.als_lists(split, rankers[top_buys.CANDIDATE][0].model, scope)
        yield top_buys.score(split, top_buys.ALS, scope, alone, seed=seed)
        log(f"measured: {scope}")


def _read_again(
    session: ShopSession, split: Split, recipe: Recipe, seed: int
) -> tuple[Split, Split]:
    """The past with the weights of another recipe, and the split, both of the same users.

    Orders may have changed since the first reading: who is not in both any more is not measured.
    """
    ids = split.histories.user_ids[split.rows]
    period = (split.cutoff, split.until)
    theirs = _read(session, recipe, period, max_users=len(ids), seed=seed)
    rows = positions(theirs.histories.user_ids, ids)
    split = split.of(rows >= 0)
    return replace(theirs, rows=rows[rows >= 0], truth=split.truth), split


def _ranker(split: Split, recipe: Recipe, progress: Progress) -> Ranker:
    """What would have made the lists at the cutoff."""
    model = train(split.histories, split.cutoff, recipe, progress)
    return Ranker(model, recipe.blend, split.cutoff)


def in_scope(ranker: Ranker, scope: str, repeats: Repeats) -> Ranker:
    """The same with ``repeats``, in the scope NEW without what users have bought."""
    repeats = "exclude" if scope == NEW else repeats
    return replace(ranker, blend=replace(ranker.blend, repeats=repeats))


@dataclass(frozen=True)
class BasketSizes:
    """Which orders are baskets: distinct products, at least and at most, and for how long back."""

    min_products: int
    max_products: int
    window: timedelta | None


def backtest_bought_together(
    session: ShopSession,
    candidate: Mining,
    incumbent: Mining | None,
    sizes: BasketSizes,
    *,
    held_out: timedelta,
    min_baskets: int,
    max_baskets: int,
    min_product_orders: int,
    tolerance: float,
    seed: int,
    log: Log = lambda _: None,
) -> Backtest:
    """Measure lists of rules mined as the candidate was beside baselines and the incumbent's.

    Measured is by products with ``min_product_orders`` or more before the held-out days. Fewer than
    ``min_baskets`` with two of them prove nothing.
    """
    period = held_out_period(session, past.last_order(session.shop), held_out)
    scores: list[Scored] = []
    if period:
        since = period[0] - sizes.window if sizes.window else None
        before = read_baskets(session, sizes, since, period[0])
        measured_by = bought_together.hold_out(
            read_baskets(session, sizes, *period),
            before,
            min_orders=min_product_orders,
            max_baskets=max_baskets,
            seed=seed,
        )
        log(
            f"{before.n_orders:,} baskets before {period[0]:%Y-%m-%d %H:%M},"
            f" {measured_by.count:,} to measure by after it"
        )
        _, rules = mine(before, candidate)
        scores += bought_together.backtest(rules, measured_by, seed=seed)
        if incumbent:
            theirs = rules if incumbent == candidate else mine(before, incumbent)[1]
            scores += bought_together.backtest_one(INCUMBENT, theirs, measured_by, seed=seed)
    judgement = judge(
        {(s.scope, s.name): s.values[BASKET_METRIC] for s in scores},
        bought_together.OURS,
        rules_of_bought_together(tolerance),
        metric=BASKET_METRIC,
        min_users=min_baskets,
        seed=seed,
    )
    cutoff, until = period or (None, None)
    return Backtest(judgement, to_rows(scores), cutoff, until, {})


def rules_of_bought_together(tolerance: float) -> list[Rule]:
    """What Bought Together is held against."""
    of_one = bought_together.ONE_PRODUCT
    of_cart = bought_together.CART
    return [
        Rule(bought_together.POPULARITY, of_cart, must_beat=True),
        Rule(bought_together.POPULARITY, of_one),
        Rule(bought_together.LIFT, of_one),
        Rule(bought_together.LIFT, of_cart),
        Rule(INCUMBENT, of_one, tolerance=tolerance),
        Rule(INCUMBENT, of_cart, tolerance=tolerance),
    ]


def read_baskets(
    session: ShopSession, sizes: BasketSizes, since: datetime | None, until: datetime
) -> Baskets:
    """The baskets of orders from ``since`` on and before ``until``."""
    lines = session.read(session.shop.basket_lines(since, until))
    return baskets_from_lines(
        lines["order_id"],
        lines["product_id"],
        min_products=sizes.min_products,
        max_products=sizes.max_products,
    )[0]
