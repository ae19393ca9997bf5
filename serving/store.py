"""Reads of the published lists, each in bounded time and few round trips to Redis.

What the keys and values are is the contract's business, what a client is told the controllers'.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, combinations, compress, islice
from typing import Any, TypeVar

from msgspec import structs

from serving.contract import (
    BuyAgain,
    ContractError,
    Family,
    IdKind,
    Pairing,
    Publication,
    Repeat,
    ScoredProduct,
    TopBuys,
    also_key_and_field,
    blocked_key,
    borrowed_key,
    bought_together_key,
    decode_also,
    decode_buy_again,
    decode_evidence,
    decode_explanations,
    decode_pairings,
    decode_publication,
    decode_top_buys,
    encode_id,
    global_top_buys_key,
    id_of_key,
    list_key,
    publication_key,
    unavailable_key,
    user_top_buys_key,
)
from serving.readings import (
    BoughtTogetherRead,
    BuyAgainRead,
    ProductRead,
    Records,
    TopBuysRead,
    without,
)
from serving.redis.reads import RedisReads
from serving.redis.turn import Command, CommandRefused, RedisUnavailable, Turn

logger = logging.getLogger(__name__)

SPARE = 32
"""How many products are read beyond those asked for, to stand in for any that are withheld."""

WITHHELD = (blocked_key(), unavailable_key())
"""The sets of products that are left out of every list."""

SIZES_OF_WITHHELD: tuple[Command, ...] = tuple(("SCARD", key) for key in WITHHELD)
_GUESTS: tuple[Command, ...] = (
    ("GET", publication_key(Family.GLOBAL_TOP_BUYS)),
    ("GET", global_top_buys_key()),
)
_BECAUSE = Family.USER_TOP_BUYS_BECAUSE
_List = TypeVar("_List", TopBuys, BuyAgain)
_Value = TypeVar("_Value")
_Text = TypeVar("_Text", str, bytes)


class RecommendationStore:
    """The published lists in a Redis whose connections are opened and closed by someone else.

    Every read raises :class:`RedisUnavailable` when Redis gives no answer within its timeout, and
    :class:`ContractError` when it holds a value that is not of the contract. No command names more
    than one key, so that the keys may lie on several nodes. A record is read before the lists that
    it tells of, so that on one node it is never of a later publication than they are.

    A read is one round trip, which it shares with others. While any product is blocked or
    unavailable it is two: the second asks for those of the list, and leaves them out; a third does
    so for the guests' list where nothing of the user's is left.
    """

    def __init__(self, redis: RedisReads) -> None:
        self._redis = redis

    async def guest_top_buys(self) -> TopBuysRead:
        """The guests' list and its record."""
        (record, everybody), sets = await self._list_answers(*_GUESTS)
        stored = await self._offered(_decoded(decode_top_buys, everybody), sets)
        return TopBuysRead(stored, {Family.GLOBAL_TOP_BUYS: _publication(record)})

    async def user_top_buys(self, user_id: str, *, explain: bool = False) -> TopBuysRead:
        """The user's own list, or the guests' where nothing of it is left, and both records."""
        families = (Family.USER_TOP_BUYS, Family.GLOBAL_TOP_BUYS)
        own_key, why_key = user_top_buys_key(user_id), list_key(_BECAUSE, user_id)
        (*records, own, everybody, because), sets = await self._list_answers(
            *(("GET", publication_key(family)) for family in families),
            ("GET", own_key),
            ("GET", global_top_buys_key()),
            ("GET", why_key if explain else own_key),
        )
        stored = await self._offered(_decoded(decode_top_buys, own), sets)
        if everybody is not None and not (stored and stored.products):
            stored = await self._offered(decode_top_buys(everybody), sets)
        return TopBuysRead(
            stored,
            dict(zip(families, map(_publication, records), strict=True)),
            _decoded(decode_explanations, because) if explain else None,
        )

    async def buy_again(self, user_id: str) -> BuyAgainRead:
        """What the user buys again, and the record of its publication."""
        (record, data), sets = await self._list_answers(
            ("GET", publication_key(Family.USER_BUY_AGAIN)),
            ("GET", list_key(Family.USER_BUY_AGAIN, user_id)),
        )
        stored = await self._offered(_decoded(decode_buy_again, data), sets)
        return BuyAgainRead(stored, _publication(record))

    async def bought_together(
        self, product_ids: Sequence[str], count: int | None = None, *, explain: bool = False
    ) -> BoughtTogetherRead:
        """The lists of some products, at least ``count`` of each where there are, or whole."""
        fields = _also_fields(product_ids)
        last = -1 if count is None else count + SPARE - 1
        commands: list[Command] = [("GET", publication_key(Family.BOUGHT_TOGETHER))]
        for product_id in product_ids:
            commands += _product_commands(product_id, last, explain=explain)
        commands.append(("GET", publication_key(Family.BOUGHT_TOGETHER_ALSO)))
        commands += (("HMGET", key, *names) for key, names in fields.items())
        answers, sets = await self._list_answers(*commands)

        rest = iter(answers)
        record = _publication(next(rest))
        if record is None:
            return BoughtTogetherRead({}, {}, None)
        members = {
            product_id: _product_read(record.id_kind, *islice(rest, 2 + explain))
            for product_id in product_ids
        }
        also_record = _publication(next(rest))
        also = _also(fields, rest) if also_record and also_record.keys else {}
        lists = [*(member.pairings for member in members.values()), *also.values()]
        withheld = await self._withheld(sets, chain.from_iterable(lists))
        read = BoughtTogetherRead(members, also, record).without(withheld)
        if count is not None and any(
            len(read.members[product_id].pairings) < count <= len(member.pairings) - SPARE
            for product_id, member in members.items()
        ):
            return await self.bought_together(product_ids, explain=explain)
        return read

    async def publications(self) -> Records:
        """The publication record of every family; None for one that was never published."""
        records = await self.read([("GET", publication_key(family)) for family in Family])
        return dict(zip(Family, map(_publication, records), strict=True))

    @property
    def last_known(self) -> Records | None:
        """The records as last known, where lists are served while Redis is away; else None."""
        return None

    async def _offered(self, stored: _List | None, sets: list[str]) -> _List | None:
        """The list without the products that are in one of the ``sets``."""
        if stored is None or not sets:
            return stored
        withheld = await self._withheld(sets, stored.products)
        return structs.replace(stored, products=without(stored.products, withheld))

    async def _withheld(
        self, sets: list[str], products: Iterable[ScoredProduct | Repeat | Pairing]
    ) -> frozenset[str]:
        """The texts of the ids of those products that are in one of the ``sets``."""
        ids = list({encode_id(product.product_id) for product in products} if sets else ())
        return await self.withheld(sets, ids)

    async def withheld(self, sets: Sequence[str], ids: Sequence[_Text]) -> frozenset[_Text]:
        """Those of the products' ids that are in one of the ``sets``."""
        if not sets or not ids:
            return frozenset()
        answers = await self.read([("SMISMEMBER", key, *ids) for key in sets])
        return frozenset(compress(ids, map(any, zip(*answers, strict=True))))

    async def _list_answers(self, *commands: Command) -> tuple[list[Any], list[str]]:
        """What Redis answered to each command, and the sets that withhold any product."""
        *answers, blocked, unavailable = await self.read([*commands, *SIZES_OF_WITHHELD])
        return answers, list(compress(WITHHELD, (blocked, unavailable)))

    def turn(self) -> Turn:
        """The turn that is open, for readers in a hurry; see :meth:`RedisReads.turn`."""
        return self._redis.turn()

    async def read(self, commands: Sequence[Command]) -> list[Any]:
        """What Redis replied to each command."""
        try:
            return await self._redis.read(commands)
        except CommandRefused as error:
            if error.reply.startswith("WRONGTYPE"):
                raise ContractError(
                    f"Redis holds a value of another type: {error}; delete it and publish again"
                ) from error
            logger.error("Redis refuses to be read: %s", error)
            raise RedisUnavailable(str(error)) from error


