"""The short way: plain requests for the two hot lists, answered from JSON that is ready in Redis.

A plain request is a GET with a ``limit`` and, of Top Buys, a ``user_id``, both as nearly every
client writes them. Its answer is spliced from what is stored, without parsing it. Whatever is not
plain, and whatever is stored otherwise than usual, is left to the route's handler, which takes
every request there can be and gives the same answer.
"""

import re
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import compress
from typing import NamedTuple

import msgspec
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from serving import metrics
from serving.answers import FAMILIES
from serving.contract import (
    Family,
    borrowed_key,
    bought_together_key,
    decode_publication,
    decode_top_buys,
    global_top_buys_key,
    known_through,
    publication_key,
    user_top_buys_key,
)
from serving.contract.ready import cut_top_buys, empty_top_buys, id_of_product, join_products
from serving.store import SIZES_OF_WITHHELD, SPARE, WITHHELD, RecommendationStore

DEFAULT_LIMIT = 10

_LIMIT = rb"(?:&?limit=([1-9][0-9]?|100))?"
_GUEST = re.compile(_LIMIT)
_USER = re.compile(rb"user_id=([A-Za-z0-9_.~-]{1,200})" + _LIMIT)
_PRODUCT = re.compile(r"/?([A-Za-z0-9_.~-]{1,200})")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")

_USERS_RECORD = ("GET", publication_key(Family.USER_TOP_BUYS))
_PAIRINGS_RECORD = ("GET", publication_key(Family.BOUGHT_TOGETHER))
_GUESTS = (
    ("GET", publication_key(Family.GLOBAL_TOP_BUYS)),
    ("GET", global_top_buys_key()),
    *SIZES_OF_WITHHELD,
)


