"""Borrowing: a product without a rule of its own gets what goes with its category.

Here belongs what a borrowed list is; which products have which category, the caller knows. Arrays
only, as in `rules`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_assets.learn.rules import TopConsequents


@dataclass(frozen=True)
class Borrowed:
    """Lists of which some are borrowed.

    Attributes:
        top: the lists of all products; the ``rules`` of borrowed entries are -1, for they rest on
            no single rule.
        borrowed: bool [P], the products whose list is their category's.
    """

    top: TopConsequents
    borrowed: NDArray[np.bool_]


def borrow(
    top: TopConsequents,
    categories: NDArray[np.int64],
    product_orders: NDArray[Any],
    top_n: int,
    excluded: NDArray[np.bool_] | None = None,
) -> Borrowed:
    """Give each product that was sold but has no list that of its category.

    The strength of a product with a category is the mean of its strengths with the category's
    products that have a list, 0 with those whose list lacks it: what is to be expected of a product
    of which nothing is known but the category. A product is not in its own list.

    Args:
        top: lists of P products.
        categories: int64 [P], a number from 0 for the category of each product; -1: none.
        product_orders: int [P], orders with each product.
        top_n: length of a borrowed list, at most.
        excluded: bool [P], what no borrowed list has; None: nothing.

    Returns:
        The lists there were, unchanged, and the borrowed ones, strongest first; equal strengths by
        product index. Products without category, or of one in which nothing has a list, get none.

    Raises:
        ValueError: a category or a number of orders is needed for each product.
    """
    n_products = len(top.indptr) - 1
    if not len(categories) == len(product_orders) == n_products:
        raise ValueError(
            f"{len(categories)} categories and {len(product_orders)} numbers of orders for"
            f" {n_products} products"
        )
    own = np.diff(top.indptr)
    # One more than is shown: the product itself may be in its category's list.
    of_categories = _category_lists(top, categories, top_n + 1, excluded)
    wanting = (own == 0) & (product_orders > 0) & (categories >= 0)
    borrowers = np.flatnonzero(wanting)
    owner, row = _rows_of(of_categories.indptr, categories[borrowers])
    owner = borrowers[owner]
    is_other = of_categories.consequents[row] != owner
    owner, row = owner[is_other], row[is_other]
    shown = np.arange(len(owner)) - np.searchsorted(owner, owner) < top_n
    owner, row = owner[shown], row[shown]

    borrowed_lengths = np.bincount(owner, minlength=n_products)
    list_of = np.concatenate([np.repeat(np.arange(n_products), own), owner])
    order = np.argsort(list_of, kind="stable")
    joined = TopConsequents(
        indptr=np.concatenate([[0], np.cumsum(own + borrowed_lengths)]),
        consequents=np.concatenate([top.consequents, of_categories.consequents[row]])[order],
        strengths=np.concatenate([top.strengths, of_categories.strengths[row]])[order],
        rules=np.concatenate([top.rules, np.full(len(row), -1, np.int64)])[order],
    )
    return Borrowed(joined, borrowed_lengths > 0)


def _category_lists(
    top: TopConsequents,
    categories: NDArray[np.int64],
    top_n: int,
    excluded: NDArray[np.bool_] | None,
) -> TopConsequents:
    """A list per category: the consequents that are strongest on average of its products."""
    n_products, n_categories = len(categories), int(categories.max(initial=-1)) + 1
    known = np.flatnonzero((categories >= 0) & (np.diff(top.indptr) > 0))
    members = np.bincount(categories[known], minlength=n_categories)
    weights = sparse.csr_array(
        (1 / members[categories[known]], (categories[known], known)),
        shape=(n_categories, n_products),
    )
    lists = sparse.csr_array(
        (top.strengths, top.consequents, top.indptr), shape=(n_products, n_products)
    )
    means = sparse.coo_array(weights @ lists)
    order = np.lexsort((means.col, -means.data, means.row))
    if excluded is not None:
        order = order[~excluded[means.col[order]]]
    category = means.row[order]
    shown = np.arange(len(order)) - np.searchsorted(category, category) < top_n
    order, category = order[shown], category[shown]
    return TopConsequents(
        indptr=np.concatenate([[0], np.cumsum(np.bincount(category, minlength=n_categories))]),
        consequents=means.col[order].astype(np.int32),
        strengths=means.data[order],
        rules=np.full(len(order), -1, np.int64),
    )


def _rows_of(
    indptr: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All rows of some groups of a CSR: the place among ``groups`` of each, and the row."""
    lengths = np.diff(indptr)[groups]
    place = np.repeat(np.arange(len(groups)), lengths)
    within = np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return place, indptr[groups][place] + within
