"""Why a product is in a user's Top Buys, worked out when the list is published.

Of each listed product the first of these that holds: the shop has pinned it; the user has bought it
before; some of their purchases speak for it in its score by ALS; it is popular.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_assets.learn.blending import TopLists
from recsys_assets.learn.explain import TopContributions
from recsys_assets.learn.matrix import Histories, Ids, positions
from recsys_assets.publish.redis_writer import Edition
from serving import contract
from serving.contract import (
    Because,
    BecausePinned,
    BecausePopular,
    BecauseRepeat,
    BecauseSimilar,
    Explained,
    Explanations,
    Family,
    WeighedPurchase,
)

Positions = NDArray[np.int64]
ExplainScores = Callable[[slice, Positions], TopContributions]
"""What contributes to the scores of some users, a slice of all, and their products, users x N."""

NOTHING: Positions = np.empty(0, np.int64)
_PINNED, _POPULAR = BecausePinned(), BecausePopular()
_REASONS_AT_ONCE = 2**15


def explanations(
    lists: Iterable[TopLists],
    histories: Histories,
    product_ids: Ids,
    edition: Edition,
    *,
    explain: ExplainScores | None = None,
    pinned: Positions = NOTHING,
) -> Iterator[tuple[str, bytes]]:
    """Redis keys and values of why the users' lists are as they are.

    ``histories`` are those of the lists' users. ``product_ids`` begin with theirs; what follows is
    of products that nobody among them has bought. ``explain`` tells what contributes to scores by
    ALS, None where no model made the lists; ``pinned`` are positions of the products that the shop
    has pinned. A purchase's weight is its part of all that speaks for the product, the
    contributions above zero: above 0 and up to 1, with three digits. Users whose ids no key can
    hold are left out.
    """
    for part in _parts(lists):
        users = slice(part.first_row, part.first_row + len(part.products))
        reasons = iter(_reasons(part, users, histories, product_ids, explain, pinned))
        lengths = np.isfinite(part.scores).sum(axis=1).tolist()
        products = product_ids[part.products].tolist()
        ids = histories.user_ids[users].tolist()
        for user, length, their in zip(ids, lengths, products, strict=True):
            because = list(map(Explained, their, islice(reasons, len(their))))
            if not contract.is_id(user):
                continue
            value = Explanations(
                model_version=edition.model_version,
                generated_at=edition.generated_at,
                because=because[:length],
            )
            key = contract.list_key(Family.USER_TOP_BUYS_BECAUSE, user)
            yield key, contract.encode_explanations(value)


def _parts(lists: Iterable[TopLists]) -> Iterator[TopLists]:
    """The same lists in blocks that bound the number of reasons in memory."""
    for block in lists:
        rows = max(1, _REASONS_AT_ONCE // max(1, block.products.shape[1]))
        for row in range(0, len(block.products), rows):
            part = slice(row, row + rows)
            yield TopLists(block.first_row + row, block.products[part], block.scores[part])


def _reasons(
    part: TopLists,
    users: slice,
    histories: Histories,
    product_ids: Ids,
    explain: ExplainScores | None,
    pinned: Positions,
) -> list[Because]:
    """Why each product is in its list, list after list."""
    is_pinned = np.isin(part.products, pinned)
    lines = np.where(is_pinned, -1, _lines(histories.weights, users, part.products))
    reasons: list[Because] = [_POPULAR] * part.products.size
    for place in np.flatnonzero(is_pinned).tolist():
        reasons[place] = _PINNED
    for place, repeat in _repeats(histories, lines.ravel()):
        reasons[place] = repeat
    if explain is not None:
        others = np.isfinite(part.scores) & ~is_pinned & (lines < 0)
        found = explain(users, np.where(others, part.products, -1))
        for place, similar in _similar(found, product_ids):
            reasons[place] = similar
    return reasons


def _lines(purchases: csr_matrix, users: slice, products: Positions) -> Positions:
    """Where the users' ``products``, users x N, stand in the data of all ``purchases``; else -1."""
    rows = len(products)
    columns = max(purchases.shape[1], products.max(initial=0) + 1)
    ends = purchases.indptr[users.start : users.stop + 1]
    row = np.repeat(np.arange(rows), np.diff(ends))
    bought = row * columns + purchases.indices[ends[0] : ends[-1]]
    wanted = np.arange(rows)[:, np.newaxis] * columns + products
    found = positions(bought, wanted.ravel()).reshape(products.shape)
    return np.where(found >= 0, found + ends[0], -1)


def _repeats(histories: Histories, lines: Positions) -> Iterator[tuple[int, BecauseRepeat]]:
    """Of the products that have a line in the histories, where they stand and their reason."""
    places = np.flatnonzero(lines >= 0)
    counts = histories.counts[lines[places]].tolist()
    moments = histories.last[lines[places]].astype("datetime64[us]").tolist()
    for place, purchases, moment in zip(places.tolist(), counts, moments, strict=True):
        yield place, BecauseRepeat(purchases, moment.replace(tzinfo=UTC))


def _similar(found: TopContributions, product_ids: Ids) -> Iterator[tuple[int, BecauseSimilar]]:
    """Of the products that purchases speak for, where they stand in the lists and their reason."""
    top = found.purchases.shape[-1]
    support = np.where(found.support > 0, found.support, 1).reshape(-1, 1)
    weights = np.round(found.contributions.reshape(-1, top) / support, 3)
    places = np.flatnonzero(weights[:, 0] > 0)
    purchases = product_ids[found.purchases.reshape(-1, top)[places]].tolist()
    for place, ids, parts in zip(places.tolist(), purchases, weights[places].tolist(), strict=True):
        weighed = zip(ids, parts, strict=True)
        yield place, BecauseSimilar([WeighedPurchase(i, w) for i, w in weighed if w > 0])
