"""The users' Top Buys as Redis holds them: keys and values of blended lists."""

from collections.abc import Iterable, Iterator

import numpy as np

from recsys_assets.learn.blending import TopLists
from recsys_assets.learn.matrix import Ids
from recsys_assets.publish.redis_writer import Edition
from serving import contract
from serving.contract import ScoredProduct, Source, TopBuys


def personal_lists(
    lists: Iterable[TopLists],
    user_ids: Ids,
    product_ids: Ids,
    edition: Edition,
    source: Source = "personal",
) -> Iterator[tuple[str, bytes]]:
    """Redis keys and values of the users' lists; users whose ids no key can hold are left out."""
    for block in lists:
        users = user_ids[block.first_row : block.first_row + len(block.products)].tolist()
        lengths = np.isfinite(block.scores).sum(axis=1).tolist()
        products = product_ids[block.products].tolist()
        scores = np.round(block.scores.astype(np.float64), 6).tolist()
        for user, length, best, their in zip(users, lengths, products, scores, strict=True):
            if not contract.is_id(user):
                continue
            value = TopBuys(
                source=source,
                model_version=edition.model_version,
                generated_at=edition.generated_at,
                orders_through=edition.orders_through,
                products=list(map(ScoredProduct, best[:length], their[:length])),
            )
            yield contract.user_top_buys_key(user), contract.encode_top_buys(value)
