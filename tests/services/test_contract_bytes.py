"""Whatever Redis holds under the keys of the contract, no request fails: it is answered, or 503."""

from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from serving.contract import (
    BecauseRepeat,
    ExampleUsers,
    Family,
    IdKind,
    PairCount,
    Pairing,
    Repeat,
    blocked_key,
    borrowed_key,
    bought_together_key,
    encode_example_users,
    example_users_key,
    global_top_buys_key,
    list_key,
    names_key,
    publication_key,
    search_key,
    search_members,
    unavailable_key,
    user_top_buys_key,
)
from tests.answers import BOUGHT_TOGETHER, BUY_AGAIN, TOP_BUYS, assert_publish_again, metrics_of
from tests.published import GENERATED, Publisher

OWN, EVERYBODY = f"{TOP_BUYS}?user_id=1", TOP_BUYS
PRODUCT = f"{BOUGHT_TOGETHER}5"
CART = f"{BOUGHT_TOGETHER}?product_id=5&product_id=6"
ROUTES = [
    EVERYBODY,
    OWN,
    f"{OWN}&explain=true&exclude=3",
    f"{BUY_AGAIN}?user_id=1",
    PRODUCT,
    f"{PRODUCT}?explain=true&exclude=3",
    f"{CART}&explain=true",
    "/api/explorer/products?search=milk",
    "/api/explorer/names?product_id=5&product_id=6",
    "/api/explorer/users",
    "/health/ready",
]
"""Together they read every key of :func:`publish`."""

STRINGS = [
    user_top_buys_key(1),
    list_key(Family.USER_TOP_BUYS_BECAUSE, 1),
    list_key(Family.USER_BUY_AGAIN, 1),
    global_top_buys_key(),
    list_key(Family.BOUGHT_TOGETHER_EVIDENCE, 5),
    example_users_key(),
    *map(publication_key, Family),
]
ALSO = list_key(Family.BOUGHT_TOGETHER_ALSO, 5)
SETS = [borrowed_key(), unavailable_key(), blocked_key()]
KEYS = [*STRINGS, ALSO, names_key(), bought_together_key(5), search_key(), *SETS]


class Change(NamedTuple):
    """What takes the place of a value, or of as many of its bytes from one on."""

    key: str
    data: bytes
    at: int | None = None
    """From which byte on; None: the whole value."""
    score: float = 1.0
    """Of what a sorted set holds."""


class Shop(NamedTuple):
    """What is published well, and what is not."""

    changes: list[Change]
    id_kind: IdKind = "integer"
    blocked: bool = False


# What breaks UTF-8, what breaks JSON, and what is JSON but no id, or too long for a parser.
PIECES = [b"\xff", b"\\q", b'"', b"}", b"-", b"007", b"9" * 25, b'""', b'"\\u0000"', b"[" * 9000]
changes = st.builds(
    Change,
    key=st.sampled_from(KEYS),
    data=st.sampled_from(PIECES) | st.binary(max_size=4),
    at=st.none() | st.integers(0, 300),
    score=st.floats(allow_nan=False),
)
shops = st.builds(
    Shop,
    st.lists(changes, min_size=1, max_size=3),
    st.sampled_from(["integer", "text"]),
    st.booleans(),
)


def publish(publisher: Publisher, id_kind: IdKind) -> None:
    """Something under every key of the contract."""
    client = publisher.client
    for family in Family:
        publisher.record(family, id_kind, model_version="rules-3")
    publisher.top_buys(None, 1, 2, pinned=[1])
    publisher.top_buys(1, 3, 4)
    publisher.because(1, {3: BecauseRepeat(2, GENERATED)})
    publisher.buy_again(
        1,
        Repeat(
            product_id=3,
            score=1.0,
            purchases=2,
            last_purchased_at=GENERATED,
            due_at=GENERATED + timedelta(days=1),
        ),
    )
    publisher.bought_together(5, 1, 3)
    publisher.evidence(5, PairCount(1, 10, 40), baskets=1000, orders=60)
    publisher.also(5, 6, Pairing(1, 2.0))
    publisher.borrow(6)
    client.sadd(unavailable_key(), 9)
    client.sadd(blocked_key(), 8)
    client.hset(names_key(), mapping={"5": "Milk", "6": "Bread"})
    client.zadd(search_key(), dict.fromkeys(search_members("Milk", 5), 0.0))
    client.set(example_users_key(), encode_example_users(ExampleUsers(user_ids=[1])))


