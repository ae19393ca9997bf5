"""Reads of the published lists, each in bounded time and few round trips to Redis.

What the keys and values are is the contract's business, what a client is told the controllers'.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import chain, combinations, compress, islice
from time import perf_counter
from typing import Any, TypeVar

from msgspec import structs
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from serving import metrics
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
from serving.settings import ServingSettings

logger = logging.getLogger(__name__)

SPARE = 32
"""How many products are read beyond those asked for, to stand in for any that are withheld."""

_WITHHELD = (blocked_key(), unavailable_key())
_List = TypeVar("_List", TopBuys, BuyAgain)
_Value = TypeVar("_Value")


class StoreUnavailable(Exception):
    """Redis is away, refused, or did not answer within the timeout."""


class RecommendationStore:
    """The published lists in a Redis whose client is opened and closed by someone else.

    Every read raises :class:`StoreUnavailable` when Redis gives no answer within ``timeout``
    seconds, and :class:`ContractError` when it holds a value that is not of the contract. No
    command names more than one key, so that the keys may lie on several nodes. A record is read
    before the lists that it tells of, so that it is never of a later publication than they are.

    A read is one round trip. While any product is blocked or unavailable it is two: the second asks
    for those of the list, and leaves them out; a third does so for the guests' list where nothing
    of the user's is left.
    """

    def __init__(self, client: Redis, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._available = True

    async def guest_top_buys(self) -> TopBuysRead:
        """The guests' list and its record."""
        reads = self._reads()
        reads.get(publication_key(Family.GLOBAL_TOP_BUYS))
        reads.get(global_top_buys_key())
        (record, everybody), sets = await self._list_answers(reads)
        stored = await self._offered(_decoded(decode_top_buys, everybody), sets)
        return TopBuysRead(stored, {Family.GLOBAL_TOP_BUYS: _publication(record)})

    async def user_top_buys(self, user_id: str, *, explain: bool = False) -> TopBuysRead:
        """The user's own list, or the guests' where nothing of it is left, and both records."""
        families = (Family.USER_TOP_BUYS, Family.GLOBAL_TOP_BUYS)
        reads = self._reads()
        for family in families:
            reads.get(publication_key(family))
        reads.get(user_top_buys_key(user_id))
        reads.get(global_top_buys_key())
        if explain:
            reads.get(list_key(Family.USER_TOP_BUYS_BECAUSE, user_id))
        answers, sets = await self._list_answers(reads)
        records, (own, everybody, *because) = map(_publication, answers[:2]), answers[2:]
        stored = await self._offered(_decoded(decode_top_buys, own), sets)
        if everybody is not None and not (stored and stored.products):
            stored = await self._offered(decode_top_buys(everybody), sets)
        return TopBuysRead(
            stored,
            dict(zip(families, records, strict=True)),
            _decoded(decode_explanations, *because),
        )

    async def buy_again(self, user_id: str) -> BuyAgainRead:
        """What the user buys again, and the record of its publication."""
        reads = self._reads()
        reads.get(publication_key(Family.USER_BUY_AGAIN))
        reads.get(list_key(Family.USER_BUY_AGAIN, user_id))
        (record, data), sets = await self._list_answers(reads)
        stored = await self._offered(_decoded(decode_buy_again, data), sets)
        return BuyAgainRead(stored, _publication(record))

    async def bought_together(
        self, product_ids: Sequence[str], count: int | None = None, *, explain: bool = False
    ) -> BoughtTogetherRead:
        """The lists of some products, at least ``count`` of each where there are, or whole."""
        fields = _also_fields(product_ids)
        reads = self._reads()
        reads.get(publication_key(Family.BOUGHT_TOGETHER))
        for product_id in product_ids:
            last = -1 if count is None else count + SPARE - 1
            reads.zrevrange(bought_together_key(product_id), 0, last, withscores=True)
            reads.sismember(borrowed_key(), product_id)
            if explain:
                reads.get(list_key(Family.BOUGHT_TOGETHER_EVIDENCE, product_id))
        if fields:
            reads.get(publication_key(Family.BOUGHT_TOGETHER_ALSO))
        for key, names in fields.items():
            reads.hmget(key, names)
        answers, sets = await self._list_answers(reads)

        rest = iter(answers)
        record = _publication(next(rest))
        if record is None:
            return BoughtTogetherRead({}, {}, None)
        members = {
            product_id: _product_read(record.id_kind, *islice(rest, 2 + explain))
            for product_id in product_ids
        }
        also_record = _publication(next(rest, None))
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
        reads = self._reads()
        for family in Family:
            reads.get(publication_key(family))
        records = await self._answers(reads)
        return dict(zip(Family, map(_publication, records), strict=True))

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
        if not ids:
            return frozenset()
        reads = self._reads()
        for key in sets:
            reads.smismember(key, ids)
        answers = await self._answers(reads)
        return frozenset(compress(ids, map(any, zip(*answers, strict=True))))

    async def _list_answers(self, reads: Pipeline) -> tuple[list[Any], list[str]]:
        """What Redis answered to each of ``reads``, and the sets that withhold any product."""
        for key in _WITHHELD:
            reads.scard(key)
        answers = await self._answers(reads)
        answers, sizes = answers[: -len(_WITHHELD)], answers[-len(_WITHHELD) :]
        return answers, list(compress(_WITHHELD, sizes))

    def _reads(self) -> Pipeline:
        return self._client.pipeline(transaction=False)

    async def _answers(self, reads: Pipeline) -> list[Any]:
        """What Redis answered to each of ``reads``, in their order."""
        start = perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                answers = await reads.execute()
        except (RedisError, OSError, TimeoutError) as error:
            if isinstance(error, ResponseError) and "WRONGTYPE" in str(error):
                raise ContractError(
                    f"Redis holds a value of another type: {error}; delete it and publish again"
                ) from error
            self._note(error)
            raise StoreUnavailable from error
        metrics.redis_seconds.observe(perf_counter() - start)
        self._note(None)
        return answers

    def _note(self, error: Exception | None) -> None:
        """Log when Redis goes away and when it is back, not every request in between."""
        available = error is None
        if available != self._available:
            self._available = available
            if available:
                logger.warning("Redis answers again")
            else:
                logger.error("Redis does not answer: %r", error)


@asynccontextmanager
async def open_store(settings: ServingSettings) -> AsyncIterator[RecommendationStore]:
    """A store with a client of its own, which is closed at the end. Connects on first use."""
    timeout = settings.redis_timeout_seconds
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=settings.redis_connections,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), retries=1),  # a connection that a restarted Redis has closed
        decode_responses=False,
    )
    async with Redis.from_pool(pool) as client:
        yield RecommendationStore(client, timeout)


def _decoded(decode: Callable[[bytes], _Value], data: bytes | None = None) -> _Value | None:
    return None if data is None else decode(data)


def _publication(data: bytes | None) -> Publication | None:
    return _decoded(decode_publication, data)


def _product_read(
    id_kind: IdKind,
    members: list[tuple[bytes, float]],
    borrowed: int,
    evidence: bytes | None = None,
) -> ProductRead:
    pairings = decode_pairings(members, id_kind)
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
