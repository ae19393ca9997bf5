"""The short way: plain requests for the two hot lists, answered from JSON that is ready in Redis.

A plain request is a GET with a ``limit`` and, of Top Buys, a ``user_id``, both as nearly every
client writes them. Its answer is spliced from what is stored, without parsing it. Whatever is not
plain, and whatever is stored otherwise than usual, is left to the route's handler, which takes
every request there can be and gives the same answer.
"""

import re
from functools import lru_cache
from itertools import compress
from typing import NamedTuple

import msgspec

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
from serving.redis.turn import Group, RedisUnavailable
from serving.store import SIZES_OF_WITHHELD, SPARE, WITHHELD, RecommendationStore

DEFAULT_LIMIT = 10
TOP_BUYS = "/api/recommendations/top-buys"
BOUGHT_TOGETHER = "/api/recommendations/bought-together/{product_id}"

_ID = r"([A-Za-z0-9_.~-]{1,200})"
_LIMIT = r"(?:(?:^|&)limit=([1-9][0-9]?|100))?"
_TOP_BUYS_PATHS = frozenset((TOP_BUYS, f"{TOP_BUYS}/"))
_PRODUCT_PATH = re.compile(rf"{BOUGHT_TOGETHER.partition('{')[0]}{_ID}/?")
_USER = re.compile(rf"(?:user_id={_ID})?{_LIMIT}".encode())
_LIMITED = re.compile(_LIMIT.encode())
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


class Ready(NamedTuple):
    """An answer, and the route that it is of."""

    route: str
    body: bytes


class ReadyLists:
    """Answers plain requests."""

    def __init__(self, store: RecommendationStore) -> None:
        self._store = store
        self._spare = 0
        """How many products more than asked for are read: none while none was withheld lately."""

    async def answer(self, path: str, query: bytes) -> Ready | None:
        """The answer to a GET; None where the handler is to give it."""
        try:
            if path in _TOP_BUYS_PATHS:
                return await self._top_buys(_USER.fullmatch(query))
            if product := _PRODUCT_PATH.fullmatch(path):
                return await self._bought_together(product[1], _LIMITED.fullmatch(query))
        except (RedisUnavailable, ValueError):  # the latter: not JSON, not UTF-8, no id
            pass
        return None

    async def _top_buys(self, asked: re.Match[bytes] | None) -> Ready | None:
        """The user's own list, or the guests' where there is none or nothing is left of it."""
        if asked is None:
            return None
        user_id = None if asked[1] is None else asked[1].decode()
        limit = int(asked[2] or DEFAULT_LIMIT)
        turn = self._store.turn()
        turn.ask_group(_GUESTS)
        own = None if user_id is None else turn.ask(("GET", user_top_buys_key(user_id)))
        await turn.settled()
        if turn.failed:
            return None
        users_record, guests_record, everybody, sets = turn.view(_GUESTS)
        data = everybody if own is None else turn.replies[own] or everybody
        while data:
            cut = cut_top_buys(data, limit + SPARE if sets else limit)
            if cut is None:
                break
            left = await self._left(cut.products, sets, limit) if sets else cut.products
            if left is None:
                break
            if left or data is everybody:
                source, head = _top_buys_head(cut.head, users_record, guests_record)
                user = b"null" if user_id is None else _id_json(user_id, _id_kind(users_record))
                metrics.count_list("top_buys", source if left else "empty")
                body = b'{"user_id":%b,%b%b]}' % (user, head, join_products(left[:limit]))
                return Ready(TOP_BUYS, body)
            data = everybody
        return None

    async def _left(self, products: list[bytes], sets: list[str], limit: int) -> list[bytes] | None:
        """Those of a list's pieces that are in none of the ``sets``; None when that is unclear."""
        ids = [_id_text(id_of_product(product)) for product in products[: limit + SPARE]]
        withheld = await self._store.withheld(sets, ids)
        left = [p for p, id_ in zip(products, ids, strict=False) if id_ not in withheld]
        return None if len(left) < limit and len(products) > len(ids) else left

    async def _bought_together(
        self, product_id: str, asked: re.Match[bytes] | None
    ) -> Ready | None:
        """The product's list."""
        if asked is None:
            return None
        limit = int(asked[1] or DEFAULT_LIMIT)
        count = limit + self._spare
        turn = self._store.turn()
        turn.ask_group(_PAIRINGS)
        list_place = turn.ask(
            ("ZREVRANGE", bought_together_key(product_id), 0, count - 1, "WITHSCORES")
        )
        borrowed_place = turn.ask(("SISMEMBER", borrowed_key(), product_id))
        await turn.settled()
        if turn.failed:
            return None
        record, id_kind, sets = turn.view(_PAIRINGS)
        self._spare = SPARE if sets else 0
        members, borrowed = turn.replies[list_place], bool(turn.replies[borrowed_place])
        if record is None:
            return None
        ids = members[::2]
        pairs = list(zip(ids, members[1::2], strict=True))
        if sets:
            if len(ids) == count == limit:  # none to spare
                return await self._bought_together(product_id, asked)
            withheld = await self._store.withheld(sets, ids)
            pairs = [pair for pair in pairs if pair[0] not in withheld]
            if len(pairs) < limit and len(ids) == count:
                return None
        if id_kind == "text":
            pairs = [(msgspec.json.encode(id_.decode()), strength) for id_, strength in pairs]
        elif ids and not b"".join(ids).replace(b"-", b"").isdigit():
            return None
        products = b",".join([b'{"product_id":%b,"strength":%b}' % pair for pair in pairs[:limit]])
        source = ("category" if borrowed else "global") if products else "empty"
        metrics.count_list("bought_together", source)
        head = _pairings_head(record, borrowed)
        body = b'{"product_id":%b,%b%b]}' % (_id_json(product_id, id_kind), head, products)
        return Ready(BOUGHT_TOGETHER, body)


@lru_cache(maxsize=1024)  # the heads of a publication's lists are few, if not all the same
def _top_buys_head(head: bytes, *records: bytes | None) -> tuple[str, bytes]:
    """The source of a list with this head, and the head that the answer has, up to products."""
    stored = decode_top_buys(empty_top_buys(head))
    published = {each.family: each for each in map(decode_publication, filter(None, records))}
    return stored.source, _head(
        source=stored.source,
        model_version=stored.model_version,
        generated_at=stored.generated_at,
        orders_through=known_through(stored, published.get(FAMILIES[stored.source])),
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


class _Guests(NamedTuple):
    """Both records, the guests' list, and the sets that withhold any product."""

    users_record: bytes | None
    guests_record: bytes | None
    everybody: bytes | None
    sets: list[str]


class _Pairings(NamedTuple):
    """The record of all Bought Together, its kind of ids, and the sets that withhold any."""

    record: bytes | None
    id_kind: str | None
    sets: list[str]


def _guests(
    users_record: bytes | None, guests_record: bytes | None, everybody: bytes | None, *sizes: int
) -> _Guests:
    return _Guests(users_record, guests_record, everybody, list(compress(WITHHELD, sizes)))


def _pairings(record: bytes | None, *sizes: int) -> _Pairings:
    return _Pairings(record, _id_kind(record), list(compress(WITHHELD, sizes)))


_GUESTS = Group(
    _guests,
    ("GET", publication_key(Family.USER_TOP_BUYS)),
    ("GET", publication_key(Family.GLOBAL_TOP_BUYS)),
    ("GET", global_top_buys_key()),
    *SIZES_OF_WITHHELD,
)
_PAIRINGS = Group(_pairings, ("GET", publication_key(Family.BOUGHT_TOGETHER)), *SIZES_OF_WITHHELD)
