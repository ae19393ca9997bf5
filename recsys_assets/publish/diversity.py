"""Diversity: no more than a few products of one category in a list."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CategoryCap:
    """Of each category at most ``most`` products in a list.

    ``categories`` is int64 [P], a number for the category of each product; -1: none, never capped.
    """

    categories: Ints
    most: int


@dataclass(frozen=True)
class CappedLists:
    """Ranked lists of at most ``n`` products, and which of them want more candidates.

    Attributes:
        products: int64 [rows, n], positions, best first; 0 where a list has ended.
        scores: float [rows, n]; minus infinity where a list has ended.
        is_short: bool [rows], lists that ended because all candidates given were used up, though
            there may be more: give these rows twice as many.
    """

    products: Ints
    scores: NDArray[Any]
    is_short: NDArray[np.bool_]


def cap_per_category(
    products: Ints, scores: NDArray[Any], categories: Ints, most: int, n: int
) -> CappedLists:
    """The first ``n`` of each ranked list that has no more than ``most`` of any category.

    Args:
        products: int64 [rows, M], positions, M >= n: candidates for the lists, best first.
        scores: float [rows, M], not finite where there are no further candidates.
        categories: int64 [P], the category of each product; -1: none, never capped.
        most: products of one category, at least 1.
        n: products in a list.
    """
    rows, candidates = products.shape
    exists = np.isfinite(scores)
    lists = np.repeat(np.arange(rows), candidates)
    capped = within_cap(lists, np.where(exists, categories[products], -1).ravel(), most)
    kept = exists & capped.reshape(rows, candidates)
    place = np.cumsum(kept, axis=1) - 1
    kept &= place < n
    row, column = np.nonzero(kept)
    best, values = np.zeros((rows, n), np.int64), np.full((rows, n), -np.inf, scores.dtype)
    best[row, place[row, column]] = products[row, column]
    values[row, place[row, column]] = scores[row, column]
    return CappedLists(best, values, (kept.sum(axis=1) < n) & exists.all(axis=1))


def within_cap(lists: Ints, categories: Ints, most: int) -> NDArray[np.bool_]:
    """For entries of lists whether they are among the first ``most`` of their category there.

    Args:
        lists: int64 [L], the number of each entry's list; entries of a list are best first.
        categories: int64 [L], the category of each entry; -1: none, always within.
        most: entries of one category in a list.
    """
    group = lists * (categories.max(initial=-1) + 2) + categories + 1
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered)
    within: NDArray[np.bool_] = (rank < most) | (categories < 0)
    return within
