"""The backtest of Top Buys: lists made from the past, measured by what was bought after it.

The lists are made by the code that makes those which are served, from a model trained as the
candidate was, on purchases before the cutoff alone; beside them, of the same users, what is
obvious. Two scopes are measured: all purchases after the cutoff, and those of products that are
new to the user, not bought before, by lists that leave bought ones out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_assets.evaluate import metrics, past
from recsys_assets.evaluate.metrics import Interval
from recsys_assets.learn.als import AlsModel, user_solver
from recsys_assets.learn.blending import Ranker, Repeats, TopLists, blended_top_n
from recsys_assets.learn.matrix import (
    Histories,
    Ids,
    as_ids,
    encode_ids,
    histories_from_arrow,
    positions,
)
from recsys_assets.shop_session import ShopSession

LENGTH = 20
CUTS = (10, 20)
ALL, NEW = "all purchases", "new products"
SCOPES = (ALL, NEW)
CANDIDATE, INCUMBENT, ALS = "Top Buys", "incumbent", "ALS alone"
POPULARITY, DECAYED_POPULARITY = "global popularity", "decayed popularity"
OWN, DECAYED_OWN = "own frequency", "decayed own frequency"

Lists = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Purchases before a moment, and those of a period after it.

    ``histories`` are those of all users before ``cutoff``, ``product_ids`` all products sold before
    it, also those that only guests have bought, with their popularity: ``orders`` and ``decayed``,
    float64 [P]. ``rows`` are the users that are measured, int64 [U], and ``truth`` what these
    bought then, CSR U x P: what was sold before, for nothing else could have been recommended.
    ``users`` is how many there are to measure, of which ``rows`` may be a sample;
    ``first_sold_then`` the purchases that are left out of their truth.
    """

    cutoff: datetime
    until: datetime
    histories: Histories
    product_ids: Ids
    orders: NDArray[np.float64]
    decayed: NDArray[np.float64]
    rows: NDArray[np.int64]
    truth: csr_matrix
    users: int
    first_sold_then: int

    def of(self, measured: NDArray[np.bool_]) -> "Split":
        """The same, with some of the measured users: bool [U]."""
        return replace(self, rows=self.rows[measured], truth=self.truth[measured])

    @property
    def bought(self) -> Histories:
        """The measured users' histories."""
        return self.histories.rows(self.rows)

    def counts(self) -> csr_matrix:
        """How often the measured users had bought each product, CSR U x P, float32."""
        bought = self.bought
        return self._over_products(bought, bought.counts)

    def weights(self) -> csr_matrix:
        """The same, decayed."""
        bought = self.bought
        return self._over_products(bought, bought.weights.data)

    def _over_products(self, bought: Histories, values: NDArray[Any]) -> csr_matrix:
        column = positions(self.product_ids, bought.product_ids)
        return csr_matrix(
            (values.astype(np.float32), column[bought.weights.indices], bought.weights.indptr),
            shape=(len(self.rows), len(self.product_ids)),
        )


@dataclass(frozen=True)
class Score:
    """How one kind of lists did in one scope.

    ``values`` has every metric by its name for every user, float64 [users], ``intervals`` their
    means, ``figures`` what is said of all lists together.
    """

    name: str
    scope: str
    values: Mapping[str, NDArray[np.float64]]
    intervals: Mapping[str, Interval]
    figures: Mapping[str, float]


def read_split(
    session: ShopSession,
    *,
    cutoff: datetime,
    until: datetime,
    half_life: timedelta,
    max_users: int,
    seed: int,
) -> Split:
    """Read what was bought before ``cutoff``, and from then on before ``until``.

    Measured are users who bought in both, up to ``max_users`` drawn by ``seed``.
    """
    shop = session.shop
    histories = histories_from_arrow(
        session.read(past.interactions_before(shop, cutoff, half_life))
    )
    popularity = session.read(past.popularity_before(shop, cutoff, half_life)).sort_by("product_id")
    product_ids = as_ids(popularity["product_id"].combine_chunks())
    later = session.read(past.bought_between(shop, cutoff, until))
    truth, user_ids = _truth(later, product_ids)
    rows = positions(histories.user_ids, user_ids)  # below 0: has come in between the two readings
    measurable = np.flatnonzero((np.diff(truth.indptr) > 0) & (rows >= 0))
    drawn = measurable
    if len(drawn) > max_users:
        drawn = np.sort(np.random.default_rng(seed).choice(drawn, max_users, replace=False))
    return Split(
        cutoff=cutoff,
        until=until,
        histories=histories,
        product_ids=product_ids,
        orders=popularity["orders"].to_numpy().astype(np.float64),
        decayed=popularity["weight"].to_numpy(),
        rows=rows[drawn],
        truth=truth[drawn],
        users=len(measurable),
        first_sold_then=len(later) - int(truth.nnz),
    )


