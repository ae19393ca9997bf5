"""Twenty publications over one another, while the API and plain Redis are read all the time.

Versions alternate between two contents and two sets of ids that have most of them in common. Each
list says of which version it is, so that whatever is read can be held against all of that version.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from litestar.testing import TestClient

from recsys_assets.learn.matrix import Ids
from recsys_assets.publish.redis_reader import read_publication
from recsys_assets.publish.redis_writer import (
    Client,
    Edition,
    Published,
    batched,
    connect,
    finish,
    publish,
    write,
)
from serving.app import create_app
from serving.contract import (
    Family,
    Pairing,
    ScoredProduct,
    TopBuys,
    bought_together_key,
    decode_pairings,
    decode_top_buys,
    encode_pairings,
    encode_top_buys,
    user_top_buys_key,
)
from serving.settings import ServingSettings

PUBLICATIONS = 20
ALWAYS = list(range(1, 21))  # users and products that have a list in every version
ONLY = {0: list(range(21, 36)), 1: list(range(36, 51))}  # and those of even and odd versions
SHOWN = 100  # products that the API answers, at most
START = datetime(2025, 3, 1, tzinfo=UTC)


def edition(version: int) -> Edition:
    moment = START + timedelta(days=version)
    return Edition(f"v{version:02}", moment, moment)


def version_of(model_version: str) -> int:
    return int(model_version.removeprefix("v"))


def ids(version: int) -> Ids:
    return np.array(sorted(ALWAYS + ONLY[version % 2]), np.int64)


@cache
def user_list(version: int) -> TopBuys:
    products = range(1, 101) if version % 2 else range(1001, 1061)
    return TopBuys(
        source="personal",
        model_version=edition(version).model_version,
        generated_at=edition(version).generated_at,
        orders_through=edition(version).orders_through,
        products=[ScoredProduct(product, version + 1 / product) for product in products],
    )


@cache
def product_list(version: int) -> list[Pairing]:
    """A list of more than Redis reads from a connection at once: others get their turn between."""
    products = range(1, 801) if version % 2 else range(5001, 6001)
    return [Pairing(product, version + 1 / (1 + product)) for product in products]


def publish_users(client: Client, version: int) -> Published:
    """At once, or every third version in chunks."""
    value = encode_top_buys(user_list(version))
    items = [(user_top_buys_key(user), value) for user in ids(version).tolist()]
    family = Family.USER_TOP_BUYS
    if version % 3:
        return publish(client, family, edition(version), items, ids(version))
    keys = sum(write(client, family, chunk) for chunk in batched(items, 10))
    return finish(client, family, edition(version), ids(version), keys)


def publish_products(client: Client, version: int) -> Published:
    members = encode_pairings(product_list(version))
    items = ((bought_together_key(product), members) for product in ids(version).tolist())
    return publish(client, Family.BOUGHT_TOGETHER, edition(version), items, ids(version))


# --- What readers may see


class Observer:
    """Holds what is read against the versions, and keeps what it has seen last."""

    def __init__(self) -> None:
        self.recorded = 0
        self.seen: dict[int, int] = {}

    def record(self, model_version: str) -> None:
        """The record of a publication is read: from now on no list is older."""
        assert version_of(model_version) >= self.recorded, "the record goes back"
        self.recorded = version_of(model_version)

    def version(self, owner: int, version: int | None) -> None:
        """A complete list is read, or None where there is no key."""
        if version is None:
            assert owner not in ALWAYS, f"{owner} has no list, but has one in every version"
            return
        assert owner in ids(version), f"{owner} has a list of version {version}, which has none"
        assert version >= self.recorded, "the record is ahead of the lists"
        assert version >= self.seen.get(owner, 0), "a list goes back"
        self.seen[owner] = version


OWNERS = ALWAYS + ONLY[0] + ONLY[1]


def look_at_users(client: Client) -> Callable[[], None]:
    observer = Observer()

    def look() -> None:
        record = read_publication(client, Family.USER_TOP_BUYS)
        assert record is not None
        observer.record(record.model_version)
        assert record.keys == len(ids(observer.recorded))
        with client.pipeline(transaction=False) as pipeline:
            for user in OWNERS:
                pipeline.get(user_top_buys_key(user))
            lists = [decode_top_buys(data) if data else None for data in pipeline.execute()]
        for user, top_buys in zip(OWNERS, lists, strict=True):
            version = version_of(top_buys.model_version) if top_buys else None
            assert top_buys is None or top_buys == user_list(version or 0)
            observer.version(user, version)

    return look


def look_at_products(client: Client) -> Callable[[], None]:
    observer = Observer()
    turns = cycle(batched(OWNERS, 10))

    def look() -> None:
        record = read_publication(client, Family.BOUGHT_TOGETHER)
        assert record is not None
        observer.record(record.model_version)
        products = next(turns)
        with client.pipeline(transaction=False) as pipeline:
            for product in products:
                pipeline.zrevrange(bought_together_key(product), 0, -1, withscores=True)
            sets = pipeline.execute()
        for product, members in zip(products, sets, strict=True):
            version = int(members[0][1]) if members else None
            assert version is None or decode_pairings(members, "integer") == product_list(version)
            observer.version(product, version)

    return look


def look_through_the_api(api: TestClient[Any]) -> Callable[[], None]:
    users, products = Observer(), Observer()
    turns = cycle(OWNERS)

    def get(path: str, **parameters: Any) -> Any:
        response = api.get(path, params=parameters)
        assert response.status_code == 200
        return response.json()

    def look() -> None:
        families = get("/health/ready")["families"]
        users.record(families[Family.USER_TOP_BUYS]["model_version"])
        products.record(families[Family.BOUGHT_TOGETHER]["model_version"])
        owner = next(turns)
        answer = get("/api/recommendations/top-buys/", user_id=owner, limit=SHOWN)
        version = None
        if answer["source"] == "personal":
            version = version_of(answer["model_version"])
            expected = [(p.product_id, p.score) for p in user_list(version).products]
            assert [(p["product_id"], p["score"]) for p in answer["products"]] == expected
        users.version(owner, version)
        answer = get(f"/api/recommendations/bought-together/{owner}/", limit=SHOWN)
        version = None
        if answer["products"]:
            version = int(answer["products"][0]["strength"])
            pairs = [(p.product_id, p.strength) for p in product_list(version)[:SHOWN]]
            assert [(p["product_id"], p["strength"]) for p in answer["products"]] == pairs
        products.record(answer["model_version"])  # which was read before the list
        products.version(owner, version)

    return look


# --- Reading while it is published


class Reading(threading.Thread):
    """Looks again and again until it is stopped, or what it sees is wrong."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look
        self._stopped = False
        self._looked = threading.Semaphore(0)
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopped:
                self._look()
                self._looked.release()
        except BaseException as error:
            self.error = error
            self._looked.release()

    def check(self) -> None:
        """Wait until it has looked once more; raise what is wrong."""
        while self._looked.acquire(blocking=False):
            pass
        if self.error is None:
            self._looked.acquire()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self._stopped = True
        self.join()


