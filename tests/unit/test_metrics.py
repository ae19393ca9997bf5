"""Metrics by hand, against a plain rendering of their formulas, and against NIST's trec_eval."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import binom, rankdata

from recsys_assets.evaluate import metrics
from recsys_assets.evaluate.metrics import (
    Interval,
    bootstrap_difference,
    bootstrap_interval,
    catalogue_coverage,
    hit_rate_at,
    hits,
    mean_popularity_rank,
    mean_ranks,
    mrr_at,
    ndcg_at,
    novelty,
    popularity_percentile,
    recall_at,
    truth_sizes,
)

PRODUCTS = 12
Bought = list[set[int]]
Lists = list[list[int]]


def matrix(bought: Bought, products: int = PRODUCTS) -> csr_matrix:
    dense = np.zeros((len(bought), products), dtype=bool)
    for user, truth in enumerate(bought):
        dense[user, list(truth)] = True
    return csr_matrix(dense)


def padded(lists: Lists, length: int) -> NDArray[np.int64]:
    return np.array([each + [-1] * (length - len(each)) for each in lists], dtype=np.int64)


# --- By hand ------------------------------------------------------------------------------------

# Ana bought 1, 2, 3 and is shown 1, 5, 2, 9: hits at ranks 1 and 3.
# Ben bought 5 and is shown 0, 3, 5: a hit at rank 3, and then a gap.
# Cho bought 0, 7 and is shown 8 only: no hit.
BOUGHT: Bought = [{1, 2, 3}, {5}, {0, 7}]
SHOWN = padded([[1, 5, 2, 9], [0, 3, 5], [8]], 4)


def test_hits() -> None:
    expected = [[1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert hits(SHOWN, matrix(BOUGHT)).tolist() == np.array(expected, dtype=bool).tolist()
    assert truth_sizes(matrix(BOUGHT)).tolist() == [3, 1, 2]


def test_recall() -> None:
    found, sizes = hits(SHOWN, matrix(BOUGHT)), truth_sizes(matrix(BOUGHT))
    assert recall_at(found, sizes, 2).tolist() == [1 / 3, 0, 0]
    assert recall_at(found, sizes, 4).tolist() == [2 / 3, 1, 0]


def test_recall_of_more_purchases_than_k_is_below_one() -> None:
    truth = matrix([{0, 1, 2, 3}])
    assert recall_at(hits(padded([[0, 1]], 2), truth), truth_sizes(truth), 2).tolist() == [2 / 4]


def test_ndcg() -> None:
    found, sizes = hits(SHOWN, matrix(BOUGHT)), truth_sizes(matrix(BOUGHT))
    # Ana: gains 1/log2(2) + 1/log2(4) = 1 + 0.5; at best 1 + 1/log2(3) + 0.5 = 2.130930.
    # Ben: gain 1/log2(4) = 0.5; at best 1, for there is one product to be found.
    assert ndcg_at(found, sizes, 4) == pytest.approx([1.5 / 2.1309297536, 0.5, 0])
    # Of the first two, Ana's best is 1 + 1/log2(3) = 1.630930, though she bought three.
    assert ndcg_at(found, sizes, 2) == pytest.approx([1 / 1.6309297536, 0, 0])


@pytest.mark.parametrize("k", range(1, 30))
def test_ndcg_of_the_best_list_is_one_to_the_last_bit(k: int) -> None:
    truth = matrix([set(range(size)) for size in (1, 9, 30)], 30)
    found = hits(np.tile(np.arange(30), (3, 1)), truth)
    assert ndcg_at(found, truth_sizes(truth), k).tolist() == [1.0, 1.0, 1.0]


def test_hit_rate_and_mrr() -> None:
    found = hits(SHOWN, matrix(BOUGHT))
    assert hit_rate_at(found, 2).tolist() == [1, 0, 0]
    assert hit_rate_at(found, 3).tolist() == [1, 1, 0]
    assert mrr_at(found, 2).tolist() == [1, 0, 0]
    assert mrr_at(found, 3).tolist() == [1, 1 / 3, 0]


def test_coverage() -> None:
    # The first two show 1, 5, 0, 3, 8; all four 1, 5, 2, 9, 0, 3, 8: 5 comes twice.
    assert catalogue_coverage(SHOWN, 2, PRODUCTS) == 5 / 12
    assert catalogue_coverage(SHOWN, 4, PRODUCTS) == 7 / 12
    assert catalogue_coverage(padded([[], []], 1), 1, PRODUCTS) == 0


def test_popularity_rank() -> None:
    # Ranks: 40 is first, the two 30s share 2 and 3, 20 is fourth, 0 fifth.
    popularity = np.array([30, 40, 0, 30, 20])
    lists = padded([[1, 0], [1, 3], [4], []], 2)
    # Shown: 1 twice, 0, 3 and 4 once; ranks 1, 1, 2.5, 2.5, 4, which is 11 / 5.
    assert mean_popularity_rank(lists, 2, popularity) == pytest.approx(2.2)
    # 100 x (1 - 1.2 / 5)
    assert popularity_percentile(lists, 2, popularity) == pytest.approx(76)
    assert popularity_percentile(padded([[1]], 1), 1, popularity) == 100
    assert popularity_percentile(padded([[2]], 1), 1, popularity) == pytest.approx(20)


@given(st.lists(st.sampled_from([-2.5, 0.0, 1.0, 1.5, 7.0])))
def test_ranks_are_those_of_scipy(values: list[float]) -> None:
    assert mean_ranks(np.array(values)).tolist() == rankdata(values).tolist()


def test_novelty() -> None:
    share = np.array([1.0, 0.5, 0.25, 1 / 1024, 0.0])
    # Bits: 0, 1, 2, 10. Shown: 0 twice, 1, 3.
    assert novelty(padded([[0, 1], [0, 3]], 2), 2, share) == pytest.approx(11 / 4)
    assert novelty(padded([[0, 1], [0, 3]], 2), 1, share) == 0
    with pytest.raises(ValueError, match="purchase share above 0"):
        novelty(padded([[4]], 1), 1, share)


# --- What would make numbers wrong is refused ---------------------------------------------------


@pytest.mark.parametrize("data", [[True, False], [True]], ids=["stored as False", "none stored"])
def test_a_user_without_truth_is_refused(data: list[bool]) -> None:
    truth = csr_matrix((data, (range(len(data)), [1] * len(data))), shape=(2, PRODUCTS))
    with pytest.raises(ValueError, match="1 users bought nothing"):
        hits(padded([[1], [1]], 1), truth)
    with pytest.raises(ValueError, match="1 users bought nothing"):
        truth_sizes(truth)
    for metric in (recall_at, ndcg_at):
        with pytest.raises(ValueError, match="1 users bought nothing"):
            metric(np.ones((2, 1), dtype=bool), np.array([1, 0]), 1)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[1, 1], [2]], "twice"),
        ([[1], [PRODUCTS]], "positions from -1 to 11"),
        ([[1], [-2]], "positions from -1 to 11"),
        ([[1]], r"shape \(1, 2\) for 2 users"),
    ],
)
def test_lists_that_are_none_are_refused(lists: Lists, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hits(padded(lists, 2), matrix([{1}, {2}]))


def test_more_than_the_lists_hold_is_refused() -> None:
    found, sizes = np.ones((1, 5), dtype=bool), np.array([1])
    for metric in (
        lambda k: recall_at(found, sizes, k),
        lambda k: ndcg_at(found, sizes, k),
        lambda k: hit_rate_at(found, k),
        lambda k: mrr_at(found, k),
        lambda k: catalogue_coverage(np.zeros((1, 5), dtype=np.int64), k, PRODUCTS),
    ):
        for k in (0, 6):
            with pytest.raises(ValueError, match=f"the first {k} of lists of 5"):
                metric(k)


def test_properties_of_no_list_are_refused() -> None:
    nothing = padded([[], []], 3)
    for metric in (mean_popularity_rank, popularity_percentile, novelty):
        with pytest.raises(ValueError, match="no list shows anything"):
            metric(nothing, 3, np.ones(PRODUCTS))
    with pytest.raises(ValueError, match="positions from -1 to 11"):
        catalogue_coverage(padded([[PRODUCTS]], 1), 1, PRODUCTS)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8])
def test_a_purchase_stored_twice_counts_once(dtype: type[np.generic]) -> None:
    stored = (np.ones(3, dtype=dtype), [3, 3, 4], [0, 3])
    truth = csr_matrix(stored, shape=(1, PRODUCTS))
    assert truth.nnz == 3
    assert truth_sizes(truth).tolist() == [2]
    assert hits(padded([[3, 4]], 2), truth).tolist() == [[True, True]]
    assert truth.nnz == 3, "the caller's matrix is not changed"


# --- Against a plain rendering and against trec_eval --------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Lists, Bought]:
    """Up to six users with lists of up to eight products and at least one purchase each."""
    products = st.integers(0, PRODUCTS - 1)
    users = draw(st.integers(1, 6))
    lists = st.lists(products, max_size=8, unique=True)
    return (
        draw(st.lists(lists, min_size=users, max_size=users)),
        draw(st.lists(st.sets(products, min_size=1), min_size=users, max_size=users)),
    )


def plain_recall(shown: list[int], bought: set[int], k: int) -> float:
    return len(bought.intersection(shown[:k])) / len(bought)


def plain_ndcg(shown: list[int], bought: set[int], k: int) -> float:
    gain = sum(1 / math.log2(1 + r) for r, p in enumerate(shown[:k], start=1) if p in bought)
    return gain / sum(1 / math.log2(1 + r) for r in range(1, min(k, len(bought)) + 1))


def plain_hit_rate(shown: list[int], bought: set[int], k: int) -> float:
    return float(any(p in bought for p in shown[:k]))


def plain_mrr(shown: list[int], bought: set[int], k: int) -> float:
    return next((1 / r for r, p in enumerate(shown[:k], start=1) if p in bought), 0.0)


@given(worlds(), st.integers(1, 8), st.integers(1, 3))
def test_accuracy_is_what_the_formulas_say(
    world: tuple[Lists, Bought], k: int, users_at_once: int
) -> None:
    lists, bought = world
    truth = matrix(bought)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "USERS_AT_ONCE", users_at_once)
        found = hits(padded(lists, 8), truth)
    sizes = truth_sizes(truth)

    def plainly(formula: Callable[[list[int], set[int], int], float]) -> object:
        values = [formula(s, b, k) for s, b in zip(lists, bought, strict=True)]
        return pytest.approx(values, abs=1e-12)

    assert recall_at(found, sizes, k) == plainly(plain_recall)
    assert ndcg_at(found, sizes, k) == plainly(plain_ndcg)
    assert hit_rate_at(found, k) == plainly(plain_hit_rate)
    assert mrr_at(found, k) == plainly(plain_mrr)


@given(
    worlds(),
    st.integers(1, 8),
    st.lists(st.integers(1, 5), min_size=PRODUCTS, max_size=PRODUCTS),
)
def test_properties_are_what_the_formulas_say(
    world: tuple[Lists, Bought], k: int, buyers: list[int]
) -> None:
    lists, _ = world
    shown = [p for each in lists for p in each[:k]]
    assert catalogue_coverage(padded(lists, 8), k, PRODUCTS) == len(set(shown)) / PRODUCTS
    if not shown:
        return

    def rank(product: int) -> float:
        ahead = sum(b > buyers[product] for b in buyers)
        alike = buyers.count(buyers[product])
        return ahead + (1 + alike) / 2

    mean_rank = sum(map(rank, shown)) / len(shown)
    bits = sum(-math.log2(buyers[p] / 5) for p in shown) / len(shown)
    popularity = np.array(buyers, dtype=np.float64)
    assert mean_popularity_rank(padded(lists, 8), k, popularity) == pytest.approx(mean_rank)
    assert novelty(padded(lists, 8), k, popularity / 5) == pytest.approx(bits, abs=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_accuracy_is_what_trec_eval_says(k: int) -> None:
    rng = np.random.default_rng(k)
    users, products = 200, 60
    bought = [set(rng.permutation(products)[: rng.integers(1, 40)].tolist()) for _ in range(users)]
    lists = [rng.permutation(products)[: rng.integers(1, 21)].tolist() for _ in range(users)]
    truth = matrix(bought, products)
    found, sizes = hits(padded(lists, 20), truth), truth_sizes(truth)

    judged = {str(user): {str(p): 1 for p in each} for user, each in enumerate(bought)}
    # trec_eval's reciprocal rank has no cut-off, so it is shown no more than k.
    ranked = {
        str(user): {str(p): float(-rank) for rank, p in enumerate(each[:k])}
        for user, each in enumerate(lists)
    }
    measures = {f"recall.{k}", f"ndcg_cut.{k}", f"success.{k}", "recip_rank"}
    told = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(ranked)

    for measure, values in {
        f"recall_{k}": recall_at(found, sizes, k),
        f"ndcg_cut_{k}": ndcg_at(found, sizes, k),
        f"success_{k}": hit_rate_at(found, k),
        "recip_rank": mrr_at(found, k),
    }.items():
        expected = [told[str(user)][measure] for user in range(users)]
        assert np.mean(expected) > 0
        assert values == pytest.approx(expected, abs=1e-12), measure


# --- Intervals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng: rng.normal(3.0, 2.0, size=150), 3.0),
        (lambda rng: rng.binomial(1, 0.3, size=150).astype(float), 0.3),
    ],
    ids=["normal", "Bernoulli"],
)
def test_an_interval_covers_the_mean_as_often_as_it_says(
    draw: Callable[[np.random.Generator], NDArray[np.float64]], mean: float
) -> None:
    rng = np.random.default_rng(7)
    intervals = [bootstrap_interval(draw(rng), seed=i, resamples=400) for i in range(400)]
    covered = np.mean([low <= mean <= high for _, low, high in intervals])
    # 400 trials of 0.95 have a standard deviation of 0.011.
    assert 0.91 <= covered <= 0.98


def test_an_interval_is_as_wide_as_theory_says() -> None:
    users = 4000
    values = np.random.default_rng(1).binomial(1, 0.2, size=users).astype(float)
    mean, low, high = bootstrap_interval(values, seed=0, resamples=20_000)
    assert mean == values.mean()
    # The hits among users drawn with replacement are binomial.
    tails = binom.ppf([0.025, 0.975], users, mean) / users
    assert [low, high] == pytest.approx(tails, abs=0.03 * (high - mean))
    narrow = bootstrap_interval(values, seed=0, level=0.5)
    assert low < narrow.low < mean < narrow.high < high


def test_few_users_give_wide_intervals() -> None:
    values = np.random.default_rng(2).normal(size=1000)

    def width(users: int) -> float:
        _, low, high = bootstrap_interval(values[:users], seed=0)
        return high - low

    assert width(40) > 2 * width(400)


def test_the_same_seed_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=1000)
    first = bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) == first != bootstrap_interval(values, seed=6)
    monkeypatch.setattr(metrics, "DRAWS_AT_ONCE", 1)
    assert bootstrap_interval(values, seed=5) == first, "whatever is drawn at once"


def test_a_paired_difference_is_narrower() -> None:
    rng = np.random.default_rng(4)
    b = rng.normal(size=500)
    a = b + rng.normal(0.05, 0.1, size=500)
    paired = bootstrap_difference(a, b, seed=0)
    of_a, of_b = bootstrap_interval(a, seed=0), bootstrap_interval(b, seed=0)
    assert paired.mean == pytest.approx(of_a.mean - of_b.mean)
    assert paired.low > 0, "the difference is certain"
    assert of_a.low < of_b.high, "although the intervals overlap"
    unpaired = math.hypot(of_a.high - of_a.low, of_b.high - of_b.low)
    assert paired.high - paired.low < unpaired / 5


def test_users_all_alike() -> None:
    assert bootstrap_interval(np.full(9, 0.5), seed=0) == Interval(0.5, 0.5, 0.5)
    assert bootstrap_interval(np.array([0.25]), seed=0) == Interval(0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]]], ids=str)
def test_an_interval_of_no_values_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values of one or more users"):
        bootstrap_interval(np.array(values), seed=0)


def test_an_interval_that_means_nothing_is_refused() -> None:
    for level, resamples in ((0.0, 10), (1.0, 10), (95.0, 10), (0.95, 0)):
        with pytest.raises(ValueError, match="a level of"):
            bootstrap_interval(np.ones(3), seed=0, level=level, resamples=resamples)
    with pytest.raises(ValueError, match="not paired"):
        bootstrap_difference(np.ones(3), np.ones(1), seed=0)
