"""What Prometheus is told at /metrics, and how requests are counted and timed.

The series live in prometheus-client's default registry; under several workers the server names a
folder in PROMETHEUS_MULTIPROC_DIR before this is imported, and any worker then tells of all.
"""

import asyncio
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

FLUSH_SECONDS = 0.5
"""How long what was counted may be on its way to the series, at most."""

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_READS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BREAKER_STATES = ("closed", "half-open", "open")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class TalliedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, tally: "Tally") -> None:
        """Add all that a tally has, and empty it."""
        for bucket, count in zip(self._buckets, tally.counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(tally.sum)
        tally.clear()


class Tally:
    """Observations by bucket, in this process' memory."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """``bounds`` are the upper ones of all buckets but the last, which has none."""
        self._bounds = bounds
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add one observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


http_requests = Counter(
    "recsys_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
http_seconds = TalliedHistogram(
    "recsys_http_request_seconds", "From request to answer.", ["route"], buckets=_SECONDS
)
http_refused = Counter(
    "recsys_http_refused_total",
    "Requests refused before any work, by why: too many at work (busy), no_key, wrong_key, rate.",
    ["reason"],
)
http_in_flight = Gauge(
    "recsys_http_requests_in_flight",
    "Requests that a worker has at work.",
    multiprocess_mode="liveall",
)
redis_seconds = TalliedHistogram(
    "recsys_redis_round_trip_seconds", "Round trips to Redis that were answered.", buckets=_SECONDS
)
redis_reads = TalliedHistogram(
    "recsys_redis_reads_per_round_trip", "How many reads share a round trip.", buckets=_READS
)
redis_failures = Counter(
    "recsys_redis_failures_total",
    "Requests not answered: Redis away or slow (unavailable), or a foreign value in it (contract).",
    ["reason"],
)
redis_breaker = Gauge(
    "recsys_redis_breaker",
    "The circuit breaker before Redis: 1 for the state that a worker's is in.",
    ["state"],
    multiprocess_mode="liveall",
)
recommendations = Counter(
    "recsys_recommendations_total",
    "Lists served, by where they came from; empty: no product was left to recommend; stale: the "
    "guests' list as it was before Redis went away.",
    ["list", "source"],
)
resident_bytes = Gauge(
    "recsys_worker_resident_bytes", "Memory of a worker.", multiprocess_mode="liveall"
)

# These are told as 0 before they first happen, so that what is asked of them has an answer.
http_refused.labels("busy")
redis_failures.labels("unavailable")
redis_failures.labels("contract")

_UNROUTED = "unrouted"
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})

# What a request adds is kept here for a moment, for the series above cost a system's write each.
_requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
_latencies: defaultdict[str, Tally] = defaultdict(lambda: Tally(_SECONDS))
_lists: defaultdict[tuple[str, str], int] = defaultdict(int)
_refusals: defaultdict[str, int] = defaultdict(int)
_round_trips, _reads = Tally(_SECONDS), Tally(_READS)


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count an answer, whether or not the path is one of ours, and time those of known routes.

    Paths and methods that are made up by clients are counted together.
    """
    if route is not None:
        _latencies[route].observe(seconds)
    else:
        route = _UNROUTED
    _requests[method if method in _METHODS else "other", route, status] += 1


def count_round_trip(reads: int, seconds: float) -> None:
    """Count a round trip to Redis that so many reads have shared."""
    _reads.observe(reads)
    _round_trips.observe(seconds)


def count_list(name: str, source: str) -> None:
    """Count a list that was served; ``source`` is where it came from, or "empty"."""
    _lists[name, source] += 1


def count_refusal(reason: str) -> None:
    """Count a request that was refused before any work."""
    _refusals[reason] += 1


def flush() -> None:
    """Bring what was counted to the series that /metrics tells of."""
    for labels, count in _requests.items():
        http_requests.labels(*labels).inc(count)
    for route, tally in _latencies.items():
        http_seconds.labels(route).add(tally)
    for (name, source), count in _lists.items():
        recommendations.labels(name, source).inc(count)
    for reason, count in _refusals.items():
        http_refused.labels(reason).inc(count)
    redis_seconds.add(_round_trips)
    redis_reads.add(_reads)
    _requests.clear()
    _lists.clear()
    _refusals.clear()


@asynccontextmanager
async def told(in_flight: Callable[[], int], breaker: Callable[[], str]) -> AsyncIterator[None]:
    """While this is entered, what is counted is told every :data:`FLUSH_SECONDS`.

    So are the requests that this worker has at work, the state of its breaker, and its memory.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def tell() -> None:
        nonlocal timer
        timer = loop.call_later(FLUSH_SECONDS, tell)
        flush()
        http_in_flight.set(in_flight())
        now = breaker()
        for state in _BREAKER_STATES:
            redis_breaker.labels(state).set(state == now)
        with suppress(OSError):  # a system without /proc
            resident_bytes.set(int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES)

    tell()
    try:
        yield
    finally:
        timer.cancel()
        flush()