@contextmanager
def reading(look: Callable[[], None]) -> Iterator[Reading]:
    reader = Reading(look)
    reader.start()
    try:
        yield reader
    finally:
        reader.stop()


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with closing(connect(redis_url)) as client:
        yield client


def test_readers_see_whole_lists_and_no_gaps(client: Client, redis_url: str) -> None:
    publish_users(client, 0)
    publish_products(client, 0)
    settings = ServingSettings(redis_url=redis_url, redis_timeout_ms=10_000)
    with ExitStack() as stack:
        users, products = (stack.enter_context(closing(connect(redis_url))) for _ in range(2))
        api = stack.enter_context(TestClient(create_app(settings)))
        looks = [look_at_users(users), look_at_products(products), look_through_the_api(api)]
        readers = [stack.enter_context(reading(look)) for look in looks]
        for version in range(1, PUBLICATIONS + 1):
            changed = Published(keys=len(ids(version)), removed=len(ONLY[0]))
            assert publish_users(client, version) == changed
            assert publish_products(client, version) == changed
            for reader in readers:
                reader.check()
    for reader in readers:
        assert reader.error is None
    assert {key.decode() for key in client.scan_iter()} == {
        "publication:user_top_buys",
        "publication:bought_together",
        *(user_top_buys_key(user) for user in ids(PUBLICATIONS).tolist()),
        *(bought_together_key(product) for product in ids(PUBLICATIONS).tolist()),
    }
