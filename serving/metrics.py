"""What Prometheus is told at /metrics, and how requests are counted and timed.

The series live in prometheus-client's default registry; under several workers the server names a
folder in PROMETHEUS_MULTIPROC_DIR before this is imported, and any worker then tells of all.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict

from litestar.plugins.prometheus import PrometheusController
from prometheus_client import Counter, Histogram

FLUSH_SECONDS = 0.5
"""How long what was counted may be on its way to the series, at most."""

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class TalliedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, tally: "Tally") -> None:
        """Add all that a tally has, and empty it."""
        for bucket, count in zip(self._buckets, tally.counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(tally.seconds)
        tally.clear()


class Tally:
    """Observations by bucket, in this process' memory."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.counts = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Add one observation."""
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.seconds += seconds


http_requests = Counter(
    "recsys_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
http_seconds = TalliedHistogram(
    "recsys_http_request_seconds", "From request to answer.", ["route"], buckets=_SECONDS
)
redis_seconds = TalliedHistogram(
    "recsys_redis_round_trip_seconds", "Round trips to Redis that were answered.", buckets=_SECONDS
)
redis_reads = Counter(
    "recsys_redis_reads_total", "Reads that were answered; per round trip, how many share one."
)
redis_failures = Counter(
    "recsys_redis_failures_total",
    "Requests not answered: Redis away or slow (unavailable), or a foreign value in it (contract).",
    ["reason"],
)
recommendations = Counter(
    "recsys_recommendations_total",
    "Lists served, by where they came from; empty: no product was left to recommend.",
    ["list", "source"],
)

_UNROUTED = "unrouted"
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})

# What a request adds is kept here for a moment, for the series above cost a system's write each.
_requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
_latencies: defaultdict[str, Tally] = defaultdict(Tally)
_lists: defaultdict[tuple[str, str], int] = defaultdict(int)
_round_trips = Tally()
_reads = 0


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count an answer, whether or not the path is one of ours, and time those of known routes.

    Paths and methods that are made up by clients are counted together.
    """
    if not _requests:
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, flush)
    if route is not None:
        _latencies[route].observe(seconds)
    else:
        route = _UNROUTED
    _requests[method if method in _METHODS else "other", route, status] += 1


def count_round_trip(reads: int, seconds: float) -> None:
    """Count a round trip to Redis that so many reads have shared."""
    global _reads
    _reads += reads
    _round_trips.observe(seconds)


def count_list(name: str, source: str) -> None:
    """Count a list that was served; ``source`` is where it came from, or "empty"."""
    _lists[name, source] += 1


def flush() -> None:
    """Bring what was counted to the series that /metrics tells of."""
    global _reads
    for labels, count in _requests.items():
        http_requests.labels(*labels).inc(count)
    for route, tally in _latencies.items():
        http_seconds.labels(route).add(tally)
    for (name, source), count in _lists.items():
        recommendations.labels(name, source).inc(count)
    redis_seconds.add(_round_trips)
    redis_reads.inc(_reads)
    _requests.clear()
    _lists.clear()
    _reads = 0


async def _flushed(_: object) -> None:
    """Before /metrics is answered: what this process has counted until now is told, too."""
    flush()


class MetricsController(PrometheusController):
    """GET /metrics, in Prometheus' text format."""

    include_in_schema = False
    before_request = staticmethod(_flushed)
