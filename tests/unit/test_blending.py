"""The score of Top Buys by its definition: by hand, against loops, and what must always hold."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_assets.learn.als import AlsModel, fold_in
from recsys_assets.learn.blending import (
    Blend,
    Ranker,
    Repeats,
    TopLists,
    own_scores,
    top_n,
    trend,
)
from recsys_assets.learn.matrix import Histories
from tests.made_histories import day, histories

NOW = 40.0
LEAST_TREND = 1e-4
Bought = Mapping[tuple[int, int], tuple[float, int, float, float]]


def model_of(factors: Any, popularity: Any, ids: Any) -> AlsModel:
    return AlsModel(
        product_factors=np.array(factors, np.float32),
        product_ids=np.array(ids, np.int64),
        popularity=np.array(popularity, np.float32),
        user_count=len(popularity),
        alpha=1.0,
        regularization=1.0,
    )


def joined(ranker: Ranker, bought: Histories, n: int = 100, **options: Any) -> TopLists:
    """All lists in one."""
    blocks = list(ranker.lists(bought, n=n, **options))
    return TopLists(
        0,
        np.concatenate([block.products for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
    )


def ranked(ranker: Ranker, bought: Histories, **options: Any) -> dict[int, dict[int, float]]:
    """By user the ids of the products in their list, best first, with scores."""
    lists = joined(ranker, bought, **options)
    listed = {}
    for row, user in enumerate(bought.user_ids.tolist()):
        ids = bought.product_ids[lists.products[row]].tolist()
        pairs = zip(ids, lists.scores[row].tolist(), strict=True)
        listed[user] = {product: score for product, score in pairs if score > -math.inf}
    return listed


# --- By hand ------------------------------------------------------------------------------------

# Product 10 is along the first axis, 11 along the second, and of 12 nothing is known.
MODEL = model_of([[3, 0], [0, 1], [0, 0]], [2, 8, 4], [10, 11, 12])
HAND = Blend(discovery=0.5, affinity=8.0, popularity=0.5, lapse=1.0)
# User 1: every ten days, the last of them twenty days ago. User 2: once, now.
BOUGHT: Bought = {(1, 10): (1.5, 2, 20, 20), (2, 11): (1.0, 1, NOW, NOW)}
TRENDS = {10: 2 / 8, 11: 1.0, 12: 4 / 8}


def test_a_score_worked_out_by_hand() -> None:
    listed = ranked(Ranker(MODEL, HAND, day(NOW)), histories(BOUGHT, MODEL.product_ids))
    # The least squares of one factor, alpha and ridge 1: y w / (y y + (w - 1) y y + 1).
    x, y = 3 * 1.5 / (9 + 0.5 * 9 + 1), 1 * 1.0 / (1 + 0 + 1)
    base = {product: 0.5 * math.sqrt(of + LEAST_TREND) for product, of in TRENDS.items()}
    # A cosine of 1, shrunk by both lengths; what is at a right angle or unknown has none.
    similar_to_10 = x * 3 / ((1 + x) * (1 + 3))
    similar_to_11 = y * 1 / ((1 + y) * (1 + 1))
    own = 1.5 * (10 / 20)  # two purchases in twenty days, and none for as many
    assert listed[1] == pytest.approx(
        {10: own + base[10] * math.exp(8 * similar_to_10), 11: base[11], 12: base[12]}, rel=1e-5
    )
    assert listed[2] == pytest.approx(
        {11: 1.0 + base[11] * math.exp(8 * similar_to_11), 12: base[12], 10: base[10]}, rel=1e-5
    )
    assert list(listed[2]) == [11, 12, 10]


def test_own_purchases_worked_out_by_hand() -> None:
    bought = histories(
        {
            (1, 10): (2.0, 3, 10, 30),  # thirty days, three purchases: an interval of ten, now over
            (1, 11): (2.0, 3, 10, 31),  # nine days ago: not yet
            (1, 12): (2.0, 3, 10, 25),  # fifteen days ago
            (1, 13): (1.0, 1, 5, 5),  # once
            (1, 14): (5.0, 5, NOW, NOW),  # all of them now: there is no interval
            (1, 15): (2.0, 2, 39, NOW),  # the last of them now
        }
    )
    for lapse, lapsed in [(0.0, 1.0), (0.5, (10 / 15) ** 0.5), (1.0, 10 / 15), (3.0, 8 / 27)]:
        own = own_scores(bought, day(NOW), lapse)
        assert own.toarray()[0] == pytest.approx([2, 2, 2 * lapsed, 1, 5, 2], rel=1e-6)
        assert own.dtype == np.float32


def test_what_is_bought_after_the_moment_of_the_model_has_not_lapsed() -> None:
    """Weights are as of the model's moment, so that a purchase after it weighs more than 1."""
    bought = histories(
        {
            (1, 10): (2**0.5, 1, NOW + 5, NOW + 5),
            (1, 11): (0.5 + 2**0.25, 2, 0, NOW + 5),  # after an interval that it has ended
            (1, 12): (2.0, 2, NOW - 1, NOW + 1),
        }
    )
    own = own_scores(bought, day(NOW), 1.0).toarray()[0]
    assert own.tolist() == bought.weights.toarray()[0].tolist()