def _product_commands(product_id: str, last: int, *, explain: bool) -> list[Command]:
    """What is read of one product; :func:`_product_read` makes something of the replies."""
    commands: list[Command] = [
        ("ZREVRANGE", bought_together_key(product_id), 0, last, "WITHSCORES"),
        ("SISMEMBER", borrowed_key(), product_id),
    ]
    if explain:
        commands.append(("GET", list_key(Family.BOUGHT_TOGETHER_EVIDENCE, product_id)))
    return commands


def _decoded(decode: Callable[[bytes], _Value], data: bytes | None = None) -> _Value | None:
    return None if data is None else decode(data)


def _publication(data: bytes | None) -> Publication | None:
    return _decoded(decode_publication, data)


def _product_read(
    id_kind: IdKind, members: list[bytes], borrowed: int, evidence: bytes | None = None
) -> ProductRead:
    pairings = decode_pairings(zip(members[::2], map(float, members[1::2]), strict=True), id_kind)
    return ProductRead(pairings, bool(borrowed), _decoded(decode_evidence, evidence))


def _also_fields(product_ids: Sequence[str]) -> dict[str, list[str]]:
    """The hashes of rules with two antecedents among some products, and the fields to read."""
    fields: dict[str, list[str]] = {}
    for one, other in combinations(product_ids, 2):
        key, field = also_key_and_field(one, other)
        fields.setdefault(key, []).append(field)
    return fields


def _also(
    fields: dict[str, list[str]], values: Iterable[list[bytes | None]]
) -> dict[tuple[str, str], list[Pairing]]:
    """The products that two antecedents lead to, by these, from what HMGET answered."""
    return {
        (id_of_key(Family.BOUGHT_TOGETHER_ALSO, key), name): decode_also(value)
        for (key, names), found in zip(fields.items(), values, strict=True)
        for name, value in zip(names, found, strict=True)
        if value is not None
    }
