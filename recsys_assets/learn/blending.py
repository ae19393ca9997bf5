"""Top Buys: what a user buys again, and what they may like to find, in one exact list.

The score of product i for user u, in purchases of today, is

    own(u, i) + discovery * exp(affinity * a(u, i)) * trend(i) ** popularity

- ``own`` is the decayed number of purchases, less what has lapsed: times ``min(1, (mean interval /
  time since the last) ** lapse)``, where the mean interval is the time since the first purchase by
  the number of them. 0 for what the user has not bought.
- ``a = x_u . y_i / ((1 + |x_u|) (1 + |y_i|))`` of the factors of ALS: a cosine, shrunk towards 0
  for users and products of which little is known.
- ``trend`` is the popularity of the last weeks, from 1 for the most popular product down to a
  ten-thousandth: the sum over its buyers of ``0.5 ** (time since they bought it / half-life)``.

A user without factors is thus shown what is popular. Products that the model does not know have
``own`` alone. Equal scores are ordered by popularity.

A list is a function of the model and of this user's interactions alone, bit by bit: it does not
depend on whose lists are computed beside it, or when.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import ThreadpoolController

from recsys_assets.cores import available_cores
from recsys_assets.learn.als import AlsModel, UserSolver, user_solver
from recsys_assets.learn.matrix import Histories

Floats = NDArray[np.float32]
Repeats = Literal["blend", "exclude", "only"]
"""What becomes of products that the user has bought: ranked with all others, left out, or alone."""

Select = Callable[[Floats, int, NDArray[np.int64]], tuple[NDArray[np.int64], Floats]]
"""Takes lists of n from scores, rows x columns, which it may change; as :func:`top_n` does."""

LEAST_TREND = 1e-4

_MICROSECONDS_A_DAY = 86_400e6
_BLOCK_BYTES = 16 * 2**20
_BLOCK_ROWS = 1024
_SAMPLE = 4096


@dataclass(frozen=True)
class TopLists:
    """Lists of rows ``first_row ..``, best first: product positions and scores, rows x N."""

    first_row: int
    products: NDArray[np.int64]
    scores: Floats


@dataclass(frozen=True)
class Blend:
    """The parameters of the score; ``trend_days`` is the half-life of the trend."""

    discovery: float = 0.8
    affinity: float = 6.0
    popularity: float = 0.15
    trend_days: float = 14.0
    lapse: float = 0.5
    repeats: Repeats = "blend"


@dataclass(frozen=True)
class Ranker:
    """Makes lists by a model and a blend, as of a moment, that of the model.

    Without ``by_affinity`` no user has factors: lists are of own purchases, and of what is popular.
    """

    model: AlsModel
    blend: Blend
    as_of: datetime
    by_affinity: bool = True

    def lists(
        self, histories: Histories, *, n: int, select: Select | None = None
    ) -> Iterator[TopLists]:
        """The lists of all users of ``histories``, whose first columns are the model's products.

        ``select`` takes the lists from the scores, the best ones by default.
        """
        return blended_top_n(
            self._user_vectors(histories.weights),
            self._product_vectors,
            own_scores(histories, self.as_of, self.blend.lapse),
            self.model.popularity,
            n=n,
            exponential=True,
            repeats=self.blend.repeats,
            select=select,
        )

    def _user_vectors(self, weights: csr_matrix) -> Floats:
        ones = np.ones((weights.shape[0], 1), np.float32)
        if not self.by_affinity:
            return np.hstack([np.zeros((len(ones), self._rank), np.float32), ones])
        factors = self._solver(weights[:, : len(self.model.product_ids)])
        return np.hstack([np.float32(self.blend.affinity) * _shrunk(factors), ones])

    @cached_property
    def _solver(self) -> UserSolver:
        return user_solver(self.model)

    @cached_property
    def _product_vectors(self) -> Floats:
        """Such that the product with a user's vector is the logarithm of what discovery scores."""
        trend = self.model.popularity / max(float(self.model.popularity.max(initial=0)), 1e-30)
        constant = np.log(max(self.blend.discovery, 1e-30))
        of_trend = self.blend.popularity * np.log(trend + LEAST_TREND) + constant
        vectors = [_shrunk(self.model.product_factors), of_trend[:, np.newaxis]]
        return np.hstack(vectors).astype(np.float32)

    @property
    def _rank(self) -> int:
        return int(self.model.product_factors.shape[1])


def own_scores(histories: Histories, as_of: datetime, lapse: float) -> csr_matrix:
    """``own`` of every user and product, CSR like the weights, float32."""
    first, last = (_days_before(as_of, times) for times in (histories.first, histories.last))
    interval = first / histories.counts
    is_lapsed = (last > 0) & (interval < last)
    active = np.ones(len(last))
    active[is_lapsed] = (interval[is_lapsed] / last[is_lapsed]) ** lapse
    weights = histories.weights
    own = (weights.data * active).astype(np.float32)
    return csr_matrix((own, weights.indices, weights.indptr), shape=weights.shape)


def trend(histories: Histories, as_of: datetime, half_life: timedelta) -> Floats:
    """The popularity of the last weeks: float32 [products], a decayed number of buyers.

    A buyer counts half for every half-life since their last purchase of the product.
    """
    age = np.maximum(_days_before(as_of, histories.last), 0) / (half_life / timedelta(days=1))
    products = histories.weights.shape[1]
    return np.bincount(histories.weights.indices, 0.5**age, products).astype(np.float32)