def test_a_trend_counts_each_buyer_once_by_the_last_purchase() -> None:
    bought = histories(
        {
            (1, 10): (9.0, 9, 0, 33),  # half a half-life ago
            (2, 10): (1.0, 1, 12, 12),  # two
            (2, 11): (1.0, 1, NOW + 3, NOW + 3),  # after the moment: as now
        },
        np.array([10, 11, 12], np.int64),
    )
    expected = [0.5**0.5 + 0.25, 1.0, 0.0]
    found = trend(bought, day(NOW), timedelta(days=14))
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert found.dtype == np.float32


def test_who_has_no_factors_gets_own_purchases_then_what_is_popular() -> None:
    bought = histories({(1, 12): (0.01, 1, 0, 0), (2, 99): (1.0, 1, 0, 0)}, MODEL.product_ids)
    assert not fold_in(MODEL, bought.weights[:, :3]).any()
    listed = ranked(Ranker(MODEL, HAND, day(NOW)), bought)
    base = {product: 0.5 * math.sqrt(of + LEAST_TREND) for product, of in TRENDS.items()}
    assert listed[1] == pytest.approx({11: base[11], 12: base[12] + 0.01, 10: base[10]}, rel=1e-5)
    # A product that the model does not know has its purchases alone.
    assert listed[2] == pytest.approx({99: 1.0, 11: base[11], 12: base[12], 10: base[10]}, rel=1e-5)
    assert [list(their) for their in listed.values()] == [[11, 12, 10], [99, 11, 12, 10]]


def test_without_affinity_everybody_is_without_factors() -> None:
    bought = histories(BOUGHT, MODEL.product_ids)
    listed = ranked(Ranker(MODEL, HAND, day(NOW), by_affinity=False), bought)
    base = {product: 0.5 * math.sqrt(of + LEAST_TREND) for product, of in TRENDS.items()}
    assert listed[1] == pytest.approx({**base, 10: 0.75 + base[10]}, rel=1e-5)
    assert listed[2] == pytest.approx({**base, 11: 1.0 + base[11]}, rel=1e-5)


def test_without_discovery_own_purchases_come_first_and_all_else_is_next_to_nothing() -> None:
    blend = Blend(discovery=0.0, affinity=0.0)
    listed = ranked(Ranker(MODEL, blend, day(NOW)), histories(BOUGHT, MODEL.product_ids))
    assert listed[1][10] == pytest.approx(1.5 * 0.5**0.5)
    assert list(listed[1]) == [10, 11, 12]
    assert max(listed[1][11], listed[1][12]) < 1e-20


def test_a_shop_where_nothing_has_a_trend_is_ranked_all_the_same() -> None:
    model = replace(MODEL, popularity=np.zeros(3, np.float32))
    listed = ranked(Ranker(model, HAND, day(NOW)), histories(BOUGHT, model.product_ids))
    assert all(math.isfinite(score) for their in listed.values() for score in their.values())
    assert next(iter(listed[1])) == 10


