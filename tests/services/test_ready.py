"""The short way gives the answers that the handlers give, whatever is stored."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import redis
from httpx import Response
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient
from msgspec import UNSET

from serving.app import create_app
from serving.contract import (
    SCHEMA_VERSION,
    Family,
    Id,
    Pairing,
    Publication,
    ScoredProduct,
    Source,
    TopBuys,
    blocked_key,
    borrowed_key,
    bought_together_key,
    encode_id,
    encode_pairings,
    encode_publication,
    encode_top_buys,
    global_top_buys_key,
    is_id,
    publication_key,
    unavailable_key,
    user_top_buys_key,
)
from serving.ready import ReadyLists
from serving.redis.reads import RedisReads
from serving.settings import ServingSettings
from serving.store import SPARE, RecommendationStore
from tests.answers import metrics_of
from tests.published import Publisher

TOP_BUYS = "/api/recommendations/top-buys"
BOUGHT_TOGETHER = "/api/recommendations/bought-together"
GENERATED = datetime(2025, 3, 1, 3, 0, tzinfo=UTC)

USUAL = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# What a list of JSON looks like where it is cut, and what JSON escapes.
MARKS = ['},{"product_id":1', '"products":[', '],"pinned":[', ',"score":', "]}", "\\", '"', "é漢🙂"]

texts = (
    st.sampled_from(MARKS)
    | st.text('ab0{}[],:"\\/é漢🙂 ', min_size=1, max_size=6)
    | st.text(min_size=1, max_size=12)
).filter(is_id)
# What the short way takes, and a few that it leaves alone.
asked_ids = st.sampled_from(["1", "7", "0", "-5", "007", "-0", "1.5", "9" * 19, "9" * 25, "a-b"])
asked_ids |= st.sampled_from(["x" * 200, "x" * 201, "a b", "é", "null", "true", "1e3", "~.~"])
limits = st.none() | st.integers(1, 100) | st.sampled_from([0, 101, -1])
moments = st.none() | st.datetimes(
    datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)
)
scores = st.floats(allow_nan=False, allow_infinity=False)
models = st.sampled_from(["als-7", "rules-3", 'odd"products":[', ""])


@st.composite
def id_lists(draw: st.DrawFn, max_size: int = 150) -> list[Id]:
    """Distinct ids, integers or texts."""
    if draw(st.booleans()):
        first = draw(st.integers(-(2**63), 2**63 - 1 - max_size))
        return list(range(first, first + draw(st.integers(0, max_size))))
    some = draw(st.lists(texts, max_size=8, unique=True))
    more = draw(st.integers(0, max_size - len(some)))
    return [*some, *(f"p{number}" for number in range(more))]


@st.composite
def top_buys(draw: st.DrawFn, *sources: Source) -> TopBuys:
    ids = draw(id_lists())
    first_scores = draw(st.lists(scores, max_size=5))
    return TopBuys(
        schema=draw(st.sampled_from([SCHEMA_VERSION] * 9 + [SCHEMA_VERSION + 1])),
        source=draw(st.sampled_from(sources)),
        model_version=draw(models),
        generated_at=GENERATED,
        orders_through=draw(moments),
        products=[
            ScoredProduct(id_, first_scores[rank] if rank < len(first_scores) else 1 / (rank + 1))
            for rank, id_ in enumerate(ids)
        ],
        pinned=draw(st.just(UNSET) | st.lists(texts | st.integers(), max_size=3)),
    )


@st.composite
def records(draw: st.DrawFn, family: Family) -> Publication | None:
    if draw(st.integers(0, 4)) == 0:
        return None
    return Publication(
        family=family,
        model_version=draw(models),
        generated_at=GENERATED,
        orders_through=draw(moments),
        finished_at=GENERATED,
        keys=1,
        id_kind=draw(st.sampled_from(["integer", "text"])),
    )


class Withheld(NamedTuple):
    """The ids in each set that withholds products."""

    blocked: list[Id]
    unavailable: list[Id]


@st.composite
def withheld(draw: st.DrawFn, ids: list[Id]) -> Withheld:
    """Nothing, the first so many of the ids, or some."""
    if not ids:
        return Withheld([], draw(st.sampled_from([[], [3]])))
    first = st.integers(0, len(ids)).map(lambda number: ids[:number])
    some = st.lists(st.sampled_from(ids), max_size=20, unique=True)
    return draw(st.builds(Withheld, st.just([]) | some, st.just([]) | first))


class Shop(NamedTuple):
    """What is stored for a user and guests."""

    own: TopBuys | None
    everybody: TopBuys | None
    records: list[Publication | None]
    withheld: Withheld


@st.composite
def shops(draw: st.DrawFn) -> Shop:
    own = draw(st.none() | top_buys("personal", "own_purchases", "global"))
    everybody = draw(st.none() | top_buys("global"))
    families = (Family.USER_TOP_BUYS, Family.GLOBAL_TOP_BUYS)
    ids = [p.product_id for stored in (own, everybody) if stored for p in stored.products]
    return Shop(own, everybody, [draw(records(f)) for f in families], draw(withheld(ids)))


GUESTS = TopBuys(
    source="global",
    model_version="rules-3",
    generated_at=GENERATED,
    orders_through=None,
    products=[ScoredProduct(7, 1.0)],
)


class Pairings(NamedTuple):
    """What is stored for a product."""

    pairings: list[Pairing]
    borrowed: bool
    record: Publication | None
    withheld: Withheld


@st.composite
def pairings(draw: st.DrawFn) -> Pairings:
    ids = draw(id_lists())
    # Redis writes larger ones without an exponent, so that Python takes them for integers.
    strengths = draw(st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=5))
    stored = [Pairing(id_, strengths[rank % len(strengths)]) for rank, id_ in enumerate(ids)]
    return Pairings(
        stored,
        draw(st.booleans()),
        draw(records(Family.BOUGHT_TOGETHER)),
        draw(withheld(ids)),
    )


@pytest.fixture
def client(redis_url: str) -> Iterator[TestClient[Litestar]]:
    app: Any = create_app(ServingSettings(redis_url=redis_url, redis_timeout_ms=5000))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


class Form(NamedTuple):
    """How a query string is put together: as it should be, or nearly so."""

    before: str = ""
    between: str = "&"
    after: str = ""
    order: int = 1
    """-1: the last parameter first."""


USUAL_FORM = Form()
RUN_TOGETHER = Form(between="")
forms = st.sampled_from(
    [
        USUAL_FORM,
        RUN_TOGETHER,
        Form(order=-1),
        Form(between="", order=-1),
        Form(between="&&"),
        Form(before="&"),
        Form(after="&"),
        Form(after="&limit=7"),
    ]
)


def written(query: dict[str, object], form: Form = USUAL_FORM) -> str:
    given = [f"{name}={value}" for name, value in query.items() if value is not None]
    return f"{form.before}{form.between.join(given[:: form.order])}{form.after}"


def assert_same_answers(client: TestClient[Litestar], path: str, query: str) -> Response:
    """What the request is answered, and its equivalent that no short way takes."""
    short = client.get(f"{path}?{query}")
    long = client.get(f"{path}?{query}&explain=false" if query else f"{path}?explain=false")
    assert short.status_code == long.status_code
    assert short.json() == long.json()
    assert short.headers["content-type"] == long.headers["content-type"]
    assert short.headers.get("cache-control") == long.headers.get("cache-control")
    if short.content == long.content:
        assert short.headers.get("etag") == long.headers.get("etag")
    if short.status_code == 200:
        assert long.headers["etag"]
        known = client.get(f"{path}?{query}", headers={"If-None-Match": short.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
    return short


def store_sets(pipe: Any, withheld: Withheld) -> None:
    for key, ids in zip((blocked_key(), unavailable_key()), withheld, strict=True):
        if ids:
            pipe.sadd(key, *map(encode_id, ids))


@USUAL
@given(shop=shops(), user_id=st.none() | asked_ids, limit=limits, form=forms)
@example(Shop(None, None, [None, None], Withheld([], [])), None, None, USUAL_FORM)
@example(Shop(GUESTS, GUESTS, [None, None], Withheld([], [])), "1", 5, RUN_TOGETHER)
def test_top_buys(client, redis_url: str, shop: Shop, user_id: str | None, limit, form: Form):
    with redis.Redis.from_url(redis_url) as admin, admin.pipeline() as pipe:
        pipe.flushall()
        if shop.own and user_id and is_id(user_id):
            pipe.set(user_top_buys_key(user_id), encode_top_buys(shop.own))
        if shop.everybody:
            pipe.set(global_top_buys_key(), encode_top_buys(shop.everybody))
        for record in filter(None, shop.records):
            pipe.set(publication_key(record.family), encode_publication(record))
        store_sets(pipe, shop.withheld)
        pipe.execute()
    assert_same_answers(client, TOP_BUYS, written({"user_id": user_id, "limit": limit}, form))


@USUAL
@given(stored=pairings(), product_id=asked_ids, limit=limits, form=forms)
def test_bought_together(client, redis_url: str, stored: Pairings, product_id: str, limit, form):
    with redis.Redis.from_url(redis_url) as admin, admin.pipeline() as pipe:
        pipe.flushall()
        if stored.pairings and is_id(product_id):
            pipe.zadd(bought_together_key(product_id), encode_pairings(stored.pairings))
        if stored.borrowed:
            pipe.sadd(borrowed_key(), product_id)
        if stored.record:
            record = encode_publication(stored.record)
            pipe.set(publication_key(Family.BOUGHT_TOGETHER), record)
        store_sets(pipe, stored.withheld)
        pipe.execute()
    assert_same_answers(client, f"{BOUGHT_TOGETHER}/{product_id}", written({"limit": limit}, form))


def test_the_short_way_takes_plain_requests(redis_url: str, published: Publisher):
    published.top_buys(1, 30, "a", 10, pinned=[10])
    published.top_buys(None, *range(2 * SPARE))
    published.bought_together(5, 6, 7)
    published.record(Family.BOUGHT_TOGETHER)
    published.client.sadd(blocked_key(), 30, 3)

    async def bodies() -> list[bytes | None]:
        async with RedisReads(redis_url, 2.0) as reads:
            ready = ReadyLists(RecommendationStore(reads))
            plain = [
                (TOP_BUYS, b""),
                (TOP_BUYS, b"limit=3"),
                (f"{TOP_BUYS}/", b"user_id=1"),
                (TOP_BUYS, b"user_id=2&limit=100"),
                (f"{BOUGHT_TOGETHER}/5", b""),
                (f"{BOUGHT_TOGETHER}/5/", b"limit=1"),
            ]
            answers = [await ready.answer(path, query) for path, query in plain]
            return [answer and answer.body for answer in answers]

    answered = asyncio.run(bodies())
    assert None not in answered
    assert answered[2]
    assert answered[2].endswith(
        b'"products":[{"product_id":"a","score":0.5},{"product_id":10,"score":0.3333333333333333}]}'
    )


@pytest.mark.parametrize("path", [TOP_BUYS, f"{BOUGHT_TOGETHER}/5"])
def test_both_ways_are_one_route_in_the_metrics(client, published: Publisher, path: str):
    published.top_buys(None, 1)
    published.bought_together(5, 6)
    published.record(Family.BOUGHT_TOGETHER)

    def answers() -> Counter[str]:
        prefix = 'recsys_http_requests_total{method="GET",route="/api/'
        series = metrics_of(client).items()
        return Counter({name: int(count) for name, count in series if name.startswith(prefix)})

    before = answers()
    for query in ("", "?explain=false"):
        assert client.get(path + query).status_code == 200
    assert list((answers() - before).values()) == [2]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (TOP_BUYS, b"exclude=1"),
        (TOP_BUYS, b"user_id=1&explain=true"),
        (TOP_BUYS, b"user_id=1&user_id=2"),
        (TOP_BUYS, b"user_id=1limit=5"),
        (TOP_BUYS, b"user_id="),
        (TOP_BUYS, b"user_id=%31"),
        (TOP_BUYS, b"user_id=a+b"),
        (TOP_BUYS, b"user_id=1\n"),
        (TOP_BUYS, b"limit=0"),
        (TOP_BUYS, b"limit=101"),
        (TOP_BUYS, b"limit=07"),
        (TOP_BUYS, b"limit=" + b"9" * 5000),
        (f"{TOP_BUYS}//", b""),
        (f"{BOUGHT_TOGETHER}/a/b", b""),
        (f"{BOUGHT_TOGETHER}/a\n", b""),
        (f"{BOUGHT_TOGETHER}/é", b""),
        (f"{BOUGHT_TOGETHER}/", b"product_id=1"),
        (BOUGHT_TOGETHER, b"product_id=1"),
        ("/health/live", b""),
    ],
)
def test_it_leaves_all_else_alone(redis_url: str, published: Publisher, path: str, query: bytes):
    published.top_buys(None, 1)
    published.record(Family.BOUGHT_TOGETHER)

    async def answer() -> object:
        async with RedisReads(redis_url, 2.0) as reads:
            return await ReadyLists(RecommendationStore(reads)).answer(path, query)

    assert asyncio.run(answer()) is None