def _days_before(as_of: datetime, times: NDArray[np.datetime64]) -> NDArray[np.float64]:
    moment = np.datetime64(as_of.astimezone(UTC).replace(tzinfo=None), "us")
    return (moment - times.astype("datetime64[us]")).astype(np.int64) / _MICROSECONDS_A_DAY


def _shrunk(factors: Floats) -> Floats:
    """Each row by 1 plus its length: below 1, and the less the less is known."""
    shrunk: Floats = factors / (1 + np.linalg.norm(factors, axis=1, keepdims=True))
    return shrunk


def blended_top_n(
    user_factors: Floats,
    product_factors: Floats,
    own: csr_matrix,
    popularity: Floats,
    *,
    n: int,
    exponential: bool = False,
    repeats: Repeats = "blend",
    select: Select | None = None,
    block_bytes: int = _BLOCK_BYTES,
    threads: int | None = None,
) -> Iterator[TopLists]:
    """The exact top ``n`` products of every user, in blocks of users in ascending order.

    The score is the product of the factors, or with ``exponential`` its exponential, plus ``own``.

    ``user_factors`` is users x f, ``product_factors`` products x f, ``popularity`` one number for
    each of these products. ``own`` is CSR, users x columns, above zero: columns beyond those
    products are of products that the model does not know, which only their buyers can have. A list
    that cannot be filled ends in scores of minus infinity. ``select`` takes the lists from the
    scores. Memory is bounded by ``threads`` x ``block_bytes`` for the scores of a block of users,
    whatever the number of users.
    """
    known, columns = len(product_factors), own.shape[1]
    order = np.r_[np.argsort(-popularity, kind="stable"), known:columns]
    n = min(n, columns)
    users = len(user_factors)
    rows = min(_BLOCK_ROWS, max(1, block_bytes // (4 * max(1, known))))
    threads = threads or available_cores()
    select = select or top_n

    def block(start: int) -> TopLists:
        their = own[start : start + rows]
        scores = _products_of(user_factors[start : start + rows], product_factors, rows)
        if exponential:
            np.exp(scores, out=scores)
        if columns > known:
            new = np.full((len(scores), columns - known), -np.inf, np.float32)
            scores = np.hstack([scores, new])
        row = np.repeat(np.arange(their.shape[0]), np.diff(their.indptr))
        scores[row, their.indices] = np.where(
            their.indices < known, scores[row, their.indices] + their.data, their.data
        )
        scores = _with_repeats(scores, row, their.indices, repeats)
        return TopLists(start, *select(scores, n, order))

    # One block per thread, and BLAS within it single: the passes over a block parallelise as well
    # as the product does.
    with _blas().limit(limits=1), ThreadPoolExecutor(threads) as pool:
        starts = range(0, users, rows)
        for wave in range(0, len(starts), 2 * threads):
            yield from pool.map(block, starts[wave : wave + 2 * threads])


def _with_repeats(
    scores: Floats, row: NDArray[np.int64], column: NDArray[np.int32], repeats: Repeats
) -> Floats:
    """The scores, minus infinity where a product is left out for having been bought, or for not."""
    if repeats == "blend":
        return scores
    if repeats == "only":
        own = np.full_like(scores, -np.inf)
        own[row, column] = scores[row, column]
        return own
    scores[row, column] = -np.inf
    return scores


@cache
def _blas() -> ThreadpoolController:
    """The libraries of BLAS; to find them takes longer than to make a few lists."""
    return ThreadpoolController().select(user_api="blas")


def _products_of(user_factors: Floats, product_factors: Floats, rows: int) -> Floats:
    """The factors' products, users x products.

    Always computed for ``rows`` users: of two matrices of the same shapes BLAS adds up in the same
    order whoever the other users are, while a few rows alone may take another way.
    """
    users = len(user_factors)
    padded = np.zeros((rows, product_factors.shape[1]), np.float32)
    padded[:users] = user_factors
    scores: Floats = (padded @ product_factors.T)[:users]
    return scores


def top_n(
    scores: Floats, n: int, order: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], Floats]:
    """The ``n`` largest of each row, descending: columns and scores.

    ``scores`` is rows x columns, n <= columns. Equal scores are in the ``order`` of columns that is
    given, by default that of their numbers. The n-th largest of the columns that come first in it
    bounds a row's n-th largest from below, so that only the few scores above it need sorting; later
    columns that equal the bound come after n others.
    """
    rows, columns = scores.shape
    order = np.arange(columns) if order is None else order
    rank = np.empty(columns, np.int64)
    rank[order] = np.arange(columns)
    head = order[: max(n, _SAMPLE)]
    in_head = scores[:, head]
    bound = np.partition(in_head, len(head) - n, axis=1)[:, [len(head) - n]]
    candidate = scores > bound
    tied_row, tied = np.nonzero(in_head == bound)
    candidate[tied_row, head[tied]] = True
    flat = np.flatnonzero(candidate)
    row, column = np.divmod(flat, columns)
    value = scores.ravel()[flat]
    ranked = np.lexsort((rank[column], -value, row))
    first = np.searchsorted(row, np.arange(rows))
    best = ranked[first[:, None] + np.arange(n)]
    return column[best], value[best]
