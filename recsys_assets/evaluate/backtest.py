"""A candidate's backtest from the shop's orders to the judgement."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from recsys_assets.evaluate import past, top_buys
from recsys_assets.evaluate.gates import Judgement, Rule, judge
from recsys_assets.evaluate.report import Row, to_rows
from recsys_assets.evaluate.top_buys import ALL, NEW, Score, Split
from recsys_assets.learn.als import AlsModel
from recsys_assets.learn.blending import Repeats
from recsys_assets.learn.recipe import Recipe
from recsys_assets.shop_session import ShopSession

METRIC = "NDCG@10"
"""What gates go by: it counts hits as recall does, and the places they are in."""

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


def held_out_period(session: ShopSession, held_out: timedelta) -> tuple[datetime, datetime] | None:
    """The last so many days of purchases: since when, and before when; None without purchases."""
    row = session.connection.execute(past.last_purchase(session.shop)).fetchone()
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
    period = held_out_period(session, held_out)
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
    models = {top_buys.CANDIDATE: (split, candidate, _fit(split, candidate, progress))}
    if incumbent and incumbent != candidate:
        log("training by the incumbent's recipe")
        theirs = split
        if incumbent.half_life != candidate.half_life:
            period = (split.cutoff, split.until)
            theirs = _read(session, incumbent, period, max_users=len(split.rows), seed=seed)
            theirs = replace(theirs, rows=split.rows, truth=split.truth)
        models[top_buys.INCUMBENT] = (theirs, incumbent, _fit(theirs, incumbent, progress))
    for scope in top_buys.SCOPES:
        for name, (read, recipe, model) in models.items():
            blend = recipe.blend
            if scope == NEW:
                blend = replace(blend, repeats="exclude")
            lists = top_buys.model_lists(read, model, blend)
            yield top_buys.score(split, name, scope, lists, seed=seed)
            if incumbent == candidate:
                yield top_buys.score(split, top_buys.INCUMBENT, scope, lists, seed=seed)
        for name, lists in top_buys.baselines(split, scope):
            yield top_buys.score(split, name, scope, lists, seed=seed)
        alone = replace(candidate.blend, own_weight=0.0, repeats=_repeats(scope))
        model = models[top_buys.CANDIDATE][2]
        lists = top_buys.model_lists(split, model, alone)
        yield top_buys.score(split, top_buys.ALS, scope, lists, seed=seed)
        log(f"measured: {scope} purchases")


def _repeats(scope: str) -> Repeats:
    return "exclude" if scope == NEW else "blend"


def _fit(split: Split, recipe: Recipe, progress: Progress) -> AlsModel:
    return top_buys.model_of_the_past(split, recipe.als, progress)