def changed(value: bytes, change: Change) -> bytes:
    """The value after a change."""
    if change.at is None:
        return change.data
    at = change.at % (len(value) + 1)
    return value[:at] + change.data + value[at + len(change.data) :]


def make(client: Any, change: Change) -> None:
    """Change a value, or all values, of a key of any type."""
    key = change.key
    match client.type(key):
        case b"string":
            client.set(key, changed(client.get(key), change))
        case b"hash":
            values = client.hgetall(key).items()
            client.hset(key, mapping={name: changed(value, change) for name, value in values})
        case b"zset":
            members = [changed(member, change) for member in client.zrange(key, 0, -1)]
            client.zadd(key, dict.fromkeys(members, change.score))
        case b"set":
            client.sadd(key, *(changed(member, change) for member in client.smembers(key)))


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shop=shops)
@example(Shop([Change(bought_together_key(5), b"1", score=1e200)]))  # its square is too large
def test_no_bytes_make_a_request_fail(
    api: TestClient[Litestar], published: Publisher, shop: Shop
) -> None:
    published.client.flushall()
    publish(published, shop.id_kind)
    if not shop.blocked:
        published.client.delete(blocked_key(), unavailable_key())
    for change in shop.changes:
        make(published.client, change)
    for route in ROUTES:
        answer = api.get(route)
        assert answer.status_code in {200, 503}, (route, answer.text)
        if answer.status_code == 503:
            assert answer.headers["content-type"] == "application/problem+json"
            assert "Redis does not answer" not in answer.text
    metrics = api.get("/metrics")
    assert metrics.status_code == 200
    assert "recsys_http_requests_total{" in metrics.text


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize(
    ("key", "old", "new", "route"),
    [
        (user_top_buys_key(1), b"als-7", b"\xff", OWN),
        (user_top_buys_key(1), b"als-7", b"\xff", f"{OWN}&explain=true"),
        (user_top_buys_key(1), b'"product_id":3', b'"product_id":"\xff"', f"{OWN}&explain=true"),
        (list_key(Family.USER_BUY_AGAIN, 1), b"als-7", b"\xff", f"{BUY_AGAIN}?user_id=1"),
        (example_users_key(), b"[1]", b'["\xff"]', "/api/explorer/users"),
        (publication_key(Family.GLOBAL_TOP_BUYS), b"rules-3", b"\xff", "/health/ready"),
        (publication_key(Family.BOUGHT_TOGETHER), b"rules-3", b"\xff", PRODUCT),
        (bought_together_key(5), b"3", b"\xff", PRODUCT),
    ],
)
def test_what_is_no_utf8_is_told(
    api: TestClient[Litestar],
    published: Publisher,
    key: str,
    old: bytes,
    new: bytes,
    route: str,
    blocked: bool,
) -> None:
    publish(published, "text")
    if not blocked:
        published.client.delete(blocked_key(), unavailable_key())
    if key in STRINGS:
        put_in(published.client, key, old, new)
    else:
        published.client.zadd(key, {new: 1.0})
    assert_publish_again(api.get(route))


@pytest.mark.parametrize(
    ("old", "new"), [(b'"product_id":3', b'"product_id":"\\q"'), (b'"score":', b'"scor":')]
)
def test_a_product_that_is_none_is_told(
    api: TestClient[Litestar], published: Publisher, old: bytes, new: bytes
) -> None:
    publish(published, "integer")
    put_in(published.client, user_top_buys_key(1), old, new)
    assert_publish_again(api.get(OWN))


def test_a_record_that_cannot_be_read_hides_its_own_age_alone(
    api: TestClient[Litestar], published: Publisher
) -> None:
    publish(published, "integer")
    put_in(published.client, publication_key(Family.USER_TOP_BUYS), b"rules-3", b"\xff")
    ages = [name for name in metrics_of(api) if name.startswith("recsys_publication_age_seconds")]
    assert len(ages) == len(Family) - 1


def put_in(client: Any, key: str, old: bytes, new: bytes) -> None:
    """Put other bytes in the place of some of a value."""
    value = client.get(key)
    assert old in value
    client.set(key, value.replace(old, new))
