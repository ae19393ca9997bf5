"""Backtests of Top Buys where orders are very old, change meanwhile, or are of repeats alone."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from recsys_assets.evaluate import past
from recsys_assets.evaluate.backtest import METRIC, Backtest, backtest_top_buys
from recsys_assets.evaluate.gates import Verdict
from recsys_assets.evaluate.top_buys import ALL, SCOPES, read_split
from recsys_assets.learn.als import AlsParameters
from recsys_assets.learn.blending import Blend
from recsys_assets.learn.recipe import Recipe
from recsys_assets.shop_session import ShopSession
from tests.publications import Open
from tests.shops import Order, day

HALF_LIFE = timedelta(days=120)
RECIPE = Recipe(AlsParameters(factors=16, iterations=3), Blend(), HALF_LIFE)
BY_OTHER_WEIGHTS = replace(RECIPE, half_life=timedelta(days=60))
READS = 3  # queries by which one split is read

Change = Callable[[ShopSession, list[int]], object]


def measured(
    session: ShopSession, candidate: Recipe = RECIPE, incumbent: Recipe | None = None
) -> Backtest:
    return backtest_top_buys(
        session,
        candidate,
        incumbent,
        held_out=timedelta(days=28),
        min_users=30,
        max_users=10_000,
        tolerance=0.02,
        seed=7,
    )


def means(backtest: Backtest, name: str) -> dict[str, dict[str, float]]:
    """The means of all metrics of some lists, by scope."""
    return {
        row["scope"]: {metric: interval[0] for metric, interval in row["intervals"].items()}
        for row in backtest.rows
        if row["name"] == name
    }


# --- Orders of long ago -------------------------------------------------------------------------


def test_a_purchase_of_long_ago_weighs_next_to_nothing(open_shop: Open) -> None:
    """200 half-lives are more than a float of 4 bytes can halve."""
    moment = day(1)
    session = open_shop([Order(1, 1, [5], moment - 200 * HALF_LIFE), Order(2, 2, [7], moment)])
    query = past.interactions_before(session.shop, moment + HALF_LIFE, HALF_LIFE)
    rows = {row["user_id"]: row for row in session.read(query).to_pylist()}
    assert 0 < rows[1]["weight"] < 1e-29
    assert rows[2]["weight"] == pytest.approx(0.5)


def test_a_shop_with_an_order_of_the_first_day_of_all_clocks_is_measured(
    open_shop: Open,
) -> None:
    since, at = datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC)
    first = Order(1, 1, [5, 6], since)
    before = [Order(10 + user, user, [7, user], at) for user in range(1, 41)]
    later = [Order(60 + user, user, [7], at + HALF_LIFE / 2) for user in range(1, 41)]
    backtest = measured(open_shop([first, *before, *later]))
    assert backtest.judgement.users == 40
    assert means(backtest, "Top Buys")[ALL]["recall@10"] == 1


# --- Orders that change between two readings ----------------------------------------------------


def changing(session: ShopSession, after: int, change: Callable[[], object]) -> ShopSession:
    """The same shop, which changes once so many queries have been read."""
    left = after

    def read(query: Any) -> Any:
        nonlocal left
        left -= 1
        table = session.read(query)
        if left == 0:
            change()
        return table

    return replace(session, read=read)


def order_of_another(session: ShopSession, user: int) -> None:
    """An order comes in, of a user who had none, with a date of long before the cutoff."""
    session.connection.execute(
        "INSERT INTO counted_orders (order_id, user_id, purchased_at, product_ids)"
        " SELECT max(order_id) + 1, %s, min(purchased_at) + interval '9 days',"
        "  (SELECT product_ids FROM counted_orders ORDER BY order_id LIMIT 1)"
        " FROM counted_orders",
        [user],
    )


def orders_deleted(session: ShopSession, user: int) -> None:
    session.connection.execute("DELETE FROM counted_orders WHERE user_id = %s", [user])


def measured_users(session: ShopSession) -> list[int]:
    """Ids of the users that a backtest measures."""
    (until,) = session.connection.execute(past.last_purchase(session.shop)).fetchone() or ()
    until += timedelta(microseconds=1)
    split = read_split(
        session,
        cutoff=until - timedelta(days=28),
        until=until,
        half_life=HALF_LIFE,
        max_users=10_000,
        seed=7,
    )
    return [int(user) for user in split.histories.user_ids[split.rows]]


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        pytest.param(lambda s, _: order_of_another(s, -5), 0, id="another before all"),
        pytest.param(lambda s, _: order_of_another(s, 10**9), 0, id="another behind all"),
        pytest.param(lambda s, users: orders_deleted(s, users[0]), 1, id="the first is gone"),
        pytest.param(lambda s, users: orders_deleted(s, users[-1]), 1, id="the last is gone"),
    ],
)
def test_both_recipes_are_measured_by_the_same_users_whatever_comes_between(
    sample: ShopSession, change: Change, gone: int
) -> None:
    users = measured_users(sample)
    undisturbed = measured(sample, incumbent=BY_OTHER_WEIGHTS)
    changed = changing(sample, READS, lambda: change(sample, users))
    disturbed = measured(changed, incumbent=BY_OTHER_WEIGHTS)
    assert undisturbed.judgement.users == len(users)
    assert disturbed.judgement.users == len(users) - gone
    # One user in more than a hundred; by another's history, figures are a fraction of these.
    for name in ("incumbent", "Top Buys"):
        found, expected = means(disturbed, name), means(undisturbed, name)
        assert expected[ALL][METRIC] > 0.2
        for scope in SCOPES:
            assert found[scope] == pytest.approx(expected[scope], abs=0.02)
    if not gone:
        assert means(disturbed, "Top Buys") == means(undisturbed, "Top Buys")
    assert disturbed.judgement.verdict is undisturbed.judgement.verdict


@pytest.mark.parametrize("read", range(1, READS))
def test_who_comes_in_while_the_past_is_read_is_not_measured(
    sample: ShopSession, read: int
) -> None:
    """Their orders before the cutoff were not read, and those after it are."""
    users = measured_users(sample)

    def come() -> None:
        order_of_another(sample, -5)
        sample.connection.execute(
            "INSERT INTO counted_orders (order_id, user_id, purchased_at, product_ids)"
            " SELECT max(order_id) + 1, -5, max(purchased_at), array_agg(product_ids[1])"
            " FROM counted_orders"
        )

    found = measured_users(changing(sample, read, come))
    assert found == users
    assert measured_users(sample) == [-5, *users]


# --- Nothing but what users have bought ---------------------------------------------------------


def shop_of_few_repeats() -> list[Order]:
    """600 users with two products each, half of whom buy the first of them again."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 101)
    popularity /= popularity.sum()
    orders: list[Order] = []
    for user in range(1, 601):
        own = rng.choice(100, 2, replace=False, p=popularity)
        again = own[0] if rng.random() < 0.5 else rng.choice(100, p=popularity)
        days = [*rng.uniform(1, 121, 2), rng.uniform(150, 170)]
        orders += [
            Order(len(orders) + n, user, [int(product) + 1], day(float(at)))
            for n, (product, at) in enumerate(zip([*own, again], days, strict=True), start=1)
        ]
    return orders


