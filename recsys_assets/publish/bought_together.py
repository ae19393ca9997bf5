"""Bought Together: for every product with a rule, the products it is bought with."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_assets.learn.borrowing import borrow
from recsys_assets.learn.matrix import Ids
from recsys_assets.learn.rules import BasketRules, TopConsequents, top_consequents
from recsys_assets.publish.adjusted_pairings import adjust_pairings
from recsys_assets.publish.adjustments import Adjustments
from recsys_assets.publish.diversity import CategoryCap
from recsys_assets.publish.evidence import also_values, evidence_values
from recsys_assets.publish.merchandising import Scope
from recsys_assets.publish.redis_client import Client
from recsys_assets.publish.redis_pipe import set_write, write_all
from recsys_assets.publish.redis_room import Room, Value, room_for
from recsys_assets.publish.redis_writer import Edition, Progress, Published, finish, write
from recsys_assets.publish.selection import CANDIDATES_PER_PLACE, Assortment
from serving import contract
from serving.contract import Family, Id, Pairing

SAMPLE = 200


@dataclass(frozen=True)
class PairingLists:
    """The lists to publish, of and with products of ``product_ids``.

    ``borrowed`` is bool [P], products whose list is that of their category. ``adjusted`` is what
    the shop wants, over the products of ``rules``, and ``min_orders`` what a rule rests on, at
    least: so are rules with two antecedents chosen, which have no list in ``top``.
    """

    rules: BasketRules
    top: TopConsequents
    product_ids: Ids
    borrowed: NDArray[np.bool_]
    adjusted: Adjustments
    min_orders: int

    @property
    def listed(self) -> NDArray[np.int64]:
        """Positions of the products that have a list."""
        return np.flatnonzero(np.diff(self.top.indptr))

    def most_ordered(self, n: int) -> list[Id]:
        """Ids of the ``n`` products with most orders that have a list."""
        best = np.argsort(-self.rules.product_orders, kind="stable")
        ids: list[Id] = self.rules.product_ids[best[np.isin(best, self.listed)][:n]].tolist()
        return ids


def lists_from_rules(
    rules: BasketRules, assortment: Assortment, *, length: int, min_orders: int
) -> PairingLists:
    """The lists by rules that rest on ``min_orders``, as the shop wants them.

    Where the shop's products have categories, those without a rule of their own borrow.
    """
    categories = assortment.category(rules.product_ids)
    top = top_consequents(rules, len(rules.product_ids), min_orders)
    wanted = assortment.adjusted(Scope.BOUGHT_TOGETHER, rules.product_ids)
    most = assortment.most_per_category
    # More than is shown: the cap and rules for single lists leave some out, boosts move some up.
    candidates = CANDIDATES_PER_PLACE * length if assortment.rules.rules or most else length
    borrowed = borrow(top, categories, rules.product_orders, candidates, wanted.excluded)
    adjusted, product_ids = adjust_pairings(
        borrowed.top,
        assortment.rules,
        assortment.unavailable,
        rules.product_ids,
        length,
        CategoryCap(categories, most) if most else None,
    )
    borrowers = np.zeros(len(product_ids), bool)
    borrowers[: len(borrowed.borrowed)] = borrowed.borrowed
    return PairingLists(
        rules,
        adjusted,
        product_ids,
        borrowers & (np.diff(adjusted.indptr) > 0),
        wanted,
        min_orders,
    )


def room_for_pairings(client: Client, lists: PairingLists, length: int) -> Room:
    """The room in Redis for the lists and for what is published with them, by a sample of all."""
    step = max(1, len(lists.listed) // SAMPLE)
    pairings = list(islice(pairing_lists(lists), None, None, step))
    beside: list[tuple[str, Value]] = [
        *islice(evidence_of(lists, ""), None, None, step),
        *islice(also_of(lists), None, None, step),
    ]
    keys = len(lists.listed)
    return room_for(client, Family.BOUGHT_TOGETHER, pairings, keys, length, beside=beside)


def publish_pairings(
    client: Client,
    lists: PairingLists,
    edition: Edition,
    progress: Progress = lambda _: None,
) -> Published:
    """Publish the lists, what is behind them, and rules with two antecedents.

    Returns the numbers of lists written and removed.
    """
    borrowers = filter(contract.is_id, lists.product_ids[lists.borrowed].tolist())
    write_all(client, [set_write(contract.borrowed_key(), {*map(str, borrowers)})])
    ids = lists.product_ids
    published = _publish_all(
        client, Family.BOUGHT_TOGETHER, edition, pairing_lists(lists), ids, progress
    )
    evidence = evidence_of(lists, edition.model_version)
    _publish_all(client, Family.BOUGHT_TOGETHER_EVIDENCE, edition, evidence, ids)
    _publish_all(client, Family.BOUGHT_TOGETHER_ALSO, edition, also_of(lists), ids)
    return published


def evidence_of(lists: PairingLists, model_version: str) -> Iterator[tuple[str, bytes]]:
    """Redis keys and values of the counts behind the lists."""
    return evidence_values(
        lists.rules,
        lists.top,
        model_version,
        product_ids=lists.product_ids,
        borrowed=lists.borrowed,
    )


def also_of(lists: PairingLists) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Redis keys and hashes of what two products lead to together."""
    return also_values(lists.rules, lists.adjusted, min_orders=lists.min_orders)


def pairing_lists(lists: PairingLists) -> Iterator[tuple[str, dict[str, float]]]:
    """Redis keys and sorted sets of the products that have a list.

    Products whose ids no key can hold are left out, of the keys and of the lists.
    """
    top, ids = lists.top, lists.product_ids.tolist()
    usable = np.fromiter(map(contract.is_id, ids), bool, len(ids))
    consequents = top.consequents.tolist()
    strengths = np.round(top.strengths, 6).tolist()
    for product in lists.listed[usable[lists.listed]].tolist():
        rows = slice(top.indptr[product], top.indptr[product + 1])
        pairings = [
            Pairing(ids[consequent], strength)
            for consequent, strength in zip(consequents[rows], strengths[rows], strict=True)
            if usable[consequent]
        ]
        if pairings:
            yield contract.bought_together_key(ids[product]), contract.encode_pairings(pairings)


def _publish_all(
    client: Client,
    family: Family,
    edition: Edition,
    items: Iterable[tuple[str, Any]],
    product_ids: Ids,
    progress: Progress = lambda _: None,
) -> Published:
    """Publish a family whose keys are those of ``items``, and no other, of some ``product_ids``."""
    written: list[str] = []

    def noted() -> Iterator[tuple[str, Any]]:
        for key, value in items:
            written.append(contract.id_of_key(family, key))
            yield key, value

    keys = write(client, family, noted(), progress)
    kept: Ids = np.sort(np.array(written, product_ids.dtype))
    return finish(client, family, edition, kept, keys)
