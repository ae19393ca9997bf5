"""What Redis serves, read just as the API reads it, so that what is shown is what is answered."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from redis.exceptions import NoPermissionError

from recsys_assets.publish.redis_client import unavailable
from recsys_assets.session import Session
from serving.redis.reads import RedisReads
from serving.redis.turn import RedisUnavailable
from serving.store import RecommendationStore

TIMEOUT_SECONDS = 60.0

_Read = TypeVar("_Read")
Question = Callable[[RecommendationStore], Coroutine[Any, Any, _Read]]


def ask(session: Session, question: Question[_Read]) -> _Read:
    """What the API's store answers to one question, from a single server or a cluster.

    Raises RedisUnavailableError, and ContractError for values that are not of this release.
    """
    url = session.settings.redis_url or ""

    async def answer() -> _Read:
        async with RedisReads(url, TIMEOUT_SECONDS) as redis:
            return await question(RecommendationStore(redis))

    try:
        return asyncio.run(answer())
    except RedisUnavailable as error:
        refused = "NOPERM" in str(error)
        reason = NoPermissionError(str(error)) if refused else error
        raise unavailable("does not tell what it serves", reason) from error
