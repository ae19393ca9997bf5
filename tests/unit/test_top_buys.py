"""The blend of ALS and own purchases, by hand, against a naive dense reference, and bit for bit."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix, random_array

from recsys_assets.learn.als import AlsModel
from recsys_assets.learn.blending import (
    Blend,
    Ranker,
    Repeats,
    TopLists,
    blended_top_n,
    own_scores,
    top_n,
    trend,
)
from recsys_assets.publish.redis_writer import Edition
from recsys_assets.publish.top_buys import personal_lists
from tests.made_histories import day, histories

EDITION = Edition("v1", datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 2, 28, tzinfo=UTC))

# Three users and four products. The model knows nothing of the third user.
USERS = np.array([[1, 0], [0, 2], [0, 0]], np.float32)
PRODUCTS = np.array([[0.5, 0.25], [0.25, 0.5], [0, 0.125], [-1, 0]], np.float32)
OWN = csr_matrix(np.array([[0, 0, 2, 1], [0, 0, 0, 0], [0, 2, 0, 0]], np.float32))
# The same with two more products, which the model does not know: the last user has bought both.
WITH_NEW_PRODUCTS = csr_matrix(
    np.array([[0, 0, 2, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0.5, 0, 0, 2, 1]], np.float32)
)
POPULARITY = np.array([1, 5, 3, 9], np.float32)


def blend(n: int, own: csr_matrix = OWN, **options: Any) -> TopLists:
    """All lists in one."""
    return joined(list(blended_top_n(USERS, PRODUCTS, own, POPULARITY, n=n, **options)))


def ranked(lists: TopLists, user: int) -> list[tuple[int, float]]:
    """The products and scores of a user's list, as far as it goes."""
    pairs = zip(lists.products[user].tolist(), lists.scores[user].tolist(), strict=True)
    return [(product, score) for product, score in pairs if np.isfinite(score)]


