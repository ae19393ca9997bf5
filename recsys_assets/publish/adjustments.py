"""Lists as the shop wants them: products left out, scores multiplied, products put first.

In column space: products are positions in an index of ids. What the shop wants is read by
:mod:`recsys_assets.publish.merchandising` and :mod:`recsys_assets.catalogue`.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_assets.learn.matrix import Ids, positions
from recsys_assets.publish.merchandising import Rules, Scope
from serving.contract import Id

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Adjustments:
    """What is wanted in the lists of one scope, by position.

    Attributes:
        product_ids: [P + E], those that were given, then pinned products that are not among them.
        excluded: bool [P], what no list has: blocked or unavailable.
        multiplier: float32 [P], what scores are multiplied by, above zero; 1 without a boost.
        pinned: int64 [k], positions in ``product_ids`` of what comes first, best first.
    """

    product_ids: Ids
    excluded: NDArray[np.bool_]
    multiplier: Floats
    pinned: Positions

    @property
    def is_empty(self) -> bool:
        """Whether lists stay as they are."""
        return not (len(self.pinned) or self.excluded.any() or (self.multiplier != 1).any())


def adjustments(
    rules: Rules, scope: Scope, unavailable: Ids, product_ids: Ids, owner: Id | None = None
) -> Adjustments:
    """What is wanted in the lists of ``scope``, or in the Bought Together list of ``owner``.

    ``unavailable`` is ascending, ``product_ids`` [P] in any order. Pins that are unavailable are
    left out.
    """
    wishes = rules.of(scope, owner)
    excluded = is_among(unavailable, product_ids)
    excluded |= is_among(as_ids(sorted(wishes.blocked)), product_ids)

    boosted = sorted(wishes.boosts)
    factors = np.array([*(wishes.boosts[product] for product in boosted), 1], np.float32)
    multiplier = factors[positions(as_ids(boosted), product_ids)]

    wanted = as_ids(wishes.pinned)
    wanted = wanted[~is_among(unavailable, wanted)]
    ordered = as_ids(sorted(wanted.tolist()))
    column = np.full(len(ordered), -1)
    found = positions(ordered, product_ids)
    column[found[found >= 0]] = np.flatnonzero(found >= 0)
    new = column < 0
    column[new] = len(product_ids) + np.arange(new.sum())
    ids = np.concatenate([product_ids, ordered[new]]) if new.any() else product_ids
    return Adjustments(ids, excluded, multiplier, column[positions(ordered, wanted)])


def adjust_scores(scores: Floats, adjusted: Adjustments) -> None:
    """Change scores, rows x P, in place: those of boosted products, and of excluded ones to -inf.

    A score above zero is multiplied by the boost, one below is divided by it: a boost above 1 never
    makes a product worse.
    """
    boosted = np.flatnonzero(adjusted.multiplier != 1)
    if len(boosted):
        plain, boost = scores[:, boosted], adjusted.multiplier[boosted]
        scores[:, boosted] = np.where(plain > 0, plain * boost, plain / boost)
    scores[:, adjusted.excluded] = -np.inf


def place_pins(products: Positions, scores: Floats, pinned: Positions) -> tuple[Positions, Floats]:
    """Ranked lists, rows x N, with the pinned products in the first places; N stays.

    Scores still descend: that of a pin at place ``p`` of ``k``, from 0, is the best other score (0
    where there is none) plus ``k - p``. What was in the list anyway is in it once. A list that has
    ended has scores of minus infinity.
    """
    rows, n = products.shape
    pinned = pinned[:n]
    k = len(pinned)
    anyway = np.isin(products, pinned)
    others = np.argsort(anyway, axis=1, kind="stable")[:, : n - k]
    rest = np.take_along_axis(np.where(anyway, -np.inf, scores), others, axis=1)
    best = rest[:, :1] if k < n else np.zeros((rows, 1), scores.dtype)
    best = np.where(np.isfinite(best), best, 0)
    above = best + np.arange(k, 0, -1, dtype=scores.dtype)
    return (
        np.hstack([np.tile(pinned, (rows, 1)), np.take_along_axis(products, others, axis=1)]),
        np.hstack([above, rest]).astype(scores.dtype),
    )


def is_among(ids: Ids, wanted: Ids) -> NDArray[np.bool_]:
    """For each of ``wanted`` whether it is one of the ascending ``ids``."""
    return positions(ids, wanted) >= 0


def as_ids(values: Collection[Id]) -> Ids:
    """Ids as an array, in the order given."""
    if all(isinstance(value, int) for value in values):
        return np.array(list(values), np.int64)
    return np.array(list(values), object)
