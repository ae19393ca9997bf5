"""The guests' list as last known, for the time that Redis is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from serving.contract import ContractError
from serving.readings import TopBuysRead
from serving.redis.turn import RedisUnavailable
from serving.store import RecommendationStore

REFRESH_SECONDS = 5.0


class LastGuests:
    """Reads the guests' list again and again, and keeps it when that fails."""

    def __init__(self, store: RecommendationStore) -> None:
        self._store = store
        self._read: TopBuysRead | None = None

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep the list up to date for as long as this is open."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def read_instead(self, error: RedisUnavailable) -> TopBuysRead:
        """The list as last known; raises ``error`` when there never was any."""
        if self._read is None or self._read.stored is None:
            raise error
        return self._read._replace(stale=True)

    async def _keep(self) -> None:
        while True:
            with suppress(RedisUnavailable, ContractError):
                self._read = await self._store.guest_top_buys()
            await asyncio.sleep(REFRESH_SECONDS)
