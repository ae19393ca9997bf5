"""Reads of the published lists: one round trip to Redis each, in bounded time.

What the keys and values are is the contract's business, what a client is told the controllers'.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from serving import metrics
from serving.contract import (
    ContractError,
    Family,
    Pairing,
    Publication,
    TopBuys,
    bought_together_key,
    decode_pairings,
    decode_publication,
    decode_top_buys,
    global_top_buys_key,
    publication_key,
    user_top_buys_key,
)
from serving.settings import ServingSettings

logger = logging.getLogger(__name__)

Records = dict[Family, Publication | None]
"""The publication record of each family; None for one that was never published."""


class StoreUnavailable(Exception):
    """Redis is away, refused, or did not answer within the timeout."""


class RecommendationStore:
    """The published lists in a Redis whose client is opened and closed by someone else.

    Every read raises :class:`StoreUnavailable` when Redis gives no answer within ``timeout``
    seconds, and :class:`ContractError` when it holds a value that is not of the contract. No
    command names more than one key, so that the keys may lie on several nodes. A record is read
    before the lists that it tells of, so that it is never of a later publication than they are.
    """

    def __init__(self, client: Redis, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._available = True

    async def guest_top_buys(self) -> tuple[TopBuys | None, Records]:
        """The guests' list, None before its first publication, and its record."""
        reads = self._reads()
        reads.get(publication_key(Family.GLOBAL_TOP_BUYS))
        reads.get(global_top_buys_key())
        record, everybody = await self._answers(reads)
        return _top_buys(everybody), {Family.GLOBAL_TOP_BUYS: _publication(record)}

    async def user_top_buys(self, user_id: str) -> tuple[TopBuys | None, Records]:
        """The user's own list or else the guests', and the records of both families."""
        families = (Family.USER_TOP_BUYS, Family.GLOBAL_TOP_BUYS)
        reads = self._reads()
        for family in families:
            reads.get(publication_key(family))
        reads.get(user_top_buys_key(user_id))
        reads.get(global_top_buys_key())
        *records, own, everybody = await self._answers(reads)
        stored = _top_buys(everybody if own is None else own)
        return stored, dict(zip(families, map(_publication, records), strict=True))

    async def bought_together(
        self, product_id: str, count: int
    ) -> tuple[list[Pairing], Publication | None]:
        """The ``count`` strongest products, strongest first, and the record of their publication.

        Before the first publication has finished there is no record and the list is empty.
        """
        reads = self._reads()
        reads.get(publication_key(Family.BOUGHT_TOGETHER))
        reads.zrevrange(bought_together_key(product_id), 0, count - 1, withscores=True)
        data, members = await self._answers(reads)
        record = _publication(data)
        return decode_pairings(members, record.id_kind) if record else [], record

    async def publications(self) -> Records:
        """The publication record of every family; None for one that was never published."""
        reads = self._reads()
        for family in Family:
            reads.get(publication_key(family))
        records = await self._answers(reads)
        return dict(zip(Family, map(_publication, records), strict=True))

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
                    f"Redis holds a value of another type: {error}; publish again"
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


def _top_buys(data: bytes | None) -> TopBuys | None:
    return None if data is None else decode_top_buys(data)


def _publication(data: bytes | None) -> Publication | None:
    return None if data is None else decode_publication(data)
