"""How good lists are: accuracy per user, properties over all lists, intervals over users.

Pure functions of arrays: what was recommended, what was then bought. Splitting the past and making
the lists is not done here. Definitions, sources and choices are in docs/evaluation.md.

Lists are ``recommended``, int64 [users, N]: positions of products, best first, none twice, -1
where a list is shorter. ``truth`` is CSR [users, products], rows in the order of the lists: which
products the user bought in the held-out window. Users who bought nothing are left out by the
caller, for nothing can be said of their lists. (A row may as well be a basket.)
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

USERS_AT_ONCE = 1 << 16
DRAWS_AT_ONCE = 1 << 20

# --- Accuracy: a value per user -----------------------------------------------------------------


def hits(recommended: NDArray[np.int64], truth: csr_matrix) -> NDArray[np.bool_]:
    """Which recommended products the user then bought: bool [users, N].

    Works through the users in chunks, so that only the result grows with their number.

    Raises:
        ValueError: as many lists as users are needed, each of known products, none twice; and
            every user needs a truth.
    """
    truth_sizes(truth)
    users, products = truth.shape
    if recommended.ndim != 2 or len(recommended) != users:
        raise ValueError(f"lists of shape {recommended.shape} for {users} users")
    found = np.empty(recommended.shape, dtype=bool)
    for start in range(0, users, USERS_AT_ONCE):
        chunk = slice(start, start + USERS_AT_ONCE)
        found[chunk] = _hits(_checked(recommended[chunk], products), truth[chunk])
    return found


def truth_sizes(truth: csr_matrix) -> NDArray[np.int64]:
    """How many distinct products each user bought: int64 [users], above 0.

    Raises:
        ValueError: a user bought nothing.
    """
    distinct = truth.astype(bool)
    distinct.sum_duplicates()
    distinct.eliminate_zeros()
    sizes: NDArray[np.int64] = np.diff(distinct.indptr).astype(np.int64)
    return _above_zero(sizes)


def recall_at(
    hits: NDArray[np.bool_], truth_sizes: NDArray[np.int64], k: int
) -> NDArray[np.float64]:
    """The share of the user's purchases that is among the first k: hits / |truth|, float64 [users].

    Divided by all that the user bought, not by min(k, |truth|): whoever bought more than k products
    cannot reach 1, and recall never falls as k grows.
    """
    recall: NDArray[np.float64] = _first(hits, k).sum(axis=1) / _above_zero(truth_sizes)
    return recall


def ndcg_at(hits: NDArray[np.bool_], truth_sizes: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of the first k, float64 [users] in [0, 1].

    A hit at rank r gains 1 / log2(1 + r); the sum is divided by that of the best possible list,
    which begins with min(k, |truth|) hits. Järvelin & Kekäläinen 2002, with binary gains.
    """
    best = _discounted_gain(np.tri(k + 1, k, k=-1, dtype=bool))
    return _discounted_gain(_first(hits, k)) / best[np.minimum(k, _above_zero(truth_sizes))]


