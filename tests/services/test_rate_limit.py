"""The counters of the rate limit: none is lost, whatever comes at once."""

import asyncio

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.rate_limit import Rate, RateLimiter
from serving.redis.reads import RedisReads


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bursts=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(1, 30)), max_size=12
    ),
    limit=st.integers(1, 60),
)
def test_as_many_pass_as_may(redis_url: str, bursts: list[tuple[int, str, int]], limit: int):
    """Bursts of (worker, caller, requests), all under way together, of three workers."""

    async def counted() -> dict[str, list[int | None]]:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.flushall()
        found: dict[str, list[int | None]] = {"a": [], "b": []}

        async def burst(limiter: RateLimiter, caller: str, requests: int) -> None:
            standings = await asyncio.gather(*(limiter.count(caller) for _ in range(requests)))
            found[caller] += [standing.nth for standing in standings]

        async with (
            RedisReads(redis_url, 5) as one,
            RedisReads(redis_url, 5) as two,
            RedisReads(redis_url, 5) as three,
        ):
            rate = Rate(limit, 86_400)
            workers = [RateLimiter(reads, rate) for reads in (one, two, three)]
            await asyncio.gather(*(burst(workers[w], who, many) for w, who, many in bursts))
        return found

    for caller, numbers in asyncio.run(counted()).items():
        requests = sum(many for _, who, many in bursts if who == caller)
        passed = [number for number in numbers if number is not None and number <= limit]
        assert len(numbers) == requests
        assert sorted(passed) == list(range(1, min(limit, requests) + 1))


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/second", (100, 1)), ("6/minute", (6, 60)), ("1/hour", (1, 3600)), ("9/day", (9, 86400))],
)
def test_a_rate_is_read(text: str, rate: tuple[int, int]):
    assert Rate.parse(text) == rate


def test_requests_of_one_moment_are_one_command(redis_url: str):
    async def calls() -> tuple[int, list[int | None]]:
        async with RedisReads(redis_url, 5) as reads, redis.asyncio.Redis.from_url(redis_url) as r:
            await r.config_resetstat()
            limiter = RateLimiter(reads, Rate(5, 86_400))
            standings = await asyncio.gather(*(limiter.count("a") for _ in range(9)))
            await limiter.count("a")  # is beyond the limit, which is known
            stats = await r.info("commandstats")
            return stats["cmdstat_incrby"]["calls"], [standing.nth for standing in standings]

    assert asyncio.run(calls()) == (1, list(range(1, 10)))
