"""How lists are taken from scores where the shop wants more than the best: see `adjustments`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_assets.catalogue import categories, refresh_unavailable, unavailable_ids
from recsys_assets.learn.blending import Select, top_n
from recsys_assets.learn.matrix import Ids
from recsys_assets.publish.adjustments import (
    Adjustments,
    adjust_scores,
    adjustments,
    place_pins,
)
from recsys_assets.publish.diversity import cap_per_category
from recsys_assets.publish.merchandising import BadRow, Rules, Scope, read_rules
from recsys_assets.shop_session import ShopSession

CANDIDATES_PER_PLACE = 4


@dataclass(frozen=True)
class Assortment:
    """What the shop wants in lists at one moment.

    ``unavailable`` are ids, ascending. ``most_per_category`` caps each category in a list, by
    ``category``, which gives the categories of products, int64, -1 for none; None: no cap.
    ``skipped`` are the rows of the shop's rules that are none.
    """

    rules: Rules
    unavailable: Ids
    most_per_category: int | None
    category: Callable[[Ids], NDArray[np.int64]]
    skipped: tuple[BadRow, ...] = ()

    def adjusted(self, scope: Scope, product_ids: Ids) -> Adjustments:
        """What is wanted in the lists of a scope, over an index of products."""
        return adjustments(self.rules, scope, self.unavailable, product_ids)


def read_assortment(session: ShopSession) -> Assortment:
    """What the shop wants now, by our tables and its own."""
    rules, skipped = read_rules(session, datetime.now(UTC))
    return Assortment(
        rules,
        unavailable_ids(session),
        session.most_per_category,
        lambda product_ids: categories(session, product_ids),
        tuple(skipped),
    )


def current_assortment(session: ShopSession) -> Assortment:
    """The same, once our table of unavailable products was brought up to the shop's."""
    refresh_unavailable(session.connection, session.shop)
    return read_assortment(session)


def selection(assortment: Assortment, scope: Scope, product_ids: Ids) -> tuple[Select, Adjustments]:
    """How lists of a scope are taken from scores, a column for each product, and what is adjusted.

    Positions in the lists are those of the adjustments' ids, which begin with the ones given.
    """
    adjusted = assortment.adjusted(scope, product_ids)
    most = assortment.most_per_category
    category = assortment.category(product_ids) if most else None
    pinned = adjusted.pinned[adjusted.pinned < len(product_ids)]

    def select(
        scores: NDArray[np.float32], n: int, order: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        adjust_scores(scores, adjusted)
        scores[:, pinned] = -np.inf  # they come first anyway, and count for no category
        if category is None or most is None:
            products, values = top_n(scores, n, order)
        else:
            products, values = _capped(scores, n, order, category, most)
        if len(adjusted.pinned):
            return place_pins(products, values, adjusted.pinned)
        return products, values

    return (top_n if adjusted.is_empty and not most else select), adjusted


def _capped(
    scores: NDArray[np.float32],
    n: int,
    order: NDArray[np.int64],
    category: NDArray[np.int64],
    most: int,
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The best ``n`` with at most ``most`` of a category, from as many candidates as needed."""
    columns = scores.shape[1]
    m = min(columns, CANDIDATES_PER_PLACE * n)
    lists = cap_per_category(*top_n(scores, m, order), category, most, n)
    products, values, short = lists.products, lists.scores, np.flatnonzero(lists.is_short)
    while len(short) and m < columns:
        m = min(columns, 2 * m)
        lists = cap_per_category(*top_n(scores[short], m, order), category, most, n)
        products[short], values[short] = lists.products, lists.scores
        short = short[lists.is_short]
    return products, values
