"""The backtest of Top Buys on a real PostgreSQL: a shop small enough to be worked out by hand.

Purchases count half after 10 days. The cutoff is day 31.

====  ==========================  ============================  ===================================
user  before                      own decayed purchases         after
====  ==========================  ============================  ===================================
1     tea days 1, 11, 21;         tea 1/8 + 1/4 + 1/2,          tea, rusk
      milk day 11                 milk 1/4
2     milk, rusk day 21           milk 1/2, rusk 1/2            jam; milk twice
3     tea day 21                  tea 1/2                       tea, and kiwi, which is new
4     rusk day 21                 rusk 1/2                      kiwi only: nothing could be told
5     tea day 1                   tea 1/8                       nothing
6     nothing                                                   tea: nobody knew of them
====  ==========================  ============================  ===================================

Guests bought jam on day 1, three times, and salt once. So orders are tea 5, jam 3, milk 2, rusk 2,
salt 1; decayed they are tea 1.5, rusk 1, milk 0.75, jam 0.375, salt 0.125.
"""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from math import log2
from typing import Any

import numpy as np
import pytest

from recsys_assets.evaluate import top_buys
from recsys_assets.evaluate.backtest import Backtest, backtest_top_buys
from recsys_assets.evaluate.gates import Verdict
from recsys_assets.evaluate.top_buys import (
    ALL,
    DECAYED_OWN,
    DECAYED_POPULARITY,
    LENGTH,
    NEW,
    OWN,
    POPULARITY,
    Lists,
    Split,
    baselines,
    read_split,
    score,
)
from recsys_assets.learn.als import AlsParameters
from recsys_assets.learn.blending import Blend, Repeats
from recsys_assets.learn.recipe import Recipe
from recsys_assets.shop_session import ShopSession
from tests.commands import ROOT
from tests.publications import Open
from tests.shops import Order, day, id_of

TEA, MILK, RUSK, JAM, SALT, KIWI = range(10, 16)
HALF_LIFE = timedelta(days=10)
CUTOFF, UNTIL = day(31), day(59)
BEFORE = [
    Order(1, 1, [TEA], day(1)),
    Order(2, 1, [TEA, MILK], day(11)),
    Order(3, 1, [TEA], day(21)),
    Order(4, 2, [MILK, RUSK], day(21)),
    Order(5, 3, [TEA], day(21)),
    Order(6, 4, [RUSK], day(21)),
    Order(7, 5, [TEA], day(1)),
    Order(8, None, [JAM, SALT], day(1)),
    Order(9, None, [JAM], day(1)),
    Order(10, None, [JAM], day(1)),
]
AFTER = [
    Order(11, 1, [TEA, RUSK], day(31)),  # the first moment that is held out
    Order(12, 2, [JAM, MILK], day(36)),
    Order(13, 2, [MILK], day(40)),
    Order(14, 3, [KIWI], day(40)),
    Order(15, 3, [TEA], day(41)),
    Order(16, 4, [KIWI], day(42)),
    Order(17, 6, [TEA], day(43)),
    Order(18, None, [MILK], day(44)),
    Order(19, 5, [TEA], day(59)),  # the first that is too late
]
SMALL = Recipe(AlsParameters(factors=8, iterations=2, regularization=0.1), Blend(), HALF_LIFE)
SECOND = 1 / log2(3)  # what a hit in the second place gains


def split_of(session: ShopSession, *, max_users: int = 100, seed: int = 1) -> Split:
    return read_split(
        session,
        cutoff=CUTOFF,
        until=UNTIL,
        half_life=HALF_LIFE,
        max_users=max_users,
        seed=seed,
    )


def truth_of(split: Split) -> dict[Any, set[Any]]:
    """What each user that is measured then bought."""
    users = split.histories.user_ids[split.rows].tolist()
    return {
        user: set(split.product_ids[split.truth[[row]].indices].tolist())
        for row, user in enumerate(users)
    }


def products(split: Split, lists: Lists) -> list[list[Any]]:
    """Lists as ids of products, without the places that are not filled."""
    assert lists.shape == (len(split.rows), LENGTH)
    return [split.product_ids[row[row >= 0]].tolist() for row in lists]


