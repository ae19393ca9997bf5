"""The guests' list as last known, for the time that Redis is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from serving.contract import ContractError
from serving.readings import Records, TopBuysRead
from serving.redis.reads import RedisReads
from serving.redis.turn import RedisUnavailable
from serving.store import RecommendationStore

REFRESH_SECONDS = 5.0


class RememberingStore(RecommendationStore):
    """A store whose Top Buys are the guests' list as last known while Redis is away."""

    def __init__(self, redis: RedisReads) -> None:
        super().__init__(redis)
        self._guests = TopBuysRead(None, {})
        self._records: Records = {}

    @property
    def last_known(self) -> Records | None:
        """The records as last known; None before there is a list to serve."""
        return None if self._guests.stored is None else self._records | self._guests.records

    async def guest_top_buys(self) -> TopBuysRead:
        """The guests' list and its record."""
        try:
            return await super().guest_top_buys()
        except RedisUnavailable as error:
            return self._remembered(error)

    async def user_top_buys(self, user_id: str, *, explain: bool = False) -> TopBuysRead:
        """The user's own list, or the guests', and both records."""
        try:
            return await super().user_top_buys(user_id, explain=explain)
        except RedisUnavailable as error:
            return self._remembered(error)

    @asynccontextmanager
    async def remembering(self) -> AsyncIterator[None]:
        """Read the guests' list and all records anew for as long as this is open."""
        task = asyncio.create_task(self._remember())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _remember(self) -> None:
        while True:
            await asyncio.gather(self._remember_guests(), self._remember_records())
            await asyncio.sleep(REFRESH_SECONDS)

    async def _remember_guests(self) -> None:
        with suppress(RedisUnavailable, ContractError):
            self._guests = await super().guest_top_buys()

    async def _remember_records(self) -> None:
        with suppress(RedisUnavailable, ContractError):
            self._records = await super().publications()

    def _remembered(self, error: RedisUnavailable) -> TopBuysRead:
        """What was read last; raises ``error`` when there never was any."""
        records = self.last_known
        if records is None:
            raise error
        return self._guests._replace(records=records, stale=True)
