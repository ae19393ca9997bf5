"""What Redis serves, read just as the API reads it, so that what is shown is what is answered."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from redis import RedisCluster
from redis import asyncio as aio

from recsys_assets.publish.redis_client import unavailable
from recsys_assets.session import Session
from serving.store import RecommendationStore, StoreUnavailable

TIMEOUT_SECONDS = 60.0

_Read = TypeVar("_Read")
Question = Callable[[RecommendationStore], Coroutine[Any, Any, _Read]]


def ask(session: Session, question: Question[_Read]) -> _Read:
    """What the API's store answers to one question, from a single server or a cluster.

    Raises RedisUnavailableError, and ContractError for values that are not of this release.
    """
    with session.redis() as client:
        kind: Any = aio.RedisCluster if isinstance(client, RedisCluster) else aio.Redis

    async def answer() -> _Read:
        async with kind.from_url(session.settings.redis_url) as client:
            return await question(RecommendationStore(client, TIMEOUT_SECONDS))

    try:
        return asyncio.run(answer())
    except StoreUnavailable as error:
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise unavailable("does not tell what it serves", reason) from error
