"""What users buy again: their own products, best first, each with the time at which it is due."""

from collections.abc import Iterator
from datetime import UTC
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_assets.learn.matrix import Histories
from recsys_assets.publish.adjustments import Adjustments
from recsys_assets.publish.redis_writer import Edition
from serving import contract
from serving.contract import BuyAgain, Family, Repeat

Positions = NDArray[np.int64]


def buy_again_lists(
    histories: Histories,
    own: csr_matrix,
    users: slice,
    adjusted: Adjustments,
    n: int,
    edition: Edition,
) -> Iterator[tuple[str, bytes]]:
    """Redis keys and values of what some users, rows of ``histories``, buy again.

    ``own`` are the scores of their purchases, CSR like the histories' weights. A list has up to
    ``n`` products, without those that ``adjusted`` excludes. The score is ``own``, boosted; that of
    a pin among the user's own, at place ``p`` of ``k``, is the best other one plus ``k - p``. Users
    whose ids no key can hold are left out.
    """
    lines, scores, lengths = _best(own, users, adjusted, n)
    products = histories.product_ids[own.indices[lines]].tolist()
    counts, last, due = histories.counts[lines].tolist(), histories.last, due_at(histories, lines)
    repeats = zip(
        products,
        np.round(scores.astype(np.float64), 6).tolist(),
        counts,
        last[lines].astype("datetime64[us]").tolist(),
        due.tolist(),
        strict=True,
    )
    for user, length in zip(histories.user_ids[users].tolist(), lengths.tolist(), strict=True):
        their = [
            Repeat(
                product_id=product,
                score=score,
                purchases=purchases,
                last_purchased_at=moment.replace(tzinfo=UTC),
                due_at=due_moment and due_moment.replace(tzinfo=UTC),
            )
            for product, score, purchases, moment, due_moment in islice(repeats, length)
        ]
        if contract.is_id(user):
            value = BuyAgain(
                model_version=edition.model_version,
                generated_at=edition.generated_at,
                orders_through=edition.orders_through,
                products=their,
            )
            yield contract.list_key(Family.USER_BUY_AGAIN, user), contract.encode_buy_again(value)


def due_at(histories: Histories, lines: Positions) -> NDArray[np.datetime64]:
    """When purchases are due: the mean interval between the user's own after the last of them.

    datetime64[us] of each of ``lines``, places in the histories' data; not a time (NaT) of what was
    bought once, or at one moment only.
    """
    first = histories.first[lines].astype("datetime64[us]")
    last = histories.last[lines].astype("datetime64[us]")
    intervals = np.maximum(histories.counts[lines] - 1, 1)
    due: NDArray[np.datetime64] = last + (last - first) // intervals
    due[due == last] = np.datetime64("NaT")
    return due


def _best(
    own: csr_matrix, users: slice, adjusted: Adjustments, n: int
) -> tuple[Positions, NDArray[np.float32], Positions]:
    """The best ``n`` lines of ``own`` of each user, list after list, their scores; the lengths."""
    ends = own.indptr[users.start : users.stop + 1]
    lines = np.arange(ends[0], ends[-1])
    row = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    kept = ~adjusted.excluded[own.indices[lines]]
    lines, row = lines[kept], row[kept]
    column = own.indices[lines]
    scores = own.data[lines] * adjusted.multiplier[column]
    pin = np.full(len(adjusted.excluded), len(adjusted.pinned))
    among = adjusted.pinned[adjusted.pinned < len(pin)]
    pin[among] = np.flatnonzero(adjusted.pinned < len(pin))
    pins = pin[column] < len(adjusted.pinned)
    best_other = np.zeros(len(ends) - 1, np.float32)
    np.maximum.at(best_other, row[~pins], scores[~pins])
    scores[pins] = best_other[row[pins]] + len(adjusted.pinned) - pin[column[pins]]
    order = np.lexsort((column, -scores, row))
    row = row[order]
    best = np.arange(len(row)) - np.searchsorted(row, row) < n
    lengths = np.bincount(row[best], minlength=len(ends) - 1)
    chosen = order[best]
    return lines[chosen], scores[chosen], lengths
