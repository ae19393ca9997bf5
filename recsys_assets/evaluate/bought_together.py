"""The backtest of Bought Together: lists made from past baskets, measured by later ones.

Two scopes are measured. ``one product`` is the page of a product: every product of a held-out
basket is shown alone in turn, and its list should name others of the basket. ``cart`` is the
completion of a cart: one product of the basket, drawn, is hidden, the lists of the others are
combined, and should name it. Products without a list are misses.

The lists are made by the code that makes those which are served. Beside them stand popularity - the
bestsellers under everything - and the same rules ordered by raw lift and by confidence. Here belong
pure functions of arrays; nothing depends on the clock or the number of threads.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_assets.evaluate import metrics
from recsys_assets.evaluate.metrics import Interval
from recsys_assets.learn.baskets import Baskets
from recsys_assets.learn.matrix import positions
from recsys_assets.learn.rules import BasketRules, TopConsequents, top_consequents

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ONE_PRODUCT, CART = "one product", "cart"
SCOPES = (ONE_PRODUCT, CART)
OURS, POPULARITY, LIFT, CONFIDENCE = "Bought Together", "global popularity", "lift", "confidence"
HIT_RATE = {ONE_PRODUCT: "hit rate@5", CART: "hit rate@10"}
MRR = "MRR@10"

LENGTH = 60  # of published lists
SHOWN = 10  # places of a list that are looked at
WELL_SOLD = 20  # orders of a product that should have a list
ENTRIES_AT_ONCE = 1 << 18  # of lists, in memory at a time


# --- Held-out baskets ---------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """Later baskets, of what could have been recommended.

    Attributes:
        baskets: CSR [B, P], int8, over the products of the past; at least two in a row.
        hidden: int64 [B], the product of each that the cart is without.
        count: how many baskets there are to measure, of which ``baskets`` may be a sample.
    """

    baskets: csr_matrix
    hidden: Ints
    count: int


def hold_out(
    later: Baskets,
    past: Baskets,
    *,
    min_orders: int = 1,
    max_baskets: int = 20_000,
    seed: int,
) -> HeldOut:
    """Later baskets with two or more products that at least ``min_orders`` past baskets have.

    Products that fewer have are taken out, for nothing could be known of them. Up to
    ``max_baskets`` are drawn by ``seed``, and of each the product to hide.
    """
    place = positions(past.product_ids, later.product_ids)
    orders = np.bincount(past.matrix.indices, minlength=len(past.product_ids))
    known = (place >= 0) & (np.append(orders, 0)[place] >= min_orders)
    kept = csr_matrix(later.matrix)[:, known]
    columns = place[known][kept.indices]
    shape = (kept.shape[0], len(past.product_ids))
    baskets = csr_matrix((kept.data, columns, kept.indptr), shape=shape)
    baskets.sort_indices()
    measurable = np.flatnonzero(np.diff(baskets.indptr) >= 2)
    rng = np.random.default_rng(seed)
    drawn = measurable
    if len(drawn) > max_baskets:
        drawn = np.sort(rng.choice(drawn, max_baskets, replace=False))
    baskets = baskets[drawn]
    hidden = baskets.indices[baskets.indptr[:-1] + rng.integers(np.diff(baskets.indptr))]
    return HeldOut(baskets, hidden.astype(np.int64), len(measurable))


# --- Whose lists are measured -------------------------------------------------------------------


class Lists(Protocol):
    """A list for every product, or none."""

    def of(self, products: Ints, most: int) -> tuple[Ints, Floats]:
        """The first ``most`` of the lists of some products, and their strengths, [Q, most].

        -1 and 0 where a list is shorter.
        """


@dataclass(frozen=True)
class RuleLists:
    """The lists that are published."""

    top: TopConsequents

    def of(self, products: Ints, most: int) -> tuple[Ints, Floats]:
        """The first ``most`` of the lists of some products, and their strengths, [Q, most]."""
        starts, ends = self.top.indptr[products], self.top.indptr[products + 1]
        rows = starts[:, np.newaxis] + np.arange(most)
        exists = rows < ends[:, np.newaxis]
        rows = np.where(exists, rows, len(self.top.consequents))
        consequents = np.append(self.top.consequents, -1)[rows].astype(np.int64)
        return consequents, np.append(self.top.strengths, 0.0)[rows]


@dataclass(frozen=True)
class Bestsellers:
    """The products with the most orders, under every product but itself.

    ``product_orders`` is int [P]; among equals the first comes first. The strength is the orders.
    """

    product_orders: NDArray[Any]

    def of(self, products: Ints, most: int) -> tuple[Ints, Floats]:
        """The first ``most`` of the lists of some products, and their strengths, [Q, most]."""
        best = np.argsort(-self.product_orders, kind="stable")[: most + 1]
        best = best[self.product_orders[best] > 0]
        place = np.full(len(self.product_orders), len(best))
        place[best] = np.arange(len(best))
        places = np.arange(most) + (np.arange(most) >= place[products][:, np.newaxis])
        exists = places < len(best)
        lists = np.append(best, -1)[np.where(exists, places, len(best))]
        return lists, np.where(exists, self.product_orders[lists], 0).astype(np.float64)


def orderings(
    rules: BasketRules, *, length: int = LENGTH, min_orders: int = 1
) -> Iterator[tuple[str, Lists]]:
    """The lists as they are published, and the baselines, by name.

    ``length`` and ``min_orders`` are those of the publication (see ``top_consequents``).
    """
    yield OURS, RuleLists(top_consequents(rules, length, min_orders))
    yield POPULARITY, Bestsellers(rules.product_orders)
    for name, strength in ((LIFT, rules.lift), (CONFIDENCE, rules.confidence)):
        reordered = replace(rules, strength=strength)
        yield name, RuleLists(top_consequents(reordered, length, min_orders))


def cart_lists(lists: Lists, carts: csr_matrix, most: int, *, length: int = LENGTH) -> Ints:
    """What goes with carts, CSR [B, P]: int64 [B, most], strongest first, -1 where none is left.

    The strength of a product is the root of the sum of the squares of its strengths in the lists,
    of up to ``length``, of the cart's products: one strong tie counts for more than several weak
    ones, and a cart of one product has its list. Equal strengths go by product. Nothing that is in
    the cart is recommended.
    """
    found = np.full((carts.shape[0], most), -1, np.int64)
    for rows in _row_chunks(carts, length):
        cart, product, squares = _combined(lists, carts[rows], length)
        order = np.lexsort((product, -squares, cart))
        cart, product = cart[order], product[order]
        place = np.arange(len(cart)) - np.searchsorted(cart, cart)
        shown = place < most
        found[rows][cart[shown], place[shown]] = product[shown]
    return found


def _combined(lists: Lists, carts: csr_matrix, length: int) -> tuple[Ints, Ints, Floats]:
    """Everything in the lists of carts that is not in them: cart, product, squared strength."""
    n_carts, n_products = carts.shape
    member_of = np.repeat(np.arange(n_carts), np.diff(carts.indptr))
    consequents, strengths = lists.of(carts.indices.astype(np.int64), length)
    exists = consequents >= 0
    codes = (member_of[:, np.newaxis] * n_products + consequents)[exists]
    order = np.argsort(codes, kind="stable")
    codes, squares = codes[order], strengths[exists][order] ** 2
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(starts):
        codes, squares = codes[starts], np.add.reduceat(squares, starts)
    new = ~np.isin(codes, member_of * n_products + carts.indices)
    cart, product = np.divmod(codes[new], n_products)
    return cart, product, squares[new]


def _row_chunks(matrix: csr_matrix, width: int) -> Iterator[slice]:
    """Runs of rows, with up to ``ENTRIES_AT_ONCE / width`` entries or a single row each."""
    start, rows = 0, matrix.shape[0]
    while start < rows:
        most = matrix.indptr[start] + ENTRIES_AT_ONCE // width
        end = int(np.searchsorted(matrix.indptr, most, side="right")) - 1
        yield slice(start, start := max(min(end, rows), start + 1))


# --- How they do --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """How one kind of lists did in one scope.

    ``values`` has every metric by its name for every basket, float64 [B], ``intervals`` their
    means, ``figures`` what is said of all lists together.
    """

    name: str
    scope: str
    values: Mapping[str, Floats]
    intervals: Mapping[str, Interval]
    figures: Mapping[str, float]


def backtest(
    rules: BasketRules, held_out: HeldOut, *, length: int = LENGTH, min_orders: int = 1, seed: int
) -> list[Score]:
    """Measure the lists of past rules as they would be published, and the baselines.

    ``length`` and ``min_orders`` are those of the publication; ``seed`` is of the intervals.
    """
    return [
        each
        for name, lists in orderings(rules, length=length, min_orders=min_orders)
        for each in score(name, lists, held_out, rules.product_orders, length=length, seed=seed)
    ]


def backtest_one(
    name: str,
    rules: BasketRules,
    held_out: HeldOut,
    *,
    length: int = LENGTH,
    min_orders: int = 1,
    seed: int,
) -> list[Score]:
    """Measure the lists of other past rules, over the same products, as :func:`backtest` does."""
    lists = RuleLists(top_consequents(rules, length, min_orders))
    return score(name, lists, held_out, rules.product_orders, length=length, seed=seed)


def score(
    name: str,
    lists: Lists,
    held_out: HeldOut,
    product_orders: NDArray[Any],
    *,
    length: int = LENGTH,
    seed: int,
) -> list[Score]:
    """Measure lists in both scopes; every basket weighs the same, however many products it has.

    Args:
        name: whose lists they are.
        lists: of the P products of the past.
        held_out: what is measured by; without baskets there are figures alone.
        product_orders: int [P], past orders with each product.
        length: of the lists that are combined for a cart.
        seed: of the intervals over baskets.
    """
    baskets = held_out.baskets
    values = {
        ONE_PRODUCT: _one_product_values(lists, baskets),
        CART: _cart_values(lists, baskets, held_out.hidden, length),
    }
    figures = {ONE_PRODUCT: _figures(lists, product_orders), CART: {}}
    return [
        Score(
            name,
            scope,
            values[scope],
            {
                k: metrics.bootstrap_interval(v, seed=seed)
                for k, v in values[scope].items()
                if len(v)
            },
            figures[scope],
        )
        for scope in SCOPES
    ]


def _one_product_values(lists: Lists, baskets: csr_matrix) -> dict[str, Floats]:
    """Of each basket the mean over its products as the one shown."""
    sizes = np.diff(baskets.indptr)
    basket = np.repeat(np.arange(len(sizes)), sizes)
    hit, reciprocal = np.zeros(len(basket)), np.zeros(len(basket))
    for start in range(0, len(basket), ENTRIES_AT_ONCE // SHOWN):
        rows = slice(start, start + ENTRIES_AT_ONCE // SHOWN)
        recommended, _ = lists.of(baskets.indices[rows].astype(np.int64), SHOWN)
        hits = metrics.hits(recommended, baskets[basket[rows]])
        hit[rows], reciprocal[rows] = metrics.hit_rate_at(hits, 5), metrics.mrr_at(hits, SHOWN)
    return {
        HIT_RATE[ONE_PRODUCT]: np.bincount(basket, hit, len(sizes)) / sizes,
        MRR: np.bincount(basket, reciprocal, len(sizes)) / sizes,
    }


def _cart_values(lists: Lists, baskets: csr_matrix, hidden: Ints, length: int) -> dict[str, Floats]:
    rows = np.arange(len(hidden))
    truth = csr_matrix((np.ones(len(hidden), np.int8), (rows, hidden)), shape=baskets.shape)
    carts = csr_matrix(baskets - truth)
    carts.eliminate_zeros()
    hits = metrics.hits(cart_lists(lists, carts, SHOWN, length=length), truth)
    return {HIT_RATE[CART]: metrics.hit_rate_at(hits, SHOWN), MRR: metrics.mrr_at(hits, SHOWN)}


def _figures(lists: Lists, product_orders: NDArray[Any]) -> dict[str, float]:
    """What is said of the first places of the lists of all products sold."""
    sold = np.flatnonzero(product_orders > 0)
    recommended, _ = lists.of(sold, SHOWN)
    if not (recommended >= 0).any():
        return {}
    recommended = np.where(recommended >= 0, np.searchsorted(sold, recommended), -1)
    orders = product_orders[sold]
    figures = {
        f"coverage@{SHOWN}": metrics.catalogue_coverage(recommended, SHOWN, len(sold)),
        "popularity percentile": metrics.popularity_percentile(recommended, SHOWN, orders),
    }
    filled = (recommended[orders >= WELL_SOLD] >= 0).sum(axis=1)
    if len(filled):
        figures["with a list"] = float((filled > 0).mean())
        figures[f"fill rate@{SHOWN}"] = float(filled.mean() / SHOWN)
    return figures
