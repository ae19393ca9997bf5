"""Lists of a made-up shop in Redis, encoded and published as those of a real one."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import numpy as np

from recsys_assets.publish.redis_writer import Edition, connect, publish
from serving import contract
from serving.contract import Family, Pairing, ScoredProduct, Source, TopBuys

USERS = 2_000
PRODUCTS = 2_000
TOP_BUYS = 120  # products of a list, as published by default
PAIRINGS = 60

MOMENT = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)
EDITION = Edition("20250301T030000.000000Z", MOMENT, MOMENT)


def fill(redis_url: str) -> None:
    """Publish the lists of users 1 to ``USERS``, the guests' and those of all products."""
    chance = np.random.default_rng(1)
    users, products = np.arange(1, USERS + 1), np.arange(1, PRODUCTS + 1)
    with closing(connect(redis_url)) as client:
        publish(client, Family.USER_TOP_BUYS, EDITION, _user_lists(chance), users)
        guests = contract.global_top_buys_key(), _top_buys(chance, "global")
        publish(client, Family.GLOBAL_TOP_BUYS, EDITION, [guests], products[:0])
        publish(client, Family.BOUGHT_TOGETHER, EDITION, _product_lists(chance), products)


def _user_lists(chance: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    for user in range(1, USERS + 1):
        yield contract.user_top_buys_key(user), _top_buys(chance, "personal")


def _top_buys(chance: np.random.Generator, source: Source) -> bytes:
    chosen = chance.choice(PRODUCTS, TOP_BUYS, replace=False) + 1
    scores = np.round(-np.sort(-chance.random(TOP_BUYS) * 10), 6)
    return contract.encode_top_buys(
        TopBuys(
            source=source,
            model_version=EDITION.model_version,
            generated_at=EDITION.generated_at,
            orders_through=EDITION.orders_through,
            products=list(map(ScoredProduct, chosen.tolist(), scores.tolist())),
        )
    )


def _product_lists(chance: np.random.Generator) -> Iterator[tuple[str, Any]]:
    for product in range(1, PRODUCTS + 1):
        chosen = chance.choice(PRODUCTS, PAIRINGS, replace=False) + 1
        strengths = np.round(chance.random(PAIRINGS) * 10, 6)
        pairings = map(Pairing, chosen.tolist(), strengths.tolist())
        yield contract.bought_together_key(product), contract.encode_pairings(pairings)
