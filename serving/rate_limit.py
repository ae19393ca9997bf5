"""How many requests a caller may make in a second, minute, hour or day.

The counters lie in Redis, so all workers and machines count together. A window is a whole period of
the clock; across the border of two windows a caller may come up to twice the limit in the length
of one.
"""

import asyncio
import logging
from math import ceil
from time import time
from typing import NamedTuple

from serving.contract import rate_key
from serving.redis.reads import RedisReads
from serving.redis.turn import CommandRefused, RedisUnavailable

logger = logging.getLogger(__name__)

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


class Rate(NamedTuple):
    """Requests in a period of some seconds, at most."""

    requests: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """The rate in a text such as ``100/second``, of the form that the settings require."""
        requests, _, period = text.partition("/")
        return cls(int(requests), _SECONDS[period])


class Standing(NamedTuple):
    """How a caller stands after a request."""

    nth: int | None
    """Which request of the window it is; None where that could not be found out."""
    reset: int
    """Seconds until the next window begins."""


class RateLimiter:
    """Counts the requests of callers; those of one turn of the event loop in one round trip.

    Litestar's own limiter reads a list of times, and writes it back with one more: what another
    worker has counted in between is lost. Here Redis itself adds.
    """

    def __init__(self, redis: RedisReads, rate: Rate) -> None:
        self._redis = redis
        self.rate = rate
        self._window = 0
        self._exceeded: set[str] = set()
        self._batches: dict[str, _Batch] = {}
        self._works = True

    async def count(self, caller: str) -> Standing:
        """Count one request; one beyond the limit asks Redis no more than once a window."""
        now = time()
        window = int(now // self.rate.seconds)
        if window != self._window:
            self._window = window
            self._exceeded.clear()
        reset = max(1, ceil((window + 1) * self.rate.seconds - now))
        if caller in self._exceeded:
            return Standing(self.rate.requests + 1, reset)
        key = rate_key(caller, window)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch()
            batch.task = asyncio.create_task(self._add(key, batch))
        place = batch.size = batch.size + 1
        total = await asyncio.shield(batch.task)
        if total is None:
            return Standing(None, reset)
        count = total - batch.size + place
        if count > self.rate.requests and window == self._window:
            self._exceeded.add(caller)
        return Standing(count, reset)

    async def _add(self, key: str, batch: "_Batch") -> int | None:
        """Add the batch to its counter, which then holds what is returned, if Redis does it."""
        del self._batches[key]  # what comes from now on is of the next
        try:
            total, _ = await self._redis.read(
                [("INCRBY", key, batch.size), ("EXPIRE", key, 2 * self.rate.seconds)]
            )
        except RedisUnavailable:
            return None
        except CommandRefused as error:
            if self._works:
                logger.error("Requests are not limited, for Redis refuses to count: %s", error)
            self._works = False
            return None
        self._works = True
        return int(total)


class _Batch:
    """Requests of one caller that are counted at once."""

    __slots__ = ("size", "task")

    task: "asyncio.Task[int | None]"

    def __init__(self) -> None:
        self.size = 0
