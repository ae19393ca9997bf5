"""A small publication, the API that serves it as a process of its own, and pages in Chromium."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from recsys_assets.local.redis import RedisServer
from recsys_assets.publish.names import hold_names
from serving.contract import (
    BecausePopular,
    BecauseRepeat,
    BecauseSimilar,
    ExampleUsers,
    Family,
    PairCount,
    Repeat,
    WeighedPurchase,
    encode_example_users,
    example_users_key,
)
from tests.published import THROUGH, Publisher
from tests.serving_processes import running

LARGE_ID = 2**53 + 1  # which no number of JavaScript is
MARKUP = "<img src=x onerror=alert(1)> & Söhne"
NAMES = {
    1: "Whole milk",
    2: "Oat milk",
    3: "Crème fraîche",
    4: "Rye bread",
    5: MARKUP,
    6: "Butter",
    LARGE_ID: "Honey",
}
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Site:
    """Where the page is, and the Redis that it is made of."""

    url: str
    redis_server: RedisServer


@contextmanager
def served(folder: Path) -> Iterator[Site]:
    """The API over a Redis of its own, stopped; who uses it starts and stops that."""
    server = RedisServer(folder / "redis", options={"appendonly": "yes"})
    with running(server.url, folder) as (client, _):
        yield Site(str(client.base_url), server)


def publish(redis_url: str) -> None:
    """Lists of the users 1 and 2, of guests, and of products, and the names."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        publisher = Publisher(client)
        for family in Family:
            publisher.record(family)
        publisher.top_buys(None, 4, 1, 6)
        publisher.top_buys(1, 1, 3, LARGE_ID, 5)
        publisher.because(
            1,
            {
                1: BecauseRepeat(7, THROUGH),
                3: BecauseSimilar([WeighedPurchase(2, 0.75), WeighedPurchase(4, 0.2)]),
                LARGE_ID: BecausePopular(),
            },
        )
        publisher.top_buys(2, 2, 6)
        bought = {"score": 2, "last_purchased_at": THROUGH}
        publisher.buy_again(
            1,
            Repeat(product_id=4, purchases=3, due_at=THROUGH, **bought),
            Repeat(product_id=6, purchases=1, due_at=None, **bought),
        )
        for product in NAMES:
            others = [other for other in NAMES if other != product]
            publisher.bought_together(product, *others)
        publisher.evidence(3, PairCount(1, 10, 40), baskets=200, orders=20)
        hold_names(client, {str(product): name for product, name in NAMES.items()})
        client.set(example_users_key(), encode_example_users(ExampleUsers(user_ids=[1, 2])))


class Watch:
    """What a page has complained of, and whom it has asked."""

    def __init__(self, page: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _heard(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)