def hit_rate_at(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """1 where at least one of the first k is a hit, else 0: float64 [users]."""
    return np.asarray(_first(hits, k).any(axis=1), dtype=np.float64)


def mrr_at(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """1 / the rank of the first hit among the first k, 0 without one: float64 [users].

    Its mean is the mean reciprocal rank (Voorhees 1999), cut off at k.
    """
    first = _first(hits, k)
    return np.asarray(first.any(axis=1) / (1.0 + first.argmax(axis=1)))


# --- Properties of all lists together -----------------------------------------------------------


def catalogue_coverage(recommended: NDArray[np.int64], k: int, n_products: int) -> float:
    """The share of products that are among the first k of at least one list, in [0, 1]."""
    return float((_exposure(recommended, k, n_products) > 0).mean())


def mean_popularity_rank(recommended: NDArray[np.int64], k: int, popularity: NDArray[Any]) -> float:
    """The mean rank by popularity of what lists show among their first k; 1 is the bestseller.

    ``popularity`` is [products], in any unit, larger is more popular; equal ones share the mean of
    their ranks. Each showing counts: a product in two lists counts twice.
    """
    exposure = _exposure(recommended, k, len(popularity))
    return _mean_shown(mean_ranks(-np.asarray(popularity, dtype=np.float64)), exposure)


def mean_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks of values, 1 for the smallest; equal ones share the mean of theirs: float64 [values].

    As scipy.stats.rankdata does, whose import takes longer than many a backtest.
    """
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2.0)[group]


def popularity_percentile(
    recommended: NDArray[np.int64], k: int, popularity: NDArray[Any]
) -> float:
    """The same as a percentile: 100 is the bestseller, 100 / products the least bought.

    100 x (1 - (rank - 1) / products), so that it compares between catalogues of different sizes.
    """
    rank = mean_popularity_rank(recommended, k, popularity)
    return 100.0 * (1.0 - (rank - 1.0) / len(popularity))


def novelty(recommended: NDArray[np.int64], k: int, purchase_share: NDArray[np.float64]) -> float:
    """The mean self-information, in bits, of what lists show among their first k.

    -log2 of ``purchase_share`` [products], the share of users (or of orders) that have bought the
    product: 0 for what everybody has, 10 for what one in 1024 has. Zhou et al. 2010.

    Raises:
        ValueError: a product is shown that nobody has bought, whose self-information is infinite.
            Count it as bought once.
    """
    exposure = _exposure(recommended, k, len(purchase_share))
    shown = exposure > 0
    if not np.all((purchase_share[shown] > 0) & (purchase_share[shown] <= 1)):
        raise ValueError("shown products need a purchase share above 0 and up to 1")
    return _mean_shown(-np.log2(purchase_share[shown]), exposure[shown])


# --- Intervals over users -----------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean over users and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: NDArray[np.float64], *, seed: int, level: float = 0.95, resamples: int = 1000
) -> Interval:
    """The mean of ``values`` [users] with its percentile bootstrap interval (Efron 1979).

    Draws as many users with replacement, ``resamples`` times, and takes the middle ``level`` of
    their means. The same seed draws the same users for all values of equal length. Takes time for
    users x resamples draws, in one thread, and memory for a million of them, or for one resample
    where that is more.

    Few users give wide intervals, below some thirty unreliable ones; users who are all alike give
    an interval of no width, however few they are.

    Raises:
        ValueError: there are no values, or not all are finite.
    """
    values = np.ascontiguousarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"finite values of one or more users are needed, not {values!r}")
    if not (0 < level < 1 and resamples > 0):
        raise ValueError(f"a level of {level} with {resamples} resamples")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, DRAWS_AT_ONCE // len(values))
    for start in range(0, resamples, at_once):
        chunk = means[start : start + at_once]
        draws = rng.integers(len(values), size=(len(chunk), len(values)))
        chunk[:] = values[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_difference(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
) -> Interval:
    """The mean of ``a - b`` over the same users, both [users], with its interval.

    Paired: both lists of a user are drawn together, so that what makes a user easy or hard for
    either cancels out. ``a`` is better than ``b`` where ``low`` is above 0. That two intervals
    overlap says less: they can do so where the difference is certain.

    Raises:
        ValueError: as for ``bootstrap_interval``, or the two are not of equal length.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"values of shapes {np.shape(a)} and {np.shape(b)} are not paired")
    return bootstrap_interval(a - b, seed=seed, level=level, resamples=resamples)


# --- Steps --------------------------------------------------------------------------------------


def _hits(recommended: NDArray[np.int64], truth: csr_matrix) -> NDArray[np.bool_]:
    users = np.arange(len(recommended))[:, np.newaxis]
    bought = truth[users, np.maximum(recommended, 0)].toarray() != 0
    return np.asarray(bought & (recommended >= 0))


def _checked(recommended: NDArray[np.int64], products: int) -> NDArray[np.int64]:
    ordered = np.sort(recommended, axis=1)
    if ordered.size and not (ordered[:, 0].min() >= -1 and ordered[:, -1].max() < products):
        raise ValueError(f"lists hold positions from -1 to {products - 1}")
    if np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)):
        raise ValueError("a list recommends a product twice")
    return recommended


def _first(hits: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    if not 0 < k <= hits.shape[1]:
        raise ValueError(f"the first {k} of lists of {hits.shape[1]}; pad shorter lists with -1")
    return hits[:, :k]


def _above_zero(truth_sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    if np.any(truth_sizes <= 0):
        raise ValueError(f"{np.sum(truth_sizes <= 0)} users bought nothing; leave them out")
    return truth_sizes


def _discounted_gain(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    discounts = 1.0 / np.log2(2.0 + np.arange(hits.shape[1]))
    gain: NDArray[np.float64] = np.where(hits, discounts, 0.0).sum(axis=1)
    return gain


def _exposure(recommended: NDArray[np.int64], k: int, n_products: int) -> NDArray[np.int64]:
    """How many lists show each product among their first k: int64 [products]."""
    if not 0 < k <= recommended.shape[1]:
        raise ValueError(f"the first {k} of lists of {recommended.shape[1]}")
    first = recommended[:, :k]
    exposure = np.bincount(first[first >= 0], minlength=n_products)
    if len(exposure) > n_products:
        raise ValueError(f"lists hold positions from -1 to {n_products - 1}")
    return exposure


def _mean_shown(values: NDArray[np.float64], exposure: NDArray[np.int64]) -> float:
    if not exposure.any():
        raise ValueError("no list shows anything")
    return float(np.average(values, weights=exposure))
