"""Bought Together: for every product with a rule, the products it is bought with."""

from collections.abc import Iterator

import numpy as np

from recsys_assets.learn.rules import BasketRules, TopConsequents
from serving import contract
from serving.contract import Pairing


def pairing_lists(
    rules: BasketRules, top: TopConsequents
) -> Iterator[tuple[str, dict[str, float]]]:
    """Redis keys and sorted sets of the products that have a list.

    Products whose ids no key can hold are left out, of the keys and of the lists.
    """
    ids = rules.product_ids.tolist()
    usable = np.fromiter(map(contract.is_id, ids), bool, len(ids))
    consequents = top.consequents.tolist()
    strengths = np.round(top.strengths, 6).tolist()
    for product in np.flatnonzero((np.diff(top.indptr) > 0) & usable).tolist():
        rows = slice(top.indptr[product], top.indptr[product + 1])
        pairings = [
            Pairing(ids[consequent], strength)
            for consequent, strength in zip(consequents[rows], strengths[rows], strict=True)
            if usable[consequent]
        ]
        if pairings:
            yield contract.bought_together_key(ids[product]), contract.encode_pairings(pairings)