def test_lists_of_repeats_are_held_against_lists_of_repeats(open_shop: Open) -> None:
    """They are short; a baseline that is filled up would find more by what is popular."""
    session = open_shop(shop_of_few_repeats())
    only = replace(RECIPE, blend=Blend(repeats="only"))
    backtest = measured(session, only)
    gates = {gate.against: gate for gate in backtest.judgement.gates}
    assert gates.keys() == {"global popularity", "own frequency"}
    assert backtest.judgement.verdict is not Verdict.REFUSED
    # Two products, which are found whatever their order.
    recall = {name: means(backtest, name)[ALL]["recall@10"] for name in ("Top Buys", *gates)}
    assert recall["Top Buys"] > 0.5
    assert set(recall.values()) == {recall["Top Buys"]}


@pytest.mark.parametrize("repeats", ["only", "exclude"])
@pytest.mark.parametrize("half_life", [HALF_LIFE, timedelta(days=60)])
def test_an_incumbent_is_measured_with_the_repeats_of_the_candidate(
    sample: ShopSession, repeats: Any, half_life: timedelta
) -> None:
    candidate = replace(RECIPE, blend=replace(RECIPE.blend, repeats=repeats))
    blended = replace(RECIPE, half_life=half_life)
    backtest = measured(sample, candidate, blended)
    alike = measured(sample, candidate, replace(candidate, half_life=half_life))
    assert means(backtest, "incumbent") == means(alike, "incumbent")
    if half_life == HALF_LIFE:
        assert means(backtest, "incumbent") == means(backtest, "Top Buys")