def _truth(bought: pa.Table, product_ids: Ids) -> tuple[csr_matrix, Ids]:
    """What users bought of these products, CSR users x products, and the users' ids."""
    row, user_ids = encode_ids(bought["user_id"])
    column, bought_ids = encode_ids(bought["product_id"])
    place = positions(product_ids, bought_ids)[column]
    known = place >= 0
    truth = csr_matrix(
        (np.ones(known.sum(), np.int8), (row[known], place[known])),
        shape=(len(user_ids), len(product_ids)),
    )
    return truth, user_ids


# --- Whose lists are measured -------------------------------------------------------------------


def ranked_lists(split: Split, ranker: Ranker, bought: Histories | None = None) -> Lists:
    """The measured users' lists as they would have been served, U x N, in products of the split.

    ``bought`` are these users' histories as the ranker wants them, by default those of the split.
    """
    lists = ranker.lists(split.bought if bought is None else bought, n=LENGTH)
    return _in_products_of(split, ranker.model, lists)


def als_lists(split: Split, model: AlsModel, scope: str) -> Lists:
    """Lists by the product of the factors alone, as ALS is used where it is all there is."""
    bought = split.bought
    nothing = bought.weights if scope == NEW else csr_matrix(bought.weights.shape, dtype=np.float32)
    lists = blended_top_n(
        user_solver(model)(bought.weights),
        model.product_factors,
        nothing,
        model.popularity,
        n=LENGTH,
        repeats="exclude" if scope == NEW else "blend",
    )
    return _in_products_of(split, model, lists)


def _in_products_of(split: Split, model: AlsModel, lists: Iterator[TopLists]) -> Lists:
    place = np.append(positions(split.product_ids, model.product_ids), -1)
    return np.asarray(place[_joined(lists)])


def own_lists(own: csr_matrix, popularity: NDArray[np.float64], repeats: Repeats) -> Lists:
    """Lists by the user's own purchases, ties and gaps filled by popularity, without a model."""
    users, products = own.shape
    return _joined(
        blended_top_n(
            np.zeros((users, 1), np.float32),
            np.zeros((products, 1), np.float32),
            own,
            popularity.astype(np.float32),
            n=LENGTH,
            repeats=repeats,
        )
    )


def baselines(split: Split, scope: str, repeats: Repeats) -> Iterator[tuple[str, Lists]]:
    """What needs no learning, by name, with the user's own products as the candidate has them."""
    counts, weights = split.counts(), split.weights()
    repeats = "exclude" if scope == NEW else repeats
    unranked = csr_matrix((0 * counts.data, counts.indices, counts.indptr), shape=counts.shape)
    yield POPULARITY, own_lists(unranked, split.orders, repeats)
    yield DECAYED_POPULARITY, own_lists(unranked, split.decayed, repeats)
    if repeats != "exclude":  # where the user's own purchases say something
        yield OWN, own_lists(counts, split.orders, repeats)
        yield DECAYED_OWN, own_lists(weights, split.decayed, repeats)


def _joined(lists: Iterator[TopLists]) -> Lists:
    """All lists, users x LENGTH; -1 where one cannot be filled."""
    blocks = [np.where(np.isfinite(block.scores), block.products, -1) for block in lists]
    joined = np.concatenate(blocks) if blocks else np.empty((0, LENGTH), np.int64)
    missing = LENGTH - joined.shape[1]
    return np.pad(joined, ((0, 0), (0, missing)), constant_values=-1)


# --- How they do --------------------------------------------------------------------------------


def score(split: Split, name: str, scope: str, lists: Lists, *, seed: int) -> Score:
    """Measure lists, U x N, by what their users bought; in the scope NEW by what is new to them."""
    truth = split.truth
    if scope == NEW:
        truth = truth - truth.multiply(split.counts() > 0)
        truth.eliminate_zeros()
    with_truth = np.diff(truth.indptr) > 0
    truth, lists = truth[with_truth], lists[with_truth]
    values = dict(_values(lists, truth))
    return Score(
        name,
        scope,
        values,
        {k: metrics.bootstrap_interval(v, seed=seed) for k, v in values.items() if len(v)},
        _figures(split, lists) if (lists >= 0).any() else {},
    )


def _values(lists: Lists, truth: csr_matrix) -> Iterator[tuple[str, NDArray[np.float64]]]:
    hits, sizes = metrics.hits(lists, truth), metrics.truth_sizes(truth)
    for k in CUTS:
        yield f"recall@{k}", metrics.recall_at(hits, sizes, k)
        yield f"NDCG@{k}", metrics.ndcg_at(hits, sizes, k)
        yield f"hit rate@{k}", metrics.hit_rate_at(hits, k)
        yield f"MRR@{k}", metrics.mrr_at(hits, k)


def _figures(split: Split, lists: Lists) -> dict[str, float]:
    k, products = CUTS[0], len(split.product_ids)
    bought = split.histories.weights.indices
    buyers = np.bincount(
        positions(split.product_ids, split.histories.product_ids)[bought], minlength=products
    )
    share = np.maximum(buyers, 1) / len(split.histories.user_ids)
    return {
        f"coverage@{k}": metrics.catalogue_coverage(lists, k, products),
        f"popularity rank@{k}": metrics.mean_popularity_rank(lists, k, split.orders),
        f"novelty@{k}": metrics.novelty(lists, k, share),
    }
