"""Rules between products - orders with the antecedents tend to have the consequent - and lists.

With ``n`` the orders that have all products of a rule, ``n_a`` those with the antecedents, ``n_c``
those with the consequent, and ``N`` all baskets:

- support ``n / N``, confidence ``n / n_a`` (Agrawal, Imielinski and Swami, 1993);
- lift ``n / E`` with ``E = n_a * n_c / N``, the orders that chance alone would give (Brin, Motwani,
  Ullman and Tsur, 1997, who call it interest);
- strength ``n / (E + k + q * n_a)``, the lift shrunk towards 0 where ``E`` is small, as in the
  gamma-Poisson model of DuMouchel (1999). Raw lift puts pairs first that met once by accident;
  strength does not. It is the confidence over ``n_c / N + q + k / n_a``: ``k`` holds down
  antecedents of few orders, ``q`` what consequents gain by being rare. Being below ``1 / q``
  whatever the antecedent, strengths of several can be combined for a cart.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_assets.learn.itemsets import Itemsets
from recsys_assets.learn.matrix import Ids

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BasketRules:
    """Rules "orders with the antecedents have the consequent", columnar: one row per rule.

    Attributes:
        product_ids: int64 or str [P]; products elsewhere are indices into this.
        product_orders: int32 [P], orders with each product.
        n_orders: all orders, ``N``.
        shrinkage: ``k`` of the strength, in orders.
        antecedents: int32 [R, A], ascending within a row; -1 where a rule has fewer than ``A``.
        consequent: int32 [R].
        orders: int32 [R], orders with the antecedents and the consequent, ``n``.
        support: float64 [R], ``n / N``.
        confidence: float64 [R], ``n / n_a``.
        lift: float64 [R], ``n / E``, ``E = n_a * n_c / N``.
        strength: float64 [R], ``n / (E + k + q * n_a)``.
        antecedent_shrinkage: ``q`` of the strength, a share of the orders with the antecedents.
    """

    product_ids: Ids
    product_orders: Ints
    n_orders: int
    shrinkage: float
    antecedents: Ints
    consequent: Ints
    orders: Ints
    support: Floats
    confidence: Floats
    lift: Floats
    strength: Floats
    antecedent_shrinkage: float = 0.0


def rules_from_itemsets(
    itemsets: Itemsets, shrinkage: float = 10.0, antecedent_shrinkage: float = 0.0
) -> BasketRules:
    """Every rule with one consequent: from an itemset of size s, s rules.

    Args:
        itemsets: frequent itemsets, with all their subsets (as ``frequent_itemsets`` returns).
        shrinkage: ``k`` of the strength, in orders, 0 or more.
        antecedent_shrinkage: ``q`` of the strength, a share of the orders with the antecedents, 0
            or more. Both 0 give the raw lift.

    Raises:
        ValueError: a negative shrinkage of either kind.
    """
    if shrinkage < 0:
        raise ValueError(f"shrinkage is {shrinkage}; it is a number of orders, 0 or more")
    if antecedent_shrinkage < 0:
        raise ValueError(
            f"antecedent_shrinkage is {antecedent_shrinkage}; it is a share of orders, 0 or more"
        )
    antecedents, consequent, orders, antecedent_orders = (
        np.concatenate(columns) for columns in zip(*_rule_columns(itemsets), strict=True)
    )
    by_chance = (
        antecedent_orders.astype(np.float64)
        * itemsets.product_orders[consequent]
        / max(itemsets.n_orders, 1)
    )
    return BasketRules(
        product_ids=itemsets.product_ids,
        product_orders=itemsets.product_orders,
        n_orders=itemsets.n_orders,
        shrinkage=shrinkage,
        antecedents=antecedents,
        consequent=consequent,
        orders=orders,
        support=orders / max(itemsets.n_orders, 1),
        confidence=orders / antecedent_orders,
        lift=orders / by_chance,
        strength=orders / (by_chance + shrinkage + antecedent_shrinkage * antecedent_orders),
        antecedent_shrinkage=antecedent_shrinkage,
    )


def _rule_columns(itemsets: Itemsets) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """Antecedents, consequent, orders with all and orders with the antecedents, in parts."""
    width = max(len(itemsets.members) - 1, 1)
    none = np.empty(0, np.int32)
    yield np.empty((0, width), np.int32), none, none, none
    for size in range(2, len(itemsets.members) + 1):
        members, orders = itemsets.members[size - 1], itemsets.orders[size - 1]
        for place in range(size):
            antecedents = np.delete(members, place, axis=1)
            antecedent_orders = itemsets.orders[size - 2][_row_of(itemsets, antecedents)]
            padding = ((0, 0), (0, width - antecedents.shape[1]))
            padded = np.pad(antecedents, padding, constant_values=-1)
            yield padded, members[:, place], orders, antecedent_orders


def _row_of(itemsets: Itemsets, sets: Ints) -> NDArray[np.int64]:
    """Row of each set, int32 [Q, size], among the frequent itemsets of its size.

    A set is found from its prefix: (row of the first size - 1 members, last member) is one number
    and these numbers ascend, since rows are in lexicographic order.
    """
    n_products = len(itemsets.product_ids)

    def codes(prefix_rows: Any, members: Ints) -> Any:
        return prefix_rows * np.int64(n_products) + members[:, -1]

    if sets.shape[1] == 0:
        return np.zeros(len(sets), np.int64)
    members = itemsets.members[sets.shape[1] - 1]
    haystack = codes(_row_of(itemsets, members[:, :-1]), members)
    rows: NDArray[np.int64] = np.searchsorted(
        haystack, codes(_row_of(itemsets, sets[:, :-1]), sets)
    )
    return rows


@dataclass(frozen=True)
class TopConsequents:
    """A short list per product, as CSR: product p's are rows ``indptr[p]:indptr[p + 1]``.

    Attributes:
        indptr: int64 [P + 1].
        consequents: int32 [L], product indices, the strongest of each product first.
        strengths: float64 [L].
        rules: int64 [L], the row of each in the ``BasketRules`` it came from, for its evidence.
    """

    indptr: NDArray[np.int64]
    consequents: Ints
    strengths: Floats
    rules: NDArray[np.int64]


def top_consequents(rules: BasketRules, top_n: int, min_orders: int = 1) -> TopConsequents:
    """The ``top_n`` strongest consequents of each product, by rules with one antecedent.

    Args:
        rules: mined rules; those with several antecedents are passed over.
        top_n: length of a list, at most.
        min_orders: orders that a rule rests on, at least. Below the minimum of the mining it
            changes nothing.

    Returns:
        Lists by falling strength; equal strengths by more orders, then by product index.
    """
    one_antecedent = (rules.antecedents[:, 1:] == -1).all(axis=1)
    rows = np.flatnonzero(one_antecedent & (rules.orders >= min_orders))
    kept = _strongest(rules, rows, top_n)
    lengths = np.bincount(rules.antecedents[kept, 0], minlength=len(rules.product_ids))
    return TopConsequents(
        indptr=np.concatenate([[0], np.cumsum(lengths)]),
        consequents=rules.consequent[kept],
        strengths=rules.strength[kept],
        rules=kept,
    )


def strongest_rules(rules: BasketRules, most: int) -> BasketRules:
    """The ``most`` strongest rules of each set of antecedents, in their order among ``rules``.

    Ties are broken as by :func:`top_consequents`, whose lists of up to ``most`` stay the same.
    """
    kept = np.sort(_strongest(rules, np.arange(len(rules.orders)), most))
    return replace(rules, **{name: getattr(rules, name)[kept] for name in _COLUMNS})


_COLUMNS = ("antecedents", "consequent", "orders", "support", "confidence", "lift", "strength")


def _strongest(rules: BasketRules, rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Of these rows the ``most`` strongest of each set of antecedents, sets in ascending order."""
    ranking = (rules.consequent[rows], -rules.orders[rows], -rules.strength[rows])
    order = rows[np.lexsort((*ranking, *rules.antecedents[rows].T[::-1]))]
    antecedents = rules.antecedents[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (antecedents[1:] != antecedents[:-1]).any(axis=1)
    place = np.arange(len(order)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    strongest: NDArray[np.intp] = order[place < most]
    return strongest