class ReadyLists(ASGIMiddleware):
    """Answers the plain requests of a route, and passes on all others."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Answer, or let the handler do it."""
        body = await self.body(scope["litestar_app"].state.store, scope)
        if body is None:
            await next_app(scope, receive, send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    @abstractmethod
    async def body(self, store: RecommendationStore, scope: Scope) -> bytes | None:
        """JSON of the answer; None when the request is not a plain one."""


class ReadyTopBuys(ReadyLists):
    """Top Buys of a guest, or of a user."""

    async def body(self, store: RecommendationStore, scope: Scope) -> bytes | None:
        """The guests' list, or the user's own or the guests' where nothing is left of it."""
        query = scope["query_string"]
        if guest := _GUEST.fullmatch(query):
            limit = int(guest[1] or DEFAULT_LIMIT)
            return await _guest_top_buys(store, limit)
        if user := _USER.fullmatch(query):
            return await _user_top_buys(store, user[1].decode(), int(user[2] or DEFAULT_LIMIT))
        return None


class ReadyBoughtTogether(ReadyLists):
    """Bought Together of one product."""

    async def body(self, store: RecommendationStore, scope: Scope) -> bytes | None:
        """The product's list."""
        product = _PRODUCT.fullmatch(str(scope["path_params"].get("product_id", "")))
        query = _GUEST.fullmatch(scope["query_string"])
        if product is None or query is None:
            return None
        return await _bought_together(store, product[1], int(query[1] or DEFAULT_LIMIT))


class _Spliced(NamedTuple):
    """What an answer has beyond the user, and where its list came from; ``left`` products."""

    rest: bytes
    source: str
    left: int


async def _guest_top_buys(store: RecommendationStore, limit: int) -> bytes | None:
    record, everybody, *sizes = await store.read(_GUESTS)
    return _top_buys(b"null", await _spliced(store, everybody, record, sizes, limit))


async def _user_top_buys(store: RecommendationStore, user_id: str, limit: int) -> bytes | None:
    users, own, guests, everybody, *sizes = await store.read(
        (_USERS_RECORD, ("GET", user_top_buys_key(user_id)), *_GUESTS)
    )
    user = _id_json(user_id, _id_kind(users))
    if own is not None:
        spliced = await _spliced(store, own, users, sizes, limit)
        if spliced is None or spliced.left:
            return _top_buys(user, spliced)
    return _top_buys(user, await _spliced(store, everybody, guests, sizes, limit))


async def _spliced(
    store: RecommendationStore,
    data: bytes | None,
    record: bytes | None,
    sizes: Sequence[int],
    limit: int,
) -> _Spliced | None:
    """The first products of a stored list; None when the handler has to look at it."""
    if data is None:
        return None
    checked = limit + SPARE if any(sizes) else limit
    cut = cut_top_buys(data, checked)
    if cut is None:
        return None
    products = cut.products[:checked]
    if any(sizes):
        ids = [_id_text(id_of_product(product)) for product in products]
        withheld = await store.withheld(list(compress(WITHHELD, sizes)), ids)
        left = [p for p, id_ in zip(products, ids, strict=True) if id_ not in withheld]
        if len(left) < limit and len(cut.products) > checked:
            return None
        products = left[:limit]
    source, head = _top_buys_head(cut.head, record)
    return _Spliced(head + join_products(products) + b"]}", source, len(products))


def _top_buys(user: bytes, spliced: _Spliced | None) -> bytes | None:
    if spliced is None:
        return None
    metrics.count_list("top_buys", spliced.source if spliced.left else "empty")
    return b'{"user_id":%b,%b' % (user, spliced.rest)


async def _bought_together(store: RecommendationStore, product_id: str, limit: int) -> bytes | None:
    checked = limit + SPARE
    record, members, borrowed, *sizes = await store.read(
        (
            _PAIRINGS_RECORD,
            ("ZREVRANGE", bought_together_key(product_id), 0, checked - 1, "WITHSCORES"),
            ("SISMEMBER", borrowed_key(), product_id),
            *SIZES_OF_WITHHELD,
        )
    )
    id_kind = _id_kind(record)
    if record is None or id_kind is None:
        return None
    ids, pairs = members[::2], list(zip(members[::2], members[1::2], strict=True))
    if any(sizes):
        withheld = await store.withheld(list(compress(WITHHELD, sizes)), ids)
        pairs = [pair for pair in pairs if pair[0] not in withheld]
        if len(pairs) < limit and len(ids) == checked:
            return None
    if id_kind == "text":
        pairs = [(msgspec.json.encode(member.decode()), strength) for member, strength in pairs]
    elif ids and not b"".join(ids).replace(b"-", b"").isdigit():
        return None
    products = b",".join([b'{"product_id":%b,"strength":%b}' % pair for pair in pairs[:limit]])
    metrics.count_list(
        "bought_together", ("category" if borrowed else "global") if products else "empty"
    )
    head = _pairings_head(record, bool(borrowed))
    return b'{"product_id":%b,%b%b]}' % (_id_json(product_id, id_kind), head, products)


@lru_cache(maxsize=1024)  # the heads of a publication's lists are few, if not all the same
def _top_buys_head(head: bytes, record: bytes | None) -> tuple[str, bytes]:
    """The source of a list with this head, and the head that the answer has, up to products."""
    stored = decode_top_buys(empty_top_buys(head))
    publication = None if record is None else decode_publication(record)
    if publication is not None and publication.family is not FAMILIES[stored.source]:
        publication = None
    return stored.source, _head(
        source=stored.source,
        model_version=stored.model_version,
        generated_at=stored.generated_at,
        orders_through=known_through(stored, publication),
    )


@lru_cache(maxsize=64)
def _pairings_head(record: bytes, borrowed: bool) -> bytes:
    """The head of an answer from the published pairings, up to products."""
    publication = decode_publication(record)
    return _head(
        source="category" if borrowed else "product",
        model_version=publication.model_version,
        generated_at=publication.generated_at,
        orders_through=publication.orders_through,
    )


def _head(**fields: object) -> bytes:
    return msgspec.json.encode(fields)[1:-1] + b',"products":['


@lru_cache(maxsize=64)
def _id_kind(record: bytes | None) -> str | None:
    return None if record is None else decode_publication(record).id_kind


def _id_json(text: str, id_kind: str | None) -> bytes:
    if id_kind == "integer" and _INTEGER.fullmatch(text):
        return text.encode()
    return msgspec.json.encode(text)


def _id_text(json: bytes) -> bytes:
    """The text of an id as it stands in Redis, from its JSON."""
    return msgspec.json.decode(json, type=str).encode() if json.startswith(b'"') else json
