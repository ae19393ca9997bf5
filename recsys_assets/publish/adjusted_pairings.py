"""Bought Together as the shop wants it: pairings left out, strengthened, and put first."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_assets.learn.matrix import Ids, positions
from recsys_assets.learn.rules import TopConsequents
from recsys_assets.publish.adjustments import Adjustments, adjustments, as_ids
from recsys_assets.publish.diversity import CategoryCap, within_cap
from recsys_assets.publish.merchandising import Rules, Scope
from serving.contract import Id

Ints = NDArray[np.int64]
NO_RULE = -1
"""Stands for the mined rule of a pairing that was not mined but pinned."""


def adjust_pairings(
    top: TopConsequents,
    rules: Rules,
    unavailable: Ids,
    product_ids: Ids,
    n: int,
    cap: CategoryCap | None = None,
) -> tuple[TopConsequents, Ids]:
    """The lists of at most ``n`` products that the shop wants, out of those mined.

    Pins come first, in every list that was mined and in those of products that have pins of their
    own. The strength of a pin at place ``p`` of ``k``, from 0, is the best other one (0 where there
    is none) plus ``k - p``.

    Args:
        top: mined lists over ``product_ids``, longer than ``n`` by what may be left out.
        rules: the shop's.
        unavailable: ids, ascending.
        product_ids: [P], ascending.
        n: products in a list, at most.
        cap: how many of a category a list may have, over ``product_ids``; pins do not count.

    Returns:
        The lists, and the ids [P + E] they are over: ``product_ids``, then products that are pinned
        or have pins and are not among them. The ``rules`` of a pairing are -1 where it was not
        mined.
    """
    mined = _mined(top)
    family = adjustments(rules, Scope.BOUGHT_TOGETHER, unavailable, product_ids)
    excluded = family.excluded[mined.products]
    multiplier = family.multiplier[mined.products]
    pins: dict[Id, Ids] = {}
    for owner in rules.owners:
        (at,) = positions(product_ids, as_ids([owner]))
        rows = slice(0, 0) if at < 0 else slice(top.indptr[at], top.indptr[at + 1])
        listed = product_ids[mined.products[rows]]
        own = adjustments(rules, Scope.BOUGHT_TOGETHER, unavailable, listed, owner)
        excluded[rows], multiplier[rows] = own.excluded, own.multiplier
        pins[owner] = _pinned_ids(own)

    ids, pinned = _pinned(np.unique(mined.lists), product_ids, _pinned_ids(family), pins)
    codes, pinned_codes = mined.codes(len(ids)), pinned.codes(len(ids))
    order = np.argsort(codes)
    rules_of_pins = np.append(mined.rules[order], NO_RULE)[positions(codes[order], pinned_codes)]

    wanted = replace(mined, strengths=mined.strengths * multiplier)
    wanted = wanted[~excluded & ~np.isin(codes, pinned_codes)]
    wanted = wanted[np.lexsort((-wanted.strengths, wanted.lists))]
    if cap is not None:
        wanted = wanted[within_cap(wanted.lists, cap.categories[wanted.products], cap.most)]
    return _top(replace(pinned, rules=rules_of_pins), wanted, len(ids), n), ids


@dataclass(frozen=True)
class _Pairings:
    """Products in lists, columnar: one row for each."""

    lists: Ints
    products: Ints
    strengths: NDArray[np.float64]
    rules: Ints

    def __getitem__(self, rows: NDArray[Any]) -> "_Pairings":
        return _Pairings(
            self.lists[rows], self.products[rows], self.strengths[rows], self.rules[rows]
        )

    def codes(self, n_products: int) -> Ints:
        """A number for each pairing of a list and a product, both below ``n_products``."""
        codes: Ints = self.lists * n_products + self.products
        return codes


def _mined(top: TopConsequents) -> _Pairings:
    lists = np.repeat(np.arange(len(top.indptr) - 1), np.diff(top.indptr))
    return _Pairings(lists, top.consequents.astype(np.int64), top.strengths, top.rules)


def _pinned_ids(adjusted: Adjustments) -> Ids:
    return adjusted.product_ids[adjusted.pinned]


def _pinned(
    mined: Ints, product_ids: Ids, everywhere: Ids, own: Mapping[Id, Ids]
) -> tuple[Ids, _Pairings]:
    """All ids, and the pins of the ``mined`` lists and of those with their ``own`` pins.

    The strengths are ``k - p``; the rules are for the caller to find.
    """
    owners = [owner for owner, pins in own.items() if len(pins)]
    named = np.concatenate([everywhere, *own.values(), as_ids(owners)])
    new = np.unique(named[positions(product_ids, named) < 0]) if len(named) else product_ids[:0]

    def places(ids: Ids) -> Ints:
        known, others = positions(product_ids, ids), positions(new, ids)
        return np.where(known >= 0, known, len(product_ids) + others)

    # an owner without pins that is not among the products has no place
    others = np.setdiff1d(mined, positions(product_ids, as_ids(list(own))))
    lists, products, strengths = (
        [np.repeat(others, len(everywhere))],
        [np.tile(places(everywhere), len(others))],
        [np.tile(np.arange(len(everywhere), 0, -1), len(others))],
    )
    for owner in owners:
        lists.append(np.repeat(places(as_ids([owner])), len(own[owner])))
        products.append(places(own[owner]))
        strengths.append(np.arange(len(own[owner]), 0, -1))
    ids = np.concatenate([product_ids, new]) if len(new) else product_ids
    list_, product = np.concatenate(lists), np.concatenate(products)
    pins = _Pairings(list_, product, np.concatenate(strengths).astype(np.float64), list_)
    return ids, pins[list_ != product]


def _top(pinned: _Pairings, wanted: _Pairings, n_products: int, n: int) -> TopConsequents:
    """Lists of at most ``n``: the pins, above the other products, both with the best first."""
    best = np.zeros(n_products)
    np.maximum.at(best, wanted.lists, wanted.strengths)
    lists = np.concatenate([pinned.lists, wanted.lists])
    strengths = np.concatenate([pinned.strengths + best[pinned.lists], wanted.strengths])
    order = np.lexsort((-strengths, lists))
    lists = lists[order]
    first = np.arange(len(lists)) - np.searchsorted(lists, lists) < n
    rows = order[first]
    lengths = np.bincount(lists[first], minlength=n_products)
    return TopConsequents(
        indptr=np.concatenate([[0], np.cumsum(lengths)]),
        consequents=np.concatenate([pinned.products, wanted.products])[rows].astype(np.int32),
        strengths=strengths[rows],
        rules=np.concatenate([pinned.rules, wanted.rules])[rows],
    )