def measured(session: ShopSession, recipe: Recipe = SMALL, **options: Any) -> Backtest:
    chosen = {
        "incumbent": None,
        "held_out": timedelta(days=28),
        "min_users": 30,
        "max_users": 1000,
        "tolerance": 0.02,
        "seed": 7,
    } | options
    return backtest_top_buys(session, recipe, **chosen)


# --- What is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("id_type", ["bigint", "text", "uuid"])
def test_what_is_known_and_what_is_held_out(open_shop: Open, id_type: str) -> None:
    split = split_of(open_shop([*BEFORE, *AFTER], id_type=id_type))

    def plain(*numbers: int) -> list[Any]:
        shown = [id_of(number, id_type) for number in numbers]
        return [i if isinstance(i, int) else str(i) for i in shown]

    assert split.histories.user_ids.tolist() == plain(1, 2, 3, 4, 5)
    assert split.histories.product_ids.tolist() == plain(TEA, MILK, RUSK)
    assert split.product_ids.tolist() == plain(TEA, MILK, RUSK, JAM, SALT)
    assert split.orders.tolist() == [5, 2, 2, 3, 1]
    assert split.decayed == pytest.approx([1.5, 0.75, 1, 0.375, 0.125])
    assert list(truth_of(split).items()) == [
        (plain(1)[0], set(plain(TEA, RUSK))),
        (plain(2)[0], set(plain(JAM, MILK))),
        (plain(3)[0], set(plain(TEA))),
    ]
    assert (split.users, split.first_sold_then) == (3, 2)
    assert split.counts().toarray().tolist() == [
        [3, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
    ]
    assert split.weights().toarray() == pytest.approx(
        np.array([[0.875, 0.25, 0, 0, 0], [0, 0.5, 0.5, 0, 0], [0.5, 0, 0, 0, 0]])
    )


def test_users_are_drawn_by_the_seed(open_shop: Open) -> None:
    session = open_shop([*BEFORE, *AFTER])
    everybody = truth_of(split_of(session))
    drawn = [split_of(session, max_users=2, seed=seed) for seed in range(12)]
    for split in drawn:
        assert (split.users, len(split.rows), split.first_sold_then) == (3, 2, 2)
        assert truth_of(split).items() <= everybody.items()
        assert split.counts().shape == (2, 5)
    again = [split_of(session, max_users=2, seed=seed) for seed in range(12)]
    assert [split.rows.tolist() for split in drawn] == [split.rows.tolist() for split in again]
    assert {tuple(truth_of(split)) for split in drawn} == {(1, 2), (1, 3), (2, 3)}


# --- Lists without a model ----------------------------------------------------------------------


def test_baselines_of_all_purchases(open_shop: Open) -> None:
    split = split_of(open_shop([*BEFORE, *AFTER]))
    lists = {name: products(split, each) for name, each in baselines(split, ALL, "blend")}
    assert lists == {
        POPULARITY: [[TEA, JAM, MILK, RUSK, SALT]] * 3,
        DECAYED_POPULARITY: [[TEA, RUSK, MILK, JAM, SALT]] * 3,
        # Milk and rusk of user 2 are equal, and as popular: the lower id is first.
        OWN: [
            [TEA, MILK, JAM, RUSK, SALT],
            [MILK, RUSK, TEA, JAM, SALT],
            [TEA, JAM, MILK, RUSK, SALT],
        ],
        # Decayed, rusk is the more popular.
        DECAYED_OWN: [
            [TEA, MILK, RUSK, JAM, SALT],
            [RUSK, MILK, TEA, JAM, SALT],
            [TEA, RUSK, MILK, JAM, SALT],
        ],
    }


def test_baselines_of_new_products_leave_out_what_was_bought(open_shop: Open) -> None:
    split = split_of(open_shop([*BEFORE, *AFTER]))
    lists = {name: products(split, each) for name, each in baselines(split, NEW, "blend")}
    assert lists == {
        POPULARITY: [[JAM, RUSK, SALT], [TEA, JAM, SALT], [JAM, MILK, RUSK, SALT]],
        DECAYED_POPULARITY: [[RUSK, JAM, SALT], [TEA, JAM, SALT], [RUSK, MILK, JAM, SALT]],
    }


# --- Measures -----------------------------------------------------------------------------------


def test_popularity_is_measured_by_all_purchases(open_shop: Open) -> None:
    split = split_of(open_shop([*BEFORE, *AFTER]))
    (lists,) = (lists for name, lists in baselines(split, ALL, "blend") if name == POPULARITY)
    scored = score(split, POPULARITY, ALL, lists, seed=1)
    # User 1 finds tea first and rusk fourth, user 2 jam second and milk third, user 3 tea first.
    best_of_two = 1 + SECOND
    expected = [(1 + 1 / log2(5)) / best_of_two, (SECOND + 1 / 2) / best_of_two, 1]
    for cut in ("@10", "@20"):
        assert scored.values[f"NDCG{cut}"].tolist() == pytest.approx(expected)
        assert scored.values[f"recall{cut}"].tolist() == [1, 1, 1]
        assert scored.values[f"hit rate{cut}"].tolist() == [1, 1, 1]
        assert scored.values[f"MRR{cut}"].tolist() == [1, 1 / 2, 1]
    interval = scored.intervals["NDCG@10"]
    assert interval.mean == pytest.approx(sum(expected) / 3)
    assert min(expected) <= interval.low <= interval.mean <= interval.high <= 1
    # Every product is shown thrice. By rank: tea 1, jam 2, milk and rusk 3.5, salt 5. Of 5 users
    # 3 have tea, 2 milk, 2 rusk; none has jam or salt, which counts as one.
    information = [log2(5 / 3), log2(5 / 2), log2(5 / 2), log2(5), log2(5)]
    assert scored.figures == {
        "coverage@10": 1,
        "popularity rank@10": pytest.approx(3),
        "novelty@10": pytest.approx(sum(information) / 5),
    }


def test_new_products_are_those_that_the_user_had_not_bought(open_shop: Open) -> None:
    split = split_of(open_shop([*BEFORE, *AFTER]))
    (lists,) = (lists for name, lists in baselines(split, NEW, "blend") if name == POPULARITY)
    scored = score(split, POPULARITY, NEW, lists, seed=1)
    # Rusk is new to user 1, jam to user 2, and nothing to user 3: both are second.
    assert scored.values["NDCG@10"].tolist() == pytest.approx([SECOND, SECOND])
    assert scored.values["MRR@10"].tolist() == [1 / 2, 1 / 2]
    assert scored.values["recall@20"].tolist() == [1, 1]


def test_lists_of_any_kind_are_measured(open_shop: Open) -> None:
    split = split_of(open_shop([*BEFORE, *AFTER]))
    lists = np.full((3, LENGTH), -1)
    lists[0, 0], lists[1, :2], lists[2, 12] = 2, (0, 3), 0  # rusk; tea, jam; tea in place 13
    scored = score(split, "mine", ALL, lists, seed=1)
    assert scored.values["recall@10"].tolist() == [1 / 2, 1 / 2, 0]
    assert scored.values["recall@20"].tolist() == [1 / 2, 1 / 2, 1]
    assert scored.values["MRR@20"].tolist() == pytest.approx([1, 1 / 2, 1 / 13])
    assert scored.values["hit rate@10"].tolist() == [1, 1, 0]
    assert scored.figures["coverage@10"] == 3 / 5
    nothing = score(split, "none", ALL, np.full((3, LENGTH), -1), seed=1)
    assert nothing.values["recall@20"].tolist() == [0, 0, 0]
    assert nothing.figures == {}


# --- From orders to the judgement ---------------------------------------------------------------


def test_all_kinds_of_lists_are_measured_by_the_same_users(open_shop: Open) -> None:
    session = open_shop([*BEFORE, *AFTER])
    other = replace(SMALL, half_life=timedelta(days=90))
    backtest = measured(session, incumbent=other)
    assert backtest.until == day(59) + timedelta(microseconds=1)
    assert backtest.cutoff == backtest.until - timedelta(days=28)
    named = [(row["scope"], row["name"]) for row in backtest.rows]
    assert set(named) == {
        *((scope, name) for scope in (ALL, NEW) for name in ("Top Buys", "incumbent")),
        *((scope, name) for scope in (ALL, NEW) for name in (POPULARITY, DECAYED_POPULARITY)),
        *((scope, "ALS alone") for scope in (ALL, NEW)),
        (ALL, OWN),
        (ALL, DECAYED_OWN),
    }
    assert len(named) == len(set(named))
    # What user 1 bought on day 31 is before this cutoff, and user 5 has bought on day 59.
    assert (backtest.judgement.users, backtest.notes) == (3, {"first_sold_then": 2})
    assert backtest.judgement.verdict is Verdict.UNPROVEN
    assert str(backtest.judgement) == "3 measured, 30 are needed to tell"


@pytest.mark.parametrize(
    "orders",
    [
        pytest.param([], id="no orders"),
        pytest.param([Order(n, n, [TEA, MILK], day(n)) for n in range(1, 20)], id="too young"),
        pytest.param(
            [*BEFORE, *(Order(n, n, [TEA], day(50 + n)) for n in range(11, 20))],
            id="other users after",
        ),
        pytest.param([*BEFORE, Order(11, None, [TEA], day(60))], id="guests after"),
        pytest.param([*BEFORE, Order(11, 1, [KIWI], day(60))], id="other products after"),
    ],
)
@pytest.mark.parametrize("id_type", ["bigint", "text"])
def test_where_nobody_can_be_measured_nothing_is_proven(
    open_shop: Open, orders: list[Order], id_type: str
) -> None:
    backtest = measured(open_shop(orders, id_type=id_type), incumbent=SMALL)
    assert (backtest.rows, backtest.judgement.gates) == ([], ())
    assert backtest.judgement.verdict is Verdict.UNPROVEN
    assert str(backtest.judgement) == "0 measured, 30 are needed to tell"
    assert (backtest.cutoff is None) == (not orders)
    assert backtest.to_header()["users"] == 0


@pytest.mark.parametrize(
    ("repeats", "held_against"),
    [
        ("blend", {(POPULARITY, ALL), (OWN, ALL), (POPULARITY, NEW)}),
        ("only", {(POPULARITY, ALL), (OWN, ALL)}),
        ("exclude", {(POPULARITY, NEW)}),
    ],
)
def test_gates_are_of_what_is_served(
    sample: ShopSession, repeats: Repeats, held_against: set[tuple[str, str]]
) -> None:
    recipe = replace(SMALL, blend=replace(SMALL.blend, repeats=repeats))
    judgement = measured(sample, recipe).judgement
    assert {(gate.against, gate.scope) for gate in judgement.gates} == held_against
    assert judgement.users > 100


def test_the_same_recipe_is_as_good_as_itself(sample: ShopSession) -> None:
    backtest = measured(sample, incumbent=SMALL)
    of_incumbent = [gate for gate in backtest.judgement.gates if gate.against == "incumbent"]
    assert [gate.scope for gate in of_incumbent] == [ALL, NEW]
    assert {gate.difference for gate in of_incumbent} == {(0.0, 0.0, 0.0)}
    assert {gate.verdict for gate in of_incumbent} == {Verdict.PROVEN}


def test_a_sample_of_the_users_is_measured(sample: ShopSession) -> None:
    backtest = measured(sample, max_users=50)
    assert backtest.judgement.users == 50


# --- The same numbers ---------------------------------------------------------------------------

BY_ONE_CORE = """
import json, os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from tests.publications import Open, refreshed, shop_session
from tests.services.test_evaluate_top_buys import figures
with shop_session(sys.argv[1]) as session:
    print(json.dumps(figures(session)))
"""


def figures(session: ShopSession) -> Any:
    """All that is measured, and told of it."""
    recipe = replace(SMALL, als=replace(SMALL.als, factors=32))
    backtest = measured(session, recipe, incumbent=SMALL, max_users=150)
    return json.loads(json.dumps(backtest.to_header(), default=str))


def test_the_numbers_are_the_same_each_time_by_any_number_of_threads(
    sample: ShopSession, small_sample_database_url: str
) -> None:
    first = figures(sample)
    assert figures(sample) == first
    done = subprocess.run(
        [sys.executable, "-c", BY_ONE_CORE, small_sample_database_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == first
    assert top_buys.CANDIDATE in {row["name"] for row in first["rows"]}
