"""The counts behind the lists of Bought Together, and what two products of a cart lead to.

Both are of the rules that the lists are of, in keys of their own.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recsys_assets.learn.matrix import Ids
from recsys_assets.learn.rules import BasketRules, TopConsequents
from recsys_assets.publish.adjustments import Adjustments
from serving import contract
from serving.contract import Evidence, Family, Id, PairCount, Pairing


def evidence_values(
    rules: BasketRules,
    top: TopConsequents,
    model_version: str,
    *,
    product_ids: Ids | None = None,
    borrowed: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Redis keys and values of the counts behind each product's list, in the list's order.

    Support, confidence, lift and strength follow from them. Products are left out as
    ``pairing_lists`` leaves them out, and so are pairings that were not mined.

    Args:
        rules: mined rules.
        top: the lists; -1 among their ``rules`` for what was not mined.
        model_version: of the rules.
        product_ids: int64 or str [P], what the products of ``top`` are indices into; None: those of
            the rules. If given, they begin with those.
        borrowed: bool [P], products whose list is by rules that have their category as antecedent;
            None: none is.
    """
    product_ids = rules.product_ids if product_ids is None else product_ids
    ids = product_ids.tolist()
    usable = np.fromiter(map(contract.is_id, ids), bool, len(ids))
    borrowed = np.zeros(len(ids), bool) if borrowed is None else borrowed
    top = _mined(top)
    consequents = top.consequents.tolist()
    orders = rules.orders[top.rules].tolist()
    product_orders = rules.product_orders[top.consequents].tolist()
    # n / (n / n_a): the orders with the antecedent, be it a product or a category.
    antecedent_orders = np.rint(rules.orders[top.rules] / rules.confidence[top.rules]).astype(int)
    for product in np.flatnonzero((np.diff(top.indptr) > 0) & usable).tolist():
        rows = slice(top.indptr[product], top.indptr[product + 1])
        numbers = zip(consequents[rows], orders[rows], product_orders[rows], strict=True)
        counts = [PairCount(ids[other], *their) for other, *their in numbers if usable[other]]
        if counts:
            value = Evidence(
                model_version=model_version,
                baskets=rules.n_orders,
                orders=int(antecedent_orders[rows.start]),
                products=counts,
                borrowed=bool(borrowed[product]),
            )
            key = contract.list_key(Family.BOUGHT_TOGETHER_EVIDENCE, ids[product])
            yield key, contract.encode_evidence(value)


def _mined(top: TopConsequents) -> TopConsequents:
    """The lists without what was not mined."""
    mined = top.rules >= 0
    before = np.concatenate([[0], np.cumsum(mined)])
    return TopConsequents(
        before[top.indptr], top.consequents[mined], top.strengths[mined], top.rules[mined]
    )


def also_values(
    rules: BasketRules,
    adjusted: Adjustments | None = None,
    *,
    most: int = 10,
    min_orders: int = 1,
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Redis keys and hashes of what two products lead to together: field and value of each pair.

    Of every pair of antecedents the ``most`` strongest consequents, by rules that rest on
    ``min_orders`` at least; equal strengths by more orders, then by product index. Rules with a
    product whose id no key can hold are left out. Where only pairs were mined there is no hash.

    Args:
        rules: mined rules.
        adjusted: what the shop wants in Bought Together, over the products of ``rules``: excluded
            consequents are left out, strengths multiplied. Pins are of single products' lists, and
            in none of a pair. None: nothing.
        most: consequents of a pair, at most.
        min_orders: orders that a rule rests on, at least.
    """
    ids = rules.product_ids.tolist()
    rows = _rules_of_two(rules, ids, adjusted, min_orders)
    if len(rows) == 0:
        return
    consequent, strength = rules.consequent[rows], rules.strength[rows]
    if adjusted is not None:
        strength = strength * adjusted.multiplier[consequent]
    first, second = _in_order_of_text(rules.antecedents[rows, :2], ids).T
    order = np.lexsort((consequent, -rules.orders[rows], -strength, second, first))
    order = order[_places(first[order], second[order]) < most]
    first, second, consequent = first[order], second[order], consequent[order].tolist()
    strengths = np.round(strength[order], 6).tolist()
    hashes = np.flatnonzero(np.diff(first, prepend=-1, append=-1))
    for start, end in pairwise(hashes.tolist()):
        pairings: dict[str, list[Pairing]] = {}
        for row in range(start, end):
            key, field = contract.also_key_and_field(ids[first[row]], ids[second[row]])
            pairing = Pairing(ids[consequent[row]], strengths[row])
            pairings.setdefault(field, []).append(pairing)
        yield key, {field: contract.encode_also(their) for field, their in pairings.items()}


def _rules_of_two(
    rules: BasketRules, ids: list[Id], adjusted: Adjustments | None, min_orders: int
) -> NDArray[np.int64]:
    """The rows of rules with two antecedents that may be shown."""
    usable = np.fromiter(map(contract.is_id, ids), bool, len(ids))
    shown = usable if adjusted is None else usable & ~adjusted.excluded
    is_of_two = (rules.antecedents >= 0).sum(axis=1) == 2
    rows = np.flatnonzero(is_of_two & shown[rules.consequent] & (rules.orders >= min_orders))
    kept: NDArray[np.int64] = rows[usable[rules.antecedents[rows, :2]].all(axis=1)]
    return kept


def _in_order_of_text(pairs: NDArray[np.int32], ids: list[Id]) -> NDArray[np.int32]:
    """Product indices, rows x 2, each row with the id first whose text is the smaller one."""
    by_text = sorted(range(len(ids)), key=lambda product: str(ids[product]))
    rank = np.empty(len(ids), np.int64)
    rank[by_text] = np.arange(len(ids))
    in_order: NDArray[np.int32] = np.take_along_axis(pairs, np.argsort(rank[pairs], axis=1), axis=1)
    return in_order


def _places(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.int64]:
    """The place of each row among those of the same pair, which stand together."""
    is_new = (np.diff(first, prepend=-1) != 0) | (np.diff(second, prepend=-1) != 0)
    start_of: NDArray[np.int64] = np.flatnonzero(is_new)[np.cumsum(is_new) - 1]
    return np.arange(len(first)) - start_of