@pytest.mark.parametrize(
    ("repeats", "first", "second"),
    [("blend", {10, 11, 12}, {11, 12, 10, 99}), ("exclude", {11, 12}, {10, 12}),
     ("only", {10}, {11, 99})],
)  # fmt: skip
def test_repeats_are_blended_left_out_or_alone(
    repeats: Repeats, first: set[int], second: set[int]
) -> None:
    bought = histories({**BOUGHT, (2, 99): (0.5, 1, 30, 30)}, MODEL.product_ids)
    ranker = Ranker(MODEL, replace(HAND, repeats=repeats), day(NOW))
    listed, all_of_them = ranked(ranker, bought), ranked(replace(ranker, blend=HAND), bought)
    assert [set(their) for their in listed.values()] == [first, second]
    for user, their in listed.items():  # the same scores, in the same order
        assert their == {p: s for p, s in all_of_them[user].items() if p in their}
        assert list(their) == [p for p in all_of_them[user] if p in their]


def test_a_selection_sees_every_score_and_the_order_of_equal_ones() -> None:
    seen: list[tuple[np.ndarray, int, list[int]]] = []

    def select(scores: np.ndarray, n: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append((scores.copy(), n, order.tolist()))
        scores[:, 0] = 100
        return top_n(scores, n, order)

    bought = histories({**BOUGHT, (2, 99): (0.5, 1, 30, 30)}, MODEL.product_ids)
    ranker = Ranker(MODEL, HAND, day(NOW))
    without = ranked(ranker, bought)
    listed = ranked(ranker, bought, n=2, select=select)
    (scores, n, order) = seen[0]
    assert (n, order) == (2, [1, 2, 0, 3])  # by popularity, then what the model does not know
    for row, user in enumerate([1, 2]):
        of_user = dict(zip([10, 11, 12, 99], scores[row].tolist(), strict=True))
        assert {p: s for p, s in of_user.items() if s > -math.inf} == without[user]
        best_other = next(p for p in without[user] if p != 10)
        assert listed[user] == {10: 100, best_other: without[user][best_other]}


# --- Against loops ------------------------------------------------------------------------------


@st.composite
def shops(draw: st.DrawFn) -> tuple[AlsModel, Bought]:
    """A model of products 0, 1, ..., and purchases of these and of a few that it does not know."""
    products, rank = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    eighths = st.integers(-16, 16).map(lambda n: n / 8)
    factors = draw(st.lists(eighths, min_size=products * rank, max_size=products * rank))
    popularity = draw(st.lists(st.integers(0, 9), min_size=products, max_size=products))
    model = model_of(np.reshape(factors, (products, rank)), popularity, range(products))
    days = st.floats(0, 60)
    purchases = st.tuples(st.floats(0.01, 6), st.integers(1, 5), days, days)
    pairs = st.tuples(st.integers(1, 5), st.integers(0, products + 1))
    drawn = draw(st.dictionaries(pairs, purchases, min_size=1, max_size=20))
    return model, {
        pair: (weight, count, min(a, b), max(a, b) if count > 1 else min(a, b))
        for pair, (weight, count, a, b) in drawn.items()
    }


BLENDS = st.builds(
    Blend,
    discovery=st.sampled_from([0.01, 0.8, 2.0]),
    affinity=st.sampled_from([0.0, 3.0, 6.0]),
    popularity=st.sampled_from([0.0, 0.15, 1.0]),
    lapse=st.sampled_from([0.0, 0.5, 2.0]),
    repeats=st.sampled_from(["blend", "exclude", "only"]),
)


def reference(model: AlsModel, blend: Blend, bought: Bought, bought_ids: Histories) -> Any:
    """Scores by user and product, minus infinity where a product is not theirs; float64 loops."""
    known = len(model.product_ids)
    factors = fold_in(model, bought_ids.weights[:, :known]).astype(np.float64)
    most_popular = max(*model.popularity.tolist(), 1e-30)
    scores: dict[int, dict[int, float]] = {}
    for row, user in enumerate(bought_ids.user_ids.tolist()):
        scores[user] = {}
        for product in bought_ids.product_ids.tolist():
            own = -math.inf
            if (user, product) in bought:
                weight, count, first, last = bought[user, product]
                interval, since = (NOW - first) / count, NOW - last
                own = weight
                if since > 0:
                    own *= min(1.0, (interval / since) ** blend.lapse)
            found = -math.inf
            if product < known:
                x, y = factors[row], model.product_factors[product].astype(np.float64)
                lengths = (1 + math.sqrt(sum(x * x))) * (1 + math.sqrt(sum(y * y)))
                popular = float(model.popularity[product]) / most_popular + LEAST_TREND
                affinity = math.exp(blend.affinity * sum(x * y) / lengths)
                found = blend.discovery * affinity * popular**blend.popularity
            mine = (user, product) in bought
            left_out = {"blend": False, "exclude": mine, "only": not mine}[blend.repeats]
            both = [part for part in (own, found) if part > -math.inf]
            scores[user][product] = sum(both) if both and not left_out else -math.inf
    return scores


@settings(deadline=None)
@given(shop=shops(), blend=BLENDS, n=st.integers(1, 9))
def test_scores_equal_those_of_loops(shop: tuple[AlsModel, Bought], blend: Blend, n: int) -> None:
    model, purchases = shop
    bought = histories(purchases, model.product_ids)
    expected = reference(model, blend, purchases, bought)
    listed = ranked(Ranker(model, blend, day(NOW)), bought, n=n)
    assert listed.keys() == expected.keys()
    for user, their in listed.items():
        scores = {p: s for p, s in expected[user].items() if s > -math.inf}
        assert len(their) == min(n, len(scores))
        assert their == pytest.approx({p: scores[p] for p in their}, rel=1e-5, abs=1e-5)
        best = sorted(scores.values(), reverse=True)[:n]
        assert list(their.values()) == pytest.approx(best, rel=1e-5, abs=1e-5)
        assert list(their.values()) == sorted(their.values(), reverse=True)


# --- What always holds --------------------------------------------------------------------------


@settings(deadline=None)
@given(shop=shops(), blend=BLENDS, at=st.integers(0, 19), more=st.floats(0.1, 5))
def test_whatever_weighs_more_never_scores_less(
    shop: tuple[AlsModel, Bought], blend: Blend, at: int, more: float
) -> None:
    model, purchases = shop
    pair = list(purchases)[at % len(purchases)]
    weight, count, first, last = purchases[pair]
    bought = histories(purchases, model.product_ids)
    raised = histories({**purchases, pair: (weight + more, count, first, last)}, model.product_ids)
    own, then = (own_scores(h, day(NOW), blend.lapse).toarray() for h in (bought, raised))
    assert (then >= own).all()
    assert (then > own).sum() == 1


@settings(deadline=None, max_examples=40)
@given(
    products=st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=6),
    steeper=st.floats(0.125, 4, width=32),
)
def test_more_affinity_never_lowers_what_is_like_the_purchases(
    products: list[float], steeper: float
) -> None:
    """Of one factor: whatever has the sign of the user's rises, all else falls."""
    rank = len(products)
    model = model_of(np.reshape(products, (rank, 1)), [1] * rank, range(rank))
    bought = histories({(1, 0): (1.0, 1, 30, 30)}, model.product_ids)
    likes = fold_in(model, bought.weights)[0, 0] * model.product_factors[:, 0]
    some = ranked(Ranker(model, Blend(affinity=1.0), day(NOW)), bought)[1]
    more = ranked(Ranker(model, Blend(affinity=1.0 + steeper), day(NOW)), bought)[1]
    for product, liking in enumerate(likes.tolist()):
        if liking >= 0:
            assert more[product] >= some[product]
        else:
            assert more[product] <= some[product]


@settings(deadline=None, max_examples=25)
@given(shop=shops(), blend=BLENDS)
def test_a_list_is_the_same_bit_for_bit_alone_and_among_others(
    shop: tuple[AlsModel, Bought], blend: Blend
) -> None:
    model, purchases = shop
    ranker = Ranker(model, blend, day(NOW))
    together = ranked(ranker, histories(purchases, model.product_ids))
    for user, their in together.items():
        own = {pair: bought for pair, bought in purchases.items() if pair[0] == user}
        alone = ranked(ranker, histories(own, model.product_ids))[user]
        assert list(alone.items()) == list(their.items())


def test_no_users_have_no_lists() -> None:
    nobody = histories(BOUGHT, MODEL.product_ids).rows(np.empty(0, np.int64))
    assert list(Ranker(MODEL, HAND, day(NOW)).lists(nobody, n=5)) == []