def joined(blocks: list[TopLists]) -> TopLists:
    rows = [len(block.products) for block in blocks]
    assert [block.first_row for block in blocks] == np.cumsum([0, *rows[:-1]]).tolist()
    return TopLists(
        0,
        np.concatenate([block.products for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
    )


def test_a_blend_worked_out_by_hand() -> None:
    lists = blend(3)
    # User 0: ALS 0.5, 0.25, 0, -1; own purchases add 2 to product 2 and 1 to 3.
    assert lists.products[0].tolist() == [2, 0, 1]
    assert lists.scores[0].tolist() == [2, 0.5, 0.25]
    # User 1 bought nothing: ALS alone, 0.5, 1, 0.25, 0.
    assert lists.products[1].tolist() == [1, 0, 2]
    assert lists.scores[1].tolist() == [1, 0.5, 0.25]


def test_a_user_whom_the_model_does_not_know_gets_own_purchases_then_popular_products() -> None:
    lists = blend(4)
    assert lists.products[2].tolist() == [1, 3, 2, 0]
    assert lists.scores[2].tolist() == [2, 0, 0, 0]


def test_the_factors_may_say_the_logarithm_of_a_score() -> None:
    lists = blend(4, exponential=True)
    assert_allclose(lists.scores[0], [3, np.exp(0.5), 1 + np.exp(-1), np.exp(0.25)], rtol=1e-6)
    assert lists.products[0].tolist() == [2, 0, 3, 1]


def test_a_list_is_no_longer_than_the_catalogue() -> None:
    assert blend(100).products.shape == (3, 4)
    assert_array_equal(np.sort(blend(100).products), np.tile(np.arange(4), (3, 1)))


def test_a_product_that_the_model_does_not_know_is_in_the_lists_of_its_buyers_alone() -> None:
    lists = blend(4, own=WITH_NEW_PRODUCTS)
    assert_array_equal(lists.products[:2], blend(4).products[:2])
    assert_array_equal(lists.scores[:2], blend(4).scores[:2])
    # User 2: own purchases add 0.5, 2 and 1; then comes the most popular product.
    assert lists.products[2].tolist() == [4, 5, 1, 3]
    assert lists.scores[2].tolist() == [2, 1, 0.5, 0]


def test_a_list_that_cannot_be_filled_ends_in_scores_of_minus_infinity() -> None:
    lists = blend(100, own=WITH_NEW_PRODUCTS)
    assert lists.products.shape == (3, 6)
    for user, length in [(0, 4), (1, 4), (2, 6)]:
        assert np.isfinite(lists.scores[user, :length]).all()
        assert lists.scores[user, length:].tolist() == [-np.inf] * (6 - length)


def test_products_that_were_bought_can_be_left_out() -> None:
    lists = blend(6, own=WITH_NEW_PRODUCTS, repeats="exclude")
    assert ranked(lists, 0) == [(0, 0.5), (1, 0.25)]
    assert ranked(lists, 1) == ranked(blend(6), 1)  # who has bought nothing
    assert ranked(lists, 2) == [(3, 0), (2, 0), (0, 0)]  # the model's products, by popularity


def test_products_that_were_bought_can_be_the_only_ones() -> None:
    lists = blend(6, own=WITH_NEW_PRODUCTS, repeats="only")
    assert ranked(lists, 0) == [(2, 2), (3, 0)]
    assert ranked(lists, 1) == []
    assert ranked(lists, 2) == [(4, 2), (5, 1), (1, 0.5)]


def test_the_lists_are_taken_from_the_scores_as_is_wished() -> None:
    def without_the_first_product(
        scores: np.ndarray, n: int, order: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        scores[:, 0] = -np.inf
        return top_n(scores, n, order)

    lists = blend(3, select=without_the_first_product, repeats="exclude")
    assert ranked(lists, 0) == [(1, 0.25)]
    assert ranked(lists, 1) == [(1, 1), (2, 0.25), (3, 0)]
    assert ranked(lists, 2) == [(3, 0), (2, 0)]


def test_no_users_are_no_lists() -> None:
    nothing = csr_matrix((0, 0), dtype=np.float32)
    no_factors = np.zeros((0, 2), np.float32)
    no_products = np.zeros(0, np.float32)
    lists = blended_top_n(no_factors, no_factors, nothing, no_products, n=10)
    assert list(lists) == []


@st.composite
def shops(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Numbers of few bits, so that sums are exact in any order and ties abound.

    There are more columns of own purchases than product factors: of products that the model does
    not know.
    """
    users, products, factors = (draw(st.integers(1, most)) for most in (12, 12, 3))
    unknown = draw(st.integers(0, 3))

    def numbers(rows: int, columns: int, values: list[float]) -> np.ndarray:
        cells = st.lists(st.sampled_from(values), min_size=rows * columns, max_size=rows * columns)
        return np.array(draw(cells), np.float32).reshape(rows, columns)

    return {
        "user_factors": numbers(users, factors, [0, 0, 1, -1, 0.5]),
        "product_factors": numbers(products, factors, [0, 1, 0.5, -0.25]),
        "own": numbers(users, products + unknown, [0, 0, 0, 1, 2, 4]),
        "popularity": numbers(1, products, [0, 1, 2])[0],
    }


@given(
    shop=shops(),
    repeats=st.sampled_from(get_args(Repeats)),
    n=st.integers(1, 15),
    block_bytes=st.integers(1, 400),
    threads=st.integers(1, 4),
)
def test_the_blend_equals_a_dense_reference(
    shop: dict[str, np.ndarray],
    repeats: Repeats,
    n: int,
    block_bytes: int,
    threads: int,
) -> None:
    own, known = shop["own"], len(shop["product_factors"])
    scores = np.where(own > 0, np.float32(0), np.float32(-np.inf))
    scores[:, :known] = shop["user_factors"] @ shop["product_factors"].T
    scores += own
    left_out = {"blend": np.zeros_like(own, bool), "exclude": own > 0, "only": own == 0}
    scores[left_out[repeats]] = -np.inf
    popularity = np.r_[shop["popularity"], np.full(own.shape[1] - known, -1)]
    places = [
        sorted(range(own.shape[1]), key=lambda p: (-row[p], -popularity[p], p))[:n]
        for row in scores.tolist()
    ]

    lists = joined(
        list(
            blended_top_n(
                shop["user_factors"],
                shop["product_factors"],
                csr_matrix(own),
                shop["popularity"],
                repeats=repeats,
                n=n,
                block_bytes=block_bytes,
                threads=threads,
            )
        )
    )
    assert lists.products.tolist() == places
    assert_array_equal(lists.scores, np.take_along_axis(scores, np.array(places), axis=1))


# --- Whoever else is computed beside

# As many factors and nearly as many products as a shop has; real numbers, whose sums depend on the
# order of their terms.
_random = np.random.default_rng(11)
MANY_PRODUCTS = _random.normal(0, 0.1, (5000, 64)).astype(np.float32)
MANY_USERS = _random.normal(0, 0.3, (48, 64)).astype(np.float32)
MANY_POPULAR = _random.integers(0, 50, 5000).astype(np.float32)
MANY_OWN = csr_matrix(random_array((48, 5100), density=0.004, rng=_random), dtype=np.float32)


def lists_among(rows: list[int], columns: int = 5100, **options: int) -> TopLists:
    """The lists of these of the many users, computed together."""
    blocks = blended_top_n(
        MANY_USERS[rows],
        MANY_PRODUCTS,
        MANY_OWN[rows][:, :columns],
        MANY_POPULAR,
        n=100,
        **options,
    )
    return joined(list(blocks))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(0, 47), min_size=1, max_size=48, unique=True),
    threads=st.integers(1, 3),
)
def test_a_list_is_the_same_bit_for_bit_whoever_is_computed_beside(
    rows: list[int], threads: int
) -> None:
    everybody = lists_among(list(range(48)))
    some = lists_among(rows, threads=threads)
    assert_array_equal(some.products, everybody.products[rows])
    assert some.scores.tobytes() == everybody.scores[rows].tobytes()


@pytest.mark.parametrize("users", [1, 2, None])
def test_a_list_is_the_same_bit_for_bit_whatever_new_products_others_buy(users: int | None) -> None:
    """Columns of products that the model does not know come and go with their buyers."""
    buyers = set(MANY_OWN[:, 5000:].nonzero()[0].tolist())
    rows = [row for row in range(48) if row not in buyers][:users]
    assert len(rows) > 5 * (users is None)
    assert len(buyers) > 5
    beside, alone = lists_among(rows, 5100), lists_among(rows, 5000)
    assert_array_equal(beside.products, alone.products)
    assert beside.scores.tobytes() == alone.scores.tobytes()


# --- The largest of each row


@pytest.mark.parametrize("columns", [5, 4096, 4097, 9000])
def test_top_n_looks_beyond_the_first_columns(columns: int) -> None:
    scores = np.random.default_rng(5).integers(0, 50, (6, columns)).astype(np.float32)
    products, best = top_n(scores, 5)
    assert_array_equal(products, np.argsort(-scores, axis=1, kind="stable")[:, :5])
    assert_array_equal(best, np.take_along_axis(scores, products, axis=1))


@pytest.mark.parametrize("columns", [5, 4096, 4097, 9000])
def test_equal_scores_are_in_the_order_that_is_given(columns: int) -> None:
    random = np.random.default_rng(6)
    scores = random.integers(0, 50, (6, columns)).astype(np.float32)
    order = random.permutation(columns)
    products, best = top_n(scores, 5, order)
    in_order = np.argsort(-scores[:, order], axis=1, kind="stable")[:, :5]
    assert_array_equal(products, order[in_order])
    assert_array_equal(best, np.take_along_axis(scores, products, axis=1))


# --- The score by a model


def test_what_is_bought_less_often_than_usual_lapses() -> None:
    bought = histories(
        {
            (1, 10): (2.0, 4, 0, 30),  # every ten days, for the last time ten days ago
            (1, 11): (2.0, 2, 20, 22),  # every ten days, for the last time 18 days ago
            (1, 12): (1.0, 1, 0, 0),  # once, which is no rhythm that could be missed
            (2, 10): (1.0, 1, 40, 40),  # now
        }
    )
    own = own_scores(bought, day(40), lapse=0.5).toarray()
    assert_allclose(own[0], [2, 2 * (10 / 18) ** 0.5, 1])
    assert own[1].tolist() == [1, 0, 0]
    assert own_scores(bought, day(40), lapse=0).toarray()[0].tolist() == [2, 2, 1]


def test_a_trend_counts_buyers_by_their_last_purchase() -> None:
    bought = histories(
        {(1, 10): (9.0, 9, 0, 26), (2, 10): (1.0, 1, 40, 40), (1, 11): (1.0, 1, 12, 12)}
    )
    assert trend(bought, day(40), timedelta(days=14)).tolist() == [1.5, 0.25]


def ranked_by_model(**blend: Any) -> dict[int, float]:
    """Scores of a user who has bought product 10 alone, twenty days ago, beside 11 and 12."""
    factors = np.array([[3, 4], [0, 1], [0, 0]], np.float32)
    popularity = np.array([1, 2, 4], np.float32)
    model = AlsModel(
        product_factors=factors,
        product_ids=np.array([10, 11, 12], np.int64),
        popularity=popularity,
        user_count=2,
        alpha=1.0,
        regularization=1.0,
    )
    bought = histories({(1, 10): (1.5, 1, 20, 20)}, model.product_ids)
    (lists,) = Ranker(model, Blend(**blend), day(40)).lists(bought, n=3)
    return dict(ranked(replace(lists, products=model.product_ids[lists.products]), 0))


def test_a_score_by_its_definition() -> None:
    scores = ranked_by_model(discovery=0.5, affinity=0, popularity=1)
    assert list(scores) == [10, 12, 11]
    assert scores == pytest.approx({10: 1.5 + 0.5 / 4, 12: 0.5, 11: 0.5 / 2}, rel=1e-3)
    assert ranked_by_model(discovery=0, affinity=0) == pytest.approx({10: 1.5, 12: 0, 11: 0})


def test_affinity_raises_what_is_like_the_purchases() -> None:
    scores = ranked_by_model(discovery=1, affinity=6, popularity=0)
    assert scores[12] == pytest.approx(1)  # a product of which nothing is known
    assert 1 < scores[11] < np.exp(6 / 4)  # the cosine is shrunk by both lengths


# --- Keys and values


@pytest.mark.parametrize(
    ("user_ids", "product_ids", "key", "ids"),
    [
        (np.array([7, 8, 9], np.int64), np.array([1, 2, 3, 4], np.int64), "user:8", [2, 1]),
        (np.array(list("tuv"), object), np.array(list("abcd"), object), "user:u", ["b", "a"]),
    ],
)
def test_lists_as_redis_gets_them(
    user_ids: np.ndarray, product_ids: np.ndarray, key: str, ids: list[int | str]
) -> None:
    blocks = blended_top_n(USERS, PRODUCTS, OWN, POPULARITY, n=2, block_bytes=1, threads=1)
    values = dict(personal_lists(blocks, user_ids, product_ids, EDITION))
    assert len(values) == 3
    assert json.loads(values[f"{key}:top_buys"]) == {
        "schema": 1,
        "source": "personal",
        "model_version": "v1",
        "generated_at": "2025-03-01T00:00:00Z",
        "orders_through": "2025-02-28T00:00:00Z",
        "products": [
            {"product_id": ids[0], "score": 1.0},
            {"product_id": ids[1], "score": 0.5},
        ],
    }


def test_users_whose_ids_no_key_can_hold_are_left_out() -> None:
    blocks = blended_top_n(USERS, PRODUCTS, OWN, POPULARITY, n=2)
    user_ids = np.array(["", "anna", "x" * 201], object)
    values = personal_lists(blocks, user_ids, np.array([1, 2, 3, 4], np.int64), EDITION)
    assert [key for key, _ in values] == ["user:anna:top_buys"]


def test_a_list_that_cannot_be_filled_is_shorter_in_redis() -> None:
    blocks = blended_top_n(USERS, PRODUCTS, WITH_NEW_PRODUCTS, POPULARITY, n=100)
    ids = np.arange(6, dtype=np.int64)
    values = dict(personal_lists(blocks, ids[:3], ids, EDITION))
    listed = {
        key: [product["product_id"] for product in json.loads(value)["products"]]
        for key, value in values.items()
    }
    assert listed == {
        "user:0:top_buys": [2, 0, 1, 3],
        "user:1:top_buys": [1, 0, 2, 3],
        "user:2:top_buys": [4, 5, 1, 3, 2, 0],
    }
